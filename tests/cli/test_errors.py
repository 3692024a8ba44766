"""Whatever is wrong with data, checkpoint, recipe or folder is told in one line, with exit code 1 or 2."""

import json
import shutil
from pathlib import Path

import pytest

from lps_hf import cli
from tests.tiny import save_tiny_vit

CONFIG, PROCESSOR, WEIGHTS = "config.json", "processor_config.json", "model.safetensors"


def cut(file):
    file.write_bytes(file.read_bytes()[:50])


def without_backbone(file):
    file.write_text(json.dumps({**json.loads(file.read_text()), "backbone_config": {}}))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (WEIGHTS, cut, "expected weights, got a file that is damaged or not whole"),
        (WEIGHTS, Path.unlink, "model.safetensors"),
        (CONFIG, cut, "expected the settings of a model"),
        (CONFIG, Path.unlink, "expected a checkpoint folder with config.json"),
        (CONFIG, lambda file: file.write_text("[]"), "expected the settings of a model"),
        (CONFIG, lambda file: file.write_text('{"model_type": "vit"}'), "expected a checkpoint of lps_hf, got model type 'vit'"),
        (CONFIG, without_backbone, "backbone_config: expected a 'model_type' key"),
        (PROCESSOR, Path.unlink, "expected the file of an LPSProcessor, found none"),
        (PROCESSOR, lambda file: file.write_text("[]"), "expected the settings of a processor in processor_config.json"),
        (PROCESSOR, cut, "processor_config.json"),
    ],
)
def test_a_damaged_checkpoint(checkpoint, rows_file, refusal, file, damage, message):
    damage(Path(checkpoint) / file)
    assert message in refusal("predict", checkpoint, rows_file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", "expected at least one row"),
        ("rows.jsonl", b'{"edge_index": [[0]', "expected JSON"),
        ("rows.jsonl", b"\xff\xfe", ""),
        ("rows.jsonl", b'{"edge_index": 3, "num_nodes": 2}', "edge_index"),
        ("rows.json", b"[1, 2]", "expected a row"),
        ("rows.csv", b"a,b\n1,2\n", "expected the key 'edge_index'"),
        ("rows.parquet", b"PAR1", "expected a parquet file"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_damaged_file(checkpoint, tmp_path, refusal, command, name, content, message):
    file = tmp_path / "data" / name
    file.parent.mkdir()
    file.write_bytes(content)
    line = refusal(command, checkpoint, file)
    assert message in line
    assert "remove_unused_columns" not in line


def test_a_damaged_data_set(checkpoint, dataset, refusal):
    for file in Path(dataset).rglob("*.parquet"):
        file.write_bytes(b"x")
    assert "Parquet" in refusal("predict", checkpoint, dataset)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--split", "holdout"), "--split: expected one of train, test"),
        (("--num_samples", "0"), "num_samples: expected at least 1"),
        (("--tolerance", "-1"), "tolerance: expected a positive number"),
        (("--max_rows", "0"), "--max_rows: expected at least 1"),
        (("--batch_size", "0"), "batch_size"),
        (("--output", "/proc/self/nowhere/x.csv"), "--output: expected a folder that exists"),
    ],
)
def test_a_value_that_is_out_of_range(checkpoint, dataset, refusal, flags, message):
    assert message in refusal("predict", checkpoint, dataset, *flags)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("a: [1\nb: }", "expected YAML, got something else"),
        ("- a", "expected lines of the form 'flag: value'"),
        ("colour: red", "unknown key 'colour'"),
        ("1: 2", "unknown key '1'"),
        ("learning_rate: [1, 2]", "recipe: learning_rate: expected a number, got list [1, 2]"),
        ("learning_rate: fast", "recipe: learning_rate: expected a number, got the text 'fast'"),
        ("max_steps: 3.5", "recipe: max_steps: expected an int, got float 3.5"),
        ("max_steps: true", "recipe: max_steps: expected an int, got bool True"),
        ("use_cpu: {a: 1}", "recipe: use_cpu: expected a bool, got dict {'a': 1}"),
        ("node_categories: [a]", "recipe: node_categories: expected a list of int or None, got list ['a']"),
        ("lr_scheduler_type: straight", "recipe: lr_scheduler_type"),
        ("num_train_epochs: -1", "num_train_epochs: expected a number above 0"),
        ("per_device_train_batch_size: 0", "per_device_train_batch_size: expected at least 1"),
        ("learning_rate: -1e-3", "learning_rate: expected a number of at least 0"),
        ("dataset_name: 3", "3"),
        ("dataset_name: nowhere", "nowhere"),
        ("fold: 99", "fold: expected 0 to num_folds - 1"),
        ("output_dir: /proc/self/nowhere", "/proc/self/nowhere"),
        ("resume_from_checkpoint: nowhere", "nowhere"),
        ("backbone_config: {model_type: nothing}\nbackbone_name_or_path: null", "expected a model_type of transformers"),
    ],
)
def test_a_recipe_that_will_not_do(dataset, tmp_path, refusal, recipe, message):
    file = tmp_path / "recipe.yaml"
    given = {"dataset_name": dataset, "backbone_name_or_path": save_tiny_vit(tmp_path / "vit"), "output_dir": tmp_path / "out"}
    named = {line.split(":")[0] for line in recipe.splitlines()}
    lines = [f"{name}: {value}" for name, value in given.items() if name not in named]
    is_mapping = not recipe.startswith(("a:", "- "))
    extra = [*lines, "use_cpu: true", "report_to: none", "disable_tqdm: true"] if is_mapping else []
    extra = [line for line in extra if line.split(":")[0] not in named]
    file.write_text("\n".join([*recipe.splitlines(), *extra]))
    assert message in refusal("train", "graph-classification", file)


def test_flags_that_are_wrong_are_not_buried_under_all_the_others(dataset, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "graph-classification", "--dataset_name", dataset, "--learning_rate", "fast"])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "invalid float value: 'fast'" in lines[1]


def test_checkpoints_to_go_on_from(checkpoint, dataset, tmp_path, refusal):
    cut(Path(checkpoint) / WEIGHTS)
    flags = ("--dataset_name", dataset, "--output_dir", tmp_path / "out", "--use_cpu", "--report_to", "none")
    assert "are damaged" in refusal("train", "graph-classification", "--model_name_or_path", checkpoint, *flags)
    shutil.rmtree(checkpoint)
    assert refusal("train", "graph-classification", "--model_name_or_path", checkpoint, *flags)
