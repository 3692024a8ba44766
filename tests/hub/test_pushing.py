"""`push_to_hub` of models, processors and pipelines is a publication, and what was measured is kept."""

import json
from itertools import count

import pytest
from huggingface_hub import ModelCard
from transformers import pipeline

from lps_hf.hub import publish, save_checkpoint
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.processing_lps import LPSProcessor
from tests.task_cases import task_case
from tests.tiny import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
RESULTS = {"task": "graph-classification", "metric": "accuracy", "test": {"accuracy": 0.75}, "num_test": 20}
_numbers = count()


@pytest.fixture
def repo():
    return f"tester/pushed-{next(_numbers)}"


def files_at(hub, repo, revision="main"):
    files = hub.repos["models", repo].find(revision).files
    return {name: blob.content for name, blob in files.items() if name != ".gitattributes"}


def titles(hub, repo, revision="main"):
    return [commit.title for commit in hub.repos["models", repo].find(revision).history()]


def without(files, *names):
    return {name: content for name, content in files.items() if name not in names}


def renamed(card, old, new):
    return card.decode().replace(old.split("/")[1], new.split("/")[1])


# What goes up


def test_pushing_a_model_is_publishing_it(hub, model, processor, repo):
    commit = model.push_to_hub(repo)
    published = f"{repo}-published"
    publish(model, processor, published)
    pushed = files_at(hub, repo)
    assert without(pushed, "README.md") == without(files_at(hub, published), "README.md")
    assert renamed(files_at(hub, published)["README.md"], published, repo) == pushed["README.md"].decode()
    assert commit.oid == hub.repos["models", repo].find("main").oid
    assert titles(hub, repo) == ["Upload symmetrized model", "initial commit"]


def test_the_options_of_a_push(hub, model, repo):
    model.add_model_tags("mine")
    model.push_to_hub(
        repo, commit_message="Try", private=True, revision="trial", max_shard_size="20KB", tags=["tiny", "mine"], token=hub.token
    )
    sent = files_at(hub, repo, "trial")
    assert "model.safetensors.index.json" in sent
    assert {"mine", "tiny"} <= set(ModelCard(sent["README.md"].decode()).data.tags)
    assert titles(hub, repo, "trial")[0] == "Try"
    assert hub.repos["models", repo].private
    with pytest.raises(TypeError, match="colour"):
        model.push_to_hub(repo, colour="red")


def test_a_name_without_an_owner_that_is_a_folder_too(hub, model, processor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("pushed-folder", push_to_hub=True)
    processor.save_pretrained("pushed-folder", push_to_hub=True)
    sent = files_at(hub, "tester/pushed-folder")
    assert {"README.md", "modeling_lps.py", "processor_config.json"} <= sent.keys()
    assert 'from_pretrained("tester/pushed-folder"' in sent["README.md"].decode()
    assert titles(hub, "tester/pushed-folder")[0] == "Upload symmetrized model", "the processor is there already"


def test_saving_with_a_push(hub, model, processor, repo, tmp_path):
    model.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=repo, commit_message="Saved")
    assert titles(hub, repo)[0] == "Saved"
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {"config.json", "model.safetensors"}
    processor.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=f"{repo}-processor", commit_message="It")
    assert titles(hub, f"{repo}-processor")[0] == "It"
    model.save_pretrained(tmp_path / "another", is_main_process=False, push_to_hub=True, repo_id=f"{repo}-none")
    assert ("models", f"{repo}-none") not in hub.repos


@pytest.mark.parametrize("processor_first", [False, True])
def test_a_model_and_its_processor_in_either_order(hub, model, processor, repo, processor_first):
    pushes = [lambda: model.push_to_hub(repo), lambda: processor.push_to_hub(repo)]
    for push in reversed(pushes) if processor_first else pushes:
        push()
    sent = files_at(hub, repo)
    published = f"{repo}-published"
    publish(model, processor, published)
    assert without(sent, "README.md") == without(files_at(hub, published), "README.md")


