"""Checkpoint folders: what is in them, what loads them, and what is left where something goes wrong."""

import json
import os
import re
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor

import lps_hf
import lps_hf.models
from lps_hf import LPSConfig, LPSForGraphClassification, LPSModel, LPSProcessor
from lps_hf.hub import checkpoints, save_checkpoint
from tests.tiny import random_rows, tiny_classifier, tiny_config

HUB_ROOM = Path(lps_hf.models.__file__).parent
# `symmetrize`, and what measures models, are for whoever has the package: no checkpoint needs them.
CODE = {file.name for file in HUB_ROOM.glob("*.py")} - {"__init__.py", "symmetrized.py", "evaluation_mode.py"}
FILES = CODE | {"config.json", "model.safetensors", "processor_config.json"}
AUTO_MAP = {
    "AutoConfig": "configuration_lps.LPSConfig",
    "AutoModel": "modeling_lps.LPSModel",
    "AutoModelForSequenceClassification": "modeling_heads_lps.LPSForGraphClassification",
}


@torch.no_grad()
def result_of(model, inputs):
    """The logits of a classifier, the output of an `LPSModel`."""
    return model(**inputs)[0]


def snapshot(folder):
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def read_json(file):
    return json.loads(file.read_text(encoding="utf-8"))


def classes_are_unmarked():
    return all(cls._auto_class is None for cls in (LPSConfig, LPSProcessor, LPSModel, LPSForGraphClassification))


@pytest.fixture
def checkpoint(model, processor, tmp_path):
    return save_checkpoint(model, processor, tmp_path / "checkpoint")


# What a folder holds


def test_a_folder_holds_weights_settings_and_the_whole_hub_room(model, processor, tmp_path):
    folder = tmp_path / "new" / "checkpoint"
    assert save_checkpoint(model, processor, str(folder)) == folder
    assert names_in(folder) == FILES
    assert names_in(folder.parent) == {"checkpoint"}
    for name in CODE:
        assert (folder / name).read_bytes() == (HUB_ROOM / name).read_bytes()
    config, processor_config = read_json(folder / "config.json"), read_json(folder / "processor_config.json")
    assert config["auto_map"] == AUTO_MAP
    assert config["architectures"] == ["LPSForGraphClassification"]
    assert processor_config["auto_map"] == {"AutoProcessor": "processing_lps.LPSProcessor"}
    weights = LPSForGraphClassification.from_pretrained(folder).state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[key], tensor) for key, tensor in model.state_dict().items())


RESULTS = {"task": "graph-classification", "metric": "accuracy", "test": {"accuracy": 0.75}}
SAMPLES = [{"num_samples": number, "metric": 0.7, "metric_deviation": 0.1} for number in (1, 2)]


def test_what_was_measured_lies_beside_the_weights_it_was_measured_of(model, processor, checkpoint):
    save_checkpoint(model, processor, checkpoint, results=RESULTS)
    assert names_in(checkpoint) == FILES | {"README.md", "results.json"}
    assert read_json(checkpoint / "results.json") == RESULTS
    assert "0.75" in (checkpoint / "README.md").read_text(encoding="utf-8")
    save_checkpoint(model, processor, checkpoint, results=RESULTS, card="# Mine\n")
    assert (checkpoint / "README.md").read_text() == "# Mine\n"
    save_checkpoint(tiny_classifier(1), processor, checkpoint)
    assert names_in(checkpoint) == FILES | {"README.md"}, "figures of other weights go, a card may be written by hand"
    save_checkpoint(model, processor, checkpoint, card="# Mine too\n")
    assert (checkpoint / "README.md").read_text() == "# Mine too\n"


def test_the_figure_is_drawn_where_matplotlib_is_there(model, processor, checkpoint, monkeypatch):
    pytest.importorskip("matplotlib")
    for results, is_drawn in (({**RESULTS, "samples": SAMPLES}, True), ({**RESULTS, "samples": []}, False)):
        save_checkpoint(model, processor, checkpoint, results=results)
        assert ("samples.png" in names_in(checkpoint)) == is_drawn
        assert ("(samples.png)" in (checkpoint / "README.md").read_text(encoding="utf-8")) == is_drawn
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    save_checkpoint(model, processor, checkpoint, results={**RESULTS, "samples": SAMPLES})
    assert "samples.png" not in names_in(checkpoint)


