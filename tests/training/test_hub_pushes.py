"""Every way in which the Trainer pushes ends with a repository that explains itself and loads without lps_hf."""

import json
import logging
from itertools import count

import pytest
from huggingface_hub import ModelCard
from transformers import Trainer

from lps_hf import LPSForGraphClassification, LPSTrainer, LPSTrainingArguments
from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.hub import fetch
from lps_hf.hub.loading import load_checkpoint
from lps_hf.hub.publishing import checkpoint_files
from lps_hf.models.processing_lps import LPSProcessor
from tests.loopback_hub import Fault
from tests.tiny import random_rows, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
_numbers = count()


@pytest.fixture
def repo():
    return f"tester/trained-{next(_numbers)}"


def make_trainer(folder, repo, cls=LPSTrainer, model=None, **options):
    model, rows = model or tiny_classifier(), random_rows(4)
    processor = LPSProcessor.from_config(model.config)
    given = {"push_to_hub": True, "max_steps": 4, "save_steps": 2, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    arguments = LPSTrainingArguments(str(folder), hub_model_id=repo, per_device_train_batch_size=2, **{**given, **options})
    return cls(
        model,
        arguments,
        data_collator=DataCollatorForGraphs(processor),
        processing_class=processor,
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=compute_metrics_for("graph-classification", "single_label_classification", 3),
    )


def files_at(hub, repo, revision="main"):
    files = hub.repos["models", repo].find(revision).files
    return {name: blob.content for name, blob in files.items() if name != ".gitattributes"}


def titles(hub, repo, revision="main"):
    return [commit.title for commit in hub.repos["models", repo].find(revision).history()][:-1]


def check(hub, repo, model, revision=None):
    """That the top folder is a whole checkpoint with card and results, and loads as this model."""
    folder = fetch(repo, revision=revision)
    names = checkpoint_files(folder)  # refuses a folder that lacks code
    top = {name for name in files_at(hub, repo, revision or "main") if "/" not in name}
    assert set(names) == top, "nothing else goes up"
    assert {"README.md", "results.json", "modeling_heads_lps.py"} <= top
    assert ModelCard.load(folder / "README.md").data.library_name == "transformers"
    results = json.loads((folder / "results.json").read_text())
    assert results["metric"] == "accuracy"
    loaded, _ = load_checkpoint(folder)
    weights = model.state_dict()
    assert all((weights[name] == weight).all() for name, weight in loaded.state_dict().items())


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints", "end"])
def test_every_strategy(hub, repo, tmp_path, strategy):
    evaluation = {"eval_strategy": "steps", "eval_steps": 2}
    trainer = make_trainer(tmp_path / "run", repo, hub_strategy=strategy, hub_always_push=True, **evaluation)
    trainer.train()
    parts = {path.split("/")[0] for path in files_at(hub, repo) if "/" in path} if strategy != "end" else set()
    expected = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-2", "checkpoint-4"}}
    assert parts == expected.get(strategy, set())
    if strategy == "end":
        assert titles(hub, repo) == []
    else:
        check(hub, repo, trainer.model)
        steps = [title for title in titles(hub, repo) if "checkpoint" not in title]
        assert steps == ["Training in progress, step 4", "Training in progress, step 2"]
    trainer.push_to_hub(license="mit", tags="tiny")
    check(hub, repo, trainer.model)
    header = ModelCard(files_at(hub, repo)["README.md"].decode()).data
    assert header.license == "mit"
    assert "tiny" in header.tags
    assert titles(hub, repo)[0] == "End of training"


def test_a_push_of_its_own_to_a_branch(hub, repo, tmp_path):
    trainer = make_trainer(tmp_path / "run", repo, push_to_hub=False, hub_private_repo=True, hub_revision="trial")
    trainer.evaluate()
    commit = trainer.push_to_hub("Untrained")
    assert titles(hub, repo, "trial") == ["Untrained"]
    assert titles(hub, repo) == []
    assert hub.repos["models", repo].private
    assert commit.oid == hub.repos["models", repo].find("trial").oid
    check(hub, repo, trainer.model, "trial")
    later = trainer.push_to_hub("Later", blocking=False)
    assert later.result().oid == commit.oid, "nothing has changed"


def test_a_push_that_fails_on_the_way_is_told_and_training_goes_on(hub, repo, tmp_path, waits, caplog):
    trainer = make_trainer(tmp_path / "run", repo, hub_always_push=True)
    hub.inject(Fault(f"POST .*{repo}/commit/", status=403, times=2))
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        trainer.train()
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert trainer.state.global_step == 4
    told = [record.getMessage() for record in caplog.records if "A push to the Hub failed" in record.getMessage()]
    assert len(told) == 2
    assert all("the token may not do this" in text for text in told)
    assert titles(hub, repo) == []


def test_a_wrong_token_is_told_before_training(hub, repo, tmp_path, waits):
    with pytest.raises(PermissionError, match="the Hub wants to know who asks"):
        make_trainer(tmp_path / "run", repo, hub_token="hf_wrong")


def test_a_class_of_somebodys_own_is_pushed_as_trainer_does(hub, repo, tmp_path):
    class Mine(LPSForGraphClassification):
        pass

    trainer = make_trainer(tmp_path / "run", repo, model=Mine(tiny_classifier().config))
    trainer.train()
    trainer.push_to_hub()
    assert {"README.md", "model.safetensors"} <= files_at(hub, repo).keys()


def test_the_plain_trainer_pushes_as_ever(hub, repo, tmp_path):
    trainer = make_trainer(tmp_path / "run", repo, Trainer, save_strategy="no")
    trainer.train()
    trainer.push_to_hub()
    names = files_at(hub, repo).keys()
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json"} <= names
    assert not [name for name in names if name.endswith(".py")]