def test_a_processor_touches_nothing_else(hub, model, processor, repo):
    publish(model, processor, repo, results=RESULTS, card="---\nlicense: mit\n---\n# By hand\n")
    other = LPSProcessor.from_config(model.config)
    other.max_nodes = 5
    before = files_at(hub, repo)
    other.push_to_hub(repo)
    after = files_at(hub, repo)
    assert without(after, "processor_config.json") == without(before, "processor_config.json")
    assert json.loads(after["processor_config.json"])["max_nodes"] == 5
    assert json.loads(after["processor_config.json"])["auto_map"] == {"AutoProcessor": "processing_lps.LPSProcessor"}
    assert titles(hub, repo)[0] == "Upload processor"
    with pytest.raises(TypeError, match="colour: expected one of commit_message"):
        other.push_to_hub(repo, colour="red")


def test_a_processor_alone_has_its_code(hub, processor, repo):
    processor.push_to_hub(repo)
    sent = files_at(hub, repo)
    assert {"processor_config.json", "processing_lps.py", "row_labels.py", "configuration_lps.py"} <= sent.keys()
    assert not {"README.md", "config.json", "modeling_lps.py"} & sent.keys()


def test_a_pipeline_pushes_both(hub, model, processor, repo, tmp_path):
    pipe = pipeline("graph-classification", model=model, processor=processor)
    pipe.push_to_hub(repo)
    assert {"README.md", "processor_config.json", "model.safetensors", "pipeline_lps.py"} <= files_at(hub, repo).keys()
    pipe.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=f"{repo}-saved")
    assert titles(hub, f"{repo}-saved") == ["Upload symmetrized model", "initial commit"]
    assert without(files_at(hub, f"{repo}-saved"), "README.md") == without(files_at(hub, repo), "README.md")


@pytest.mark.parametrize("known", ["nowhere", "in the repository", "where it is from"])
def test_how_images_are_prepared_is_kept(hub, repo, tmp_path, monkeypatch, known):
    pytest.importorskip("PIL")
    said = []
    monkeypatch.setattr("lps_hf.hub.pushing.logger.warning", said.append)
    model, _, _ = task_case("image-classification")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "image_mean": [0.1, 0.2, 0.3]}
    processor = LPSProcessor.from_config(model.config, settings)
    if known == "in the repository":
        processor.push_to_hub(repo)
    if known == "where it is from":
        model = type(model).from_pretrained(save_checkpoint(model, processor, tmp_path))
    model.push_to_hub(repo)
    kept = json.loads(files_at(hub, repo)["processor_config.json"]).get("image_processor")
    assert (kept is None) == bool(said) == (known == "nowhere")
    if kept is not None:
        assert kept["image_mean"] == [0.1, 0.2, 0.3]


class Own(LPSForGraphClassification):
    """A class of somebody's own."""


def test_a_class_of_ones_own_is_pushed_as_transformers_does(hub, model, repo):
    Own(model.config).push_to_hub(repo)
    assert files_at(hub, repo).keys() == {"README.md", "config.json", "model.safetensors"}


def test_without_the_package_transformers_pushes(hub, model, processor, repo, monkeypatch):
    monkeypatch.setattr("lps_hf.models.push_verbs.PUSHERS", {})
    for module in ("modeling_lps", "processing_lps", "pipeline_lps"):
        monkeypatch.setattr(f"lps_hf.models.{module}.PUSHERS", {})
    model.push_to_hub(repo)
    processor.push_to_hub(repo)
    assert files_at(hub, repo).keys() == {"README.md", "config.json", "model.safetensors", "processor_config.json"}
    pipeline("graph-classification", model=model, processor=processor).push_to_hub(f"{repo}-pipeline")
    assert files_at(hub, f"{repo}-pipeline").keys() == files_at(hub, repo).keys()


# What was measured


def results_at(hub, repo):
    files = files_at(hub, repo)
    return json.loads(files["results.json"]) if "results.json" in files else None