def test_results_that_cannot_be_written_leave_the_folder_as_it_was(processor, checkpoint):
    before = snapshot(checkpoint)
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        save_checkpoint(tiny_classifier(1), processor, checkpoint, results={**RESULTS, "seeds": {1, 2}})
    assert snapshot(checkpoint) == before


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": True}, {"trust_remote_code": False}], ids=str)
@pytest.mark.parametrize(
    ("auto_class", "expected"),
    [
        (AutoModelForSequenceClassification, LPSForGraphClassification),
        (lps_hf.AutoModelForGraphClassification, LPSForGraphClassification),
        (LPSForGraphClassification, LPSForGraphClassification),
        (AutoModel, LPSModel),
        (LPSModel, LPSModel),
    ],
    ids=lambda cls: cls.__name__,
)
def test_every_class_loads_it_and_ours_wins_over_the_code_in_it(model, inputs, checkpoint, auto_class, expected, options):
    (checkpoint / "modeling_lps.py").write_text("raise RuntimeError('the code of the checkpoint was run')\n")
    loaded = auto_class.from_pretrained(checkpoint, **options)
    assert type(loaded) is expected
    assert not loaded.training
    assert torch.equal(result_of(loaded, inputs), result_of(model, inputs))


def test_config_and_processor_come_back(model, processor, checkpoint):
    config, loaded = AutoConfig.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    assert type(config) is LPSConfig
    assert type(loaded) is LPSProcessor
    fields = ("group", "max_nodes", "node_categories", "edge_categories", "inputs", "interface_config", "num_labels")
    assert [getattr(config, name) for name in fields] == [getattr(model.config, name) for name in fields]
    assert config.backbone_config.to_dict() == model.config.backbone_config.to_dict()
    assert {**vars(loaded), "auto_map": None} == {**vars(processor), "auto_map": None}
    rows = random_rows(4, seed=1)
    first, second = processor(rows, return_tensors="pt"), loaded(rows, return_tensors="pt")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_model_without_a_head(processor, inputs, tmp_path):
    model = LPSModel(tiny_config(output="n 2")).eval()
    folder = save_checkpoint(model, processor, tmp_path / "checkpoint")
    auto_map = {name: AUTO_MAP[name] for name in ("AutoConfig", "AutoModel")}
    assert read_json(folder / "config.json")["auto_map"] == auto_map
    loaded = AutoModel.from_pretrained(folder)
    assert type(loaded) is LPSModel
    result = result_of(loaded, inputs)
    assert result.shape == (*inputs["node_mask"].shape, 2)
    assert torch.equal(result, result_of(model, inputs))


def test_half_precision(model, processor, inputs, checkpoint):
    half = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.bfloat16)
    save_checkpoint(half, processor, checkpoint)
    assert read_json(checkpoint / "config.json")["dtype"] == "bfloat16"
    again = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    for loaded in (half, again):
        # Sorting needs every digit, so p(g|x) stays in single precision.
        assert {weight.dtype for weight in loaded.lps.distribution.parameters()} == {torch.float32}
        assert {weight.dtype for weight in loaded.lps.base.parameters()} == {torch.bfloat16}
    assert torch.equal(result_of(half, inputs), result_of(again, inputs))
    single = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)
    assert {weight.dtype for weight in single.parameters()} == {torch.float32}
    assert torch.allclose(result_of(half, inputs).float(), result_of(model, inputs), atol=0.1)


# Folders that are there already


def in_shards(model, size):
    """Let a model write its weights in shards, as a large one does."""
    model.save_pretrained = partial(type(model).save_pretrained, model, max_shard_size=size)
    return model


@pytest.mark.parametrize("sizes", [("20KB", None), (None, "20KB"), ("20KB", "40KB"), ("40KB", "20KB")], ids=str)
def test_weights_in_another_number_of_shards_are_not_left_behind(processor, inputs, tmp_path, sizes):
    folder, seen = tmp_path / "checkpoint", []
    for seed, size in enumerate(sizes):
        model = tiny_classifier(seed)
        save_checkpoint(in_shards(model, size) if size else model, processor, folder)
        seen.append({name for name in names_in(folder) if "safetensors" in name})
    before, after = seen
    assert before != after
    if sizes[1] is None:
        assert after == {"model.safetensors"}
    else:
        index = read_json(folder / "model.safetensors.index.json")
        assert after == {*index["weight_map"].values(), "model.safetensors.index.json"}
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert torch.equal(result_of(loaded, inputs), result_of(model, inputs))


def test_a_checkpoint_in_shards_loads(model, inputs, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    for auto_class in (AutoModelForSequenceClassification, AutoModel):
        assert torch.equal(result_of(auto_class.from_pretrained(tmp_path), inputs), result_of(model, inputs))


def test_files_of_other_names_stay(processor, checkpoint):
    others = {"README.md": b"# Mine\n", "model_notes.safetensors": b"", "logs/model.safetensors": b"1"}
    (checkpoint / "logs").mkdir()
    for name, content in others.items():
        (checkpoint / name).write_bytes(content)
    new = tiny_classifier(1)
    save_checkpoint(new, processor, checkpoint)
    after = snapshot(checkpoint)
    assert {name: after[name] for name in others} == others
    assert after.keys() == FILES | others.keys()
    assert torch.equal(
        load_file(checkpoint / "model.safetensors")["lps.base.readout.linear.bias"].float(),
        new.state_dict()["lps.base.readout.linear.bias"],
    )


@pytest.mark.parametrize("folder", [".", "..", "sub/..", "checkpoint/", "link"])
def test_a_folder_by_any_name(model, processor, tmp_path, monkeypatch, folder):
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "mine.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (work / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    monkeypatch.chdir(work)
    save_checkpoint(model, processor, folder)
    place = {"checkpoint/": work / "checkpoint", "link": tmp_path / "elsewhere", "..": tmp_path}.get(folder, work)
    assert names_in(place) >= FILES
    assert (work / "mine.txt").read_text() == "mine"
    assert (work / "link").is_symlink()
    left = [path for path in tmp_path.rglob("*") if path.name not in FILES]
    assert not [path for path in left if path.name.startswith(".")], "nothing temporary is left"


def test_a_linked_file_is_replaced_and_its_target_left_alone(processor, checkpoint, tmp_path):
    # As in the cache of the Hub client, whose snapshots are links to files that others share.
    stored = (checkpoint / "model.safetensors").rename(tmp_path / "stored")
    (checkpoint / "model.safetensors").symlink_to(stored)
    content = stored.read_bytes()
    save_checkpoint(tiny_classifier(1), processor, checkpoint)
    assert stored.read_bytes() == content
    assert not (checkpoint / "model.safetensors").is_symlink()


# What goes wrong


def test_a_file_in_the_place_of_the_folder(model, processor, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ValueError, match="folder: expected a folder, got the file .*notes"):
        save_checkpoint(model, processor, tmp_path / "notes")
    with pytest.raises(OSError, match="notes"):
        save_checkpoint(model, processor, tmp_path / "notes" / "checkpoint")
    assert snapshot(tmp_path) == {"notes": b"mine"}


class MyClassifier(LPSForGraphClassification):
    """A class that no Auto class knows, so that its checkpoint would load as something else."""


def test_classes_that_cannot_be_shared(model, processor, tmp_path):
    folder = tmp_path / "checkpoint"
    known = "model: expected one of LPSModel, LPSForGraphClassification, .*, got"
    with pytest.raises(ValueError, match=f"{known} Linear"):
        save_checkpoint(torch.nn.Linear(1, 1), processor, folder)
    with pytest.raises(ValueError, match=f"{known} MyClassifier"):
        save_checkpoint(MyClassifier(model.config), processor, folder)
    with pytest.raises(ValueError, match=f"{known} LPSProcessor"):
        save_checkpoint(processor, model, folder)
    with pytest.raises(ValueError, match="processor: expected an LPSProcessor, got NoneType"):
        save_checkpoint(model, None, folder)
    assert names_in(tmp_path) == set()


def fail(error, *args, **kwargs):
    raise error


@pytest.mark.parametrize("there_already", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"])
@pytest.mark.parametrize("moment", ["weights", "processor", "code"])
def test_an_error_in_the_middle_leaves_the_folder_as_it_was(processor, tmp_path, monkeypatch, moment, error, there_already):
    folder = tmp_path / "checkpoint"
    if there_already:
        save_checkpoint(tiny_classifier(0), processor, folder)
        (folder / "mine.txt").write_text("mine")
    before, model = snapshot(tmp_path), tiny_classifier(1)
    if moment == "weights":
        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", partial(fail, error))
    elif moment == "processor":
        processor.save_pretrained = partial(fail, error)
    else:
        monkeypatch.setattr(checkpoints, "add_code", partial(fail, error))
    with pytest.raises(type(error)) as raised:
        save_checkpoint(model, processor, folder)
    assert raised.value is error
    assert snapshot(tmp_path) == before
    assert names_in(tmp_path) == ({"checkpoint"} if there_already else set())
    assert not (there_already and [name for name in names_in(folder) if name.startswith(".")])
    assert classes_are_unmarked()


def test_a_file_that_cannot_be_replaced_leaves_the_folder_as_it_was(processor, checkpoint, monkeypatch):
    # Where a system locks files that are open, any one of the moves may fail.
    before, new, rename = snapshot(checkpoint), in_shards(tiny_classifier(1), "40KB"), Path.rename
    errors = [PermissionError(13, "in use"), KeyboardInterrupt()]
    moves = []

    def rename_all_but_one(source, target):
        moves.append(target)
        if len(moves) == failing:
            raise errors[failing % 2]
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", rename_all_but_one)
    failing = 1
    while True:
        moves.clear()
        try:
            save_checkpoint(new, processor, checkpoint)
        except (PermissionError, KeyboardInterrupt):
            assert snapshot(checkpoint) == before
            assert names_in(checkpoint) == FILES
            failing += 1
        else:
            break
    shards = names_in(checkpoint) - FILES
    assert names_in(checkpoint) == (FILES - {"model.safetensors"}) | shards
    assert failing - 1 == len(FILES) + len(names_in(checkpoint)), "every old file moves out, every new one in"


@pytest.mark.parametrize("limit", [1_000, 60_000], ids=["while code is copied", "while weights are written"])
def test_a_disk_that_is_really_full(processor, checkpoint, limit):
    before, (soft, hard) = snapshot(checkpoint), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert limit < os.path.getsize(checkpoint / "model.safetensors")
    new = tiny_classifier(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(new, processor, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert snapshot(checkpoint) == before
    assert names_in(checkpoint) == FILES


# Code travels only where it is meant to


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_saved_afterwards_carries_no_code(model, processor, tmp_path, fails):
    if fails:
        processor.save_pretrained = partial(fail, OSError("disk full"))
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(model, processor, tmp_path / "checkpoint")
        del processor.save_pretrained
    else:
        save_checkpoint(model, processor, tmp_path / "checkpoint")
    assert classes_are_unmarked()
    model.save_pretrained(tmp_path / "plain")
    processor.save_pretrained(tmp_path / "plain")
    tiny_classifier(1).save_pretrained(tmp_path / "another")
    assert names_in(tmp_path / "plain") == FILES - CODE
    assert names_in(tmp_path / "another") == {"config.json", "model.safetensors"}
    for file in ("plain/config.json", "plain/processor_config.json", "another/config.json"):
        assert "auto_map" not in read_json(tmp_path / file), "no code is claimed that is not there"


def test_maps_of_others_stay_theirs(model, processor, tmp_path):
    theirs = {"AutoModel": "someone/model--modeling_other.Other", "AutoModelForMaskedLM": "modeling_other.Other"}
    model.config.auto_map = dict(theirs)
    folder = save_checkpoint(model, processor, tmp_path / "checkpoint")
    assert read_json(folder / "config.json")["auto_map"] == AUTO_MAP
    assert model.config.auto_map == theirs


def test_classes_that_somebody_has_marked_make_no_difference(model, processor, tmp_path, monkeypatch):
    for cls in (LPSForGraphClassification, LPSConfig):
        monkeypatch.setattr(cls, "_auto_class", cls._auto_class)  # put back at the end
    LPSForGraphClassification.register_for_auto_class("AutoModelForSequenceClassification")
    LPSConfig.register_for_auto_class()
    folder = save_checkpoint(model, processor, tmp_path / "checkpoint")
    assert read_json(folder / "config.json")["auto_map"] == AUTO_MAP
    assert names_in(folder) == FILES
    assert LPSForGraphClassification._auto_class == "AutoModelForSequenceClassification"
    assert LPSProcessor._auto_class is None


def test_saving_again_what_was_loaded(processor, inputs, checkpoint, tmp_path):
    loaded = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    again = save_checkpoint(loaded, AutoProcessor.from_pretrained(checkpoint), tmp_path / "again")
    before, after = snapshot(checkpoint), snapshot(again)
    config, config_again = json.loads(before.pop("config.json")), json.loads(after.pop("config.json"))
    assert after == before
    config["backbone_config"]["dtype"] = "float32"  # transformers writes down what it loaded
    assert config_again == config


def test_what_was_loaded_and_is_saved_plainly_claims_no_code(checkpoint, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(checkpoint).save_pretrained(tmp_path / "plain")
    assert not [name for name in names_in(tmp_path / "plain") if name.endswith(".py")]
    assert "auto_map" not in read_json(tmp_path / "plain" / "config.json")


def test_two_threads_save_at_once(processor, tmp_path):
    models = [tiny_classifier(seed) for seed in range(4)]
    processors = [LPSProcessor.from_config(model.config) for model in models]
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(save_checkpoint, models, processors, [tmp_path / str(seed) for seed in range(4)]))
    assert all(names_in(folder) == FILES for folder in folders)
    assert classes_are_unmarked()


# Broken checkpoints


def change_weights(change):
    def break_folder(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return break_folder


def change_bytes(change):
    def break_folder(folder):
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return break_folder


def change_config(**changes):
    def break_folder(folder):
        config = {**read_json(folder / "config.json"), **changes}
        (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value}))

    return break_folder


def write_config(text):
    return lambda folder: (folder / "config.json").write_text(text)


BROKEN = {
    "weights cut in half": (change_bytes(lambda b: b[: len(b) // 2]), SafetensorError, "incomplete metadata"),
    "last byte missing": (change_bytes(lambda b: b[:-1]), SafetensorError, "file not fully covered"),
    "empty weights": (change_bytes(lambda b: b""), SafetensorError, "header too small"),
    "header length": (change_bytes(lambda b: b"\xff" * 8 + b[8:]), SafetensorError, "header too large"),
    "header text": (change_bytes(lambda b: b[:8] + b"\0\1" + b[10:]), SafetensorError, "invalid JSON in header"),
    "header type": (
        change_bytes(lambda b: b.replace(b'"F32"', b'"F99"', 1)),
        SafetensorError,
        "unknown variant `F99`",
    ),
    "header offsets": (change_bytes(lambda b: b.replace(b'offsets":[', b'offsets":[9', 1)), SafetensorError, "offset"),
    "key renamed": (
        change_bytes(lambda b: b.replace(b"readout.linear.bias", b"readout.linear.mass")),
        ValueError,
        r"checkpoint: expected the weights that config\.json describes, .*lacks weights: .*readout\.linear\.bias\.",
    ),
    "key missing": (
        change_weights(lambda weights: weights.pop("lps.base.readout.linear.weight")),
        ValueError,
        r"lacks weights: (lps\.)?base\.readout\.linear\.weight\..* save both again",
    ),
    "key too many": (
        change_weights(lambda weights: weights.update({"lps.more": torch.ones(2)})),
        ValueError,
        r"has weights too many: lps\.more\.",
    ),
    "weights missing": (
        lambda folder: (folder / "model.safetensors").unlink(),
        OSError,
        r"no file named model\.safetensors",
    ),
    "other max_nodes": (change_config(max_nodes=20), RuntimeError, "ignore_mismatched_sizes"),
    "other num_labels": (
        change_config(id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}),
        RuntimeError,
        "ignore_mismatched_sizes",
    ),
    "other distribution": (change_config(distribution="haar"), ValueError, r"has weights too many: lps\.distribution"),
    "unknown model_type, with code": (change_config(model_type="lsp"), ValueError, "contains custom code"),
    "unknown model_type": (change_config(model_type="lsp", auto_map=None), ValueError, "has model type `lsp`"),
    "unknown group": (change_config(group="Q_n"), ValueError, "group: expected one of 'S_n'.*, got 'Q_n'"),
    "unknown backbone": (change_config(backbone_config={"model_type": "vti"}), ValueError, "vti"),
    "impossible value": (change_config(temperature=-1), ValueError, "temperature: expected a positive number, got -1"),
    "no model_type": (write_config("{}"), ValueError, "Should have a `model_type` key"),
    "config is no JSON": (write_config('{"model_type": '), OSError, r"config\.json' is not a valid JSON file"),
    "config missing": (lambda folder: (folder / "config.json").unlink(), ValueError, "Unrecognized model in"),
    "folder missing": (shutil.rmtree, OSError, "checkpoint"),
}


@pytest.mark.parametrize(("break_folder", "error", "message"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, AutoModel], ids=lambda cls: cls.__name__)
def test_a_broken_checkpoint_gives_an_error_and_never_a_model(checkpoint, monkeypatch, auto_class, break_folder, error, message):
    monkeypatch.setattr("builtins.input", lambda prompt: "")  # transformers asks before it runs code
    break_folder(checkpoint)
    with pytest.raises(error, match=message):
        auto_class.from_pretrained(checkpoint)


def test_a_mismatch_is_logged_with_both_shapes(checkpoint, caplog):
    change_config(max_nodes=20)(checkpoint)
    with pytest.raises(RuntimeError, match="above report"):
        LPSForGraphClassification.from_pretrained(checkpoint)
    assert re.search(r"projections\.edge_features\S+ .*ckpt: torch\.Size\(.*model:torch\.Size\(", caplog.text)


@pytest.mark.parametrize("text", ["", "{"])
def test_a_broken_processor_gives_an_error(checkpoint, text):
    (checkpoint / "processor_config.json").write_text(text)
    with pytest.raises(OSError, match=r"processor_config\.json"):
        AutoProcessor.from_pretrained(checkpoint)


def test_a_processor_that_is_missing_is_made_for_the_model_or_refused(checkpoint, model):
    (checkpoint / "processor_config.json").unlink()
    try:
        loaded = AutoProcessor.from_pretrained(checkpoint)
    except OSError:
        return
    assert loaded.node_categories == model.config.node_categories


# Cards


def test_other_weights_do_not_keep_the_card_of_those_before(model, processor, tmp_path):
    results = {"task": "graph-classification", "metric": "accuracy", "test": {"accuracy": 0.625}, "num_test": 8}
    folder = save_checkpoint(model, processor, tmp_path / "checkpoint", results=results)
    assert "0.625" in (folder / "README.md").read_text()
    save_checkpoint(tiny_classifier(1), processor, folder)
    assert "0.625" not in (folder / "README.md").read_text()
    (folder / "README.md").write_text("# By hand")
    save_checkpoint(tiny_classifier(1), processor, folder)
    assert (folder / "README.md").read_text() == "# By hand"


def test_a_report_is_written_anew_beside_the_weights(model, processor, tmp_path):
    folder = save_checkpoint(model, processor, tmp_path / "checkpoint")
    before = snapshot(folder)
    results = {"task": "graph-classification", "metric": "accuracy", "test": {"accuracy": 0.625, "roc_auc": float("nan")}}
    checkpoints.write_report(folder, results)
    after = snapshot(folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"README.md", "results.json"}
    assert read_json(folder / "results.json")["test"] == {"accuracy": 0.625, "roc_auc": None}