@pytest.mark.parametrize("push", ["push_to_hub", "another repository"])
def test_results_of_a_repository_are_kept(hub, model, processor, repo, push):
    publish(model, processor, repo, results=RESULTS, license="mit", datasets=["me/graphs"])
    before = files_at(hub, repo)
    loaded = type(model).from_pretrained(repo)
    target = f"{repo}-2" if push == "another repository" else repo
    if push == "push_to_hub":
        loaded.push_to_hub(target)
    else:
        publish(loaded, processor, target)
    after = files_at(hub, target)
    assert results_at(hub, target) == RESULTS
    assert renamed(after["README.md"], target, repo) == before["README.md"].decode()
    assert ModelCard(after["README.md"].decode()).data.license == "mit"


def test_results_of_a_folder_are_kept(hub, model, processor, repo, tmp_path):
    folder = save_checkpoint(model, processor, tmp_path / "first", results=RESULTS)
    loaded = type(model).from_pretrained(folder)
    loaded.push_to_hub(repo)
    assert results_at(hub, repo) == RESULTS
    for again in (tmp_path / "second", folder):
        save_checkpoint(loaded, processor, again)
        assert json.loads((again / "results.json").read_text()) == RESULTS
        assert (again / "README.md").read_text() == (folder / "README.md").read_text()


def test_a_card_by_hand_is_kept_with_the_results(hub, model, processor, repo, tmp_path):
    folder = save_checkpoint(model, processor, tmp_path, results=RESULTS, card="---\nlicense: mit\n---\n# By hand\n")
    type(model).from_pretrained(folder).push_to_hub(repo)
    assert ModelCard(files_at(hub, repo)["README.md"].decode()).text == "# By hand\n"


def changed_settings(model, processor):
    model.config.noise_scale = 0.5


def changed_processor(model, processor):
    processor.max_nodes = 5


@pytest.mark.parametrize("change", [changed_settings, changed_processor, "weights"])
def test_results_of_another_model_are_not_kept(model, processor, tmp_path, change):
    folder = save_checkpoint(model, processor, tmp_path / "first", results=RESULTS)
    loaded, own = type(model).from_pretrained(folder), LPSProcessor.from_pretrained(folder)
    if change == "weights":
        next(iter(loaded.backbone_parameters())).data.view(-1)[0] += 1e-6
    else:
        change(loaded, own)
    again = save_checkpoint(loaded, own, tmp_path / "second")
    assert not (again / "results.json").exists()
    assert not (again / "README.md").exists()


def test_what_does_not_change_the_model_costs_no_results(model, processor, tmp_path):
    folder = save_checkpoint(model, processor, tmp_path / "first", results=RESULTS)
    loaded = type(model).from_pretrained(folder, num_eval_samples=5)
    loaded.config.id2label = {0: "a", 1: "b", 2: "c"}
    assert (save_checkpoint(loaded, processor, tmp_path / "second") / "results.json").exists()


def test_results_that_cannot_be_read_or_reached_are_named(hub, model, processor, repo, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("lps_hf.hub.origins.logger.warning", said.append)
    folder = save_checkpoint(model, processor, tmp_path / "first", results=RESULTS)
    (folder / "results.json").write_text("no JSON")
    loaded = type(model).from_pretrained(folder)
    save_checkpoint(loaded, processor, tmp_path / "second")
    assert "expected JSON" in said[0]
    monkeypatch.setattr("lps_hf.hub.publishing.logger.warning", said.append)
    loaded.name_or_path = "tester/gone"
    publish(loaded, processor, repo)
    assert "tester/gone, where this model is from, is not kept" in said[1]
    assert results_at(hub, repo) is None


def test_results_that_are_given_come_first(hub, model, processor, repo, tmp_path):
    folder = save_checkpoint(model, processor, tmp_path, results=RESULTS)
    loaded = type(model).from_pretrained(folder)
    publish(loaded, processor, repo, results={**RESULTS, "num_test": 3})
    assert results_at(hub, repo)["num_test"] == 3


def test_a_new_model_has_no_origin(hub, processor, repo):
    publish(tiny_classifier(0), processor, repo, results=RESULTS)
    tiny_classifier(1).push_to_hub(repo)
    assert results_at(hub, repo) is None
