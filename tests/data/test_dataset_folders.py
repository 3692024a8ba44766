"""Data sets by name: splits, sources, folders that load again."""

import io
import zipfile
from collections import Counter
from itertools import chain

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Image, load_dataset
from PIL import Image as Picture

from lps_hf.data.dataset_folders import CIFAR10_CLASSES, DATASET_KINDS, SPLITS, make_splits, save_splits
from lps_hf.data.generators import cycle_pairs
from lps_hf.data.rows import load_dataset_for

SIZES = {"train": 8, "validation": 4, "test": 5}
OPTIONS = {
    "pattern": {"sizes": (2, 4), "num_communities": 2},
    "nbody": {"first_step": 4, "num_steps": 3},
    "circular-skip-links": {"num_nodes": 13, "skips": (2, 3)},
    "shapes": {"num_points": 8},
    "geometric-shapes": {"num_points": 8},
}
TRIANGLES = ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "OFF\n3 1 0\n0 0 0\n3 0 0\n0 1 0\n3 0 1 2\n")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A small raw file, or folder, of every kind that is made from one."""
    folder = tmp_path_factory.mktemp("sources")
    count = 20
    np.savez(
        folder / "qm9.npz",
        z=np.full(2 * count, 6),
        pos=np.arange(6 * count, dtype=np.float32).reshape(-1, 3),
        n_atoms=np.full(count, 2),
        targets=np.stack([np.arange(count), 100.0 + np.arange(count)], axis=1),
        target_names=np.array(["Polarizability_bohr3", "HOMO_au"]),
    )
    with zipfile.ZipFile(folder / "meshes.zip", "w") as archive:
        for number, name in enumerate(("chair", "bed")):
            for split in ("train", "test"):
                archive.writestr(f"raw/{name}/{split}/{name}.off", TRIANGLES[number])
    (folder / "cifar10").mkdir()
    for part, (name, number) in enumerate({"train_0": 8, "train_1": 4, "test": 5}.items()):
        files = [encode(10 * part + image) for image in range(number)]
        offsets = np.cumsum([0, *map(len, files)])
        contents = {"header": np.zeros(0, np.uint8), "data": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets}
        np.savez(folder / "cifar10" / f"{name}.npz", **contents, label=np.arange(number))
    return {"qm9": folder / "qm9.npz", "geometric-shapes": folder / "meshes.zip", "cifar10": folder / "cifar10"}


def encode(grey):
    """A picture of one grey value, which tells where it came from."""
    file = io.BytesIO()
    Picture.fromarray(np.full((32, 32, 3), 8 * grey, dtype=np.uint8)).save(file, format="JPEG", quality=95)
    return file.getvalue()


def make(kind, sources, sizes=SIZES, seed=0, **options):
    return make_splits(kind, sizes, seed, sources.get(kind), {**OPTIONS.get(kind, {}), **options})


def content(rows):
    return [{name: np.asarray(value).tolist() for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("kind", DATASET_KINDS)
def test_every_kind_becomes_a_folder_for_its_task(sources, tmp_path, kind):
    splits = make(kind, sources)
    assert {split: len(rows) for split, rows in splits.items()} == SIZES
    folder = save_splits(splits, tmp_path / "deep" / "er", DATASET_KINDS[kind].class_names)
    assert sorted(path.name for path in folder.rglob("*.parquet")) == sorted(f"{s}-00000-of-00001.parquet" for s in SPLITS)
    assert [path.name for path in folder.parent.iterdir()] == ["er"]
    loaded = load_dataset_for(DATASET_KINDS[kind].task, str(folder))
    for split, rows in splits.items():
        assert content(loaded[split]) == content(rows)


@pytest.mark.parametrize("kind", DATASET_KINDS)
def test_the_seed_decides_and_splits_differ(sources, kind):
    splits, again, other = make(kind, sources), make(kind, sources), make(kind, sources, seed=1)
    for split in SPLITS:
        assert content(splits[split]) == content(again[split])
        assert content(splits[split]) != content(other[split])
    parts = [content(rows[:4]) for rows in (*splits.values(), *other.values())]
    pairs = [(a, b) for number, a in enumerate(parts) for b in parts[:number]]
    # Where rows are cut from one file, two orders may agree somewhere, but not in four rows.
    assert not [pair for pair in pairs if pair[0] == pair[1]]


def test_a_generated_split_grows_without_change():
    small = make_splits("cycle-pairs", SIZES, 3)
    large = make_splits("cycle-pairs", {**SIZES, "train": 20}, 3)
    assert large["train"][:8] == small["train"]
    assert len(large["train"]) == 20
    assert large["test"] == small["test"]
    # Each split is the generator's own sequence.
    assert any(small["test"] == cycle_pairs(5, seed=int(seed)) for seed in np.random.SeedSequence(3).generate_state(3))


@pytest.mark.parametrize("kind", ["qm9", "digits", "cifar10"])
def test_no_row_of_a_file_is_in_two_splits(sources, kind):
    rows = content(chain.from_iterable(make(kind, sources).values()))
    keys = [str(row.get("image", row.get("y"))) for row in rows]
    assert len(keys) == len(set(keys)) == 17


def test_images_keep_their_pixels_and_the_names_of_their_classes(sources, tmp_path):
    splits = make("cifar10", sources)
    # The test images are those of the test file: grey values 20 to 24, in any order.
    assert sorted(round(row["image"].mean() / 8) for row in splits["test"]) == [20, 21, 22, 23, 24]
    assert sorted(round(row["image"].mean() / 8) for row in splits["train"] + splits["validation"]) == [*range(8), *range(10, 14)]
    loaded = load_dataset(str(save_splits(splits, tmp_path / "cifar10", CIFAR10_CLASSES)))["train"]
    assert loaded.features["label"] == ClassLabel(names=list(CIFAR10_CLASSES))
    assert loaded.features["image"] == Image()
    assert make("digits", sources, scale=2)["train"][0]["image"].shape == (16, 16, 3)


def test_columns_that_the_first_row_lacks_are_written_too(tmp_path):
    save_splits({"train": [{"num_nodes": 1}, {"num_nodes": 2, "y": [1]}]}, tmp_path / "made")
    assert load_dataset(str(tmp_path / "made"))["train"].to_list() == [{"num_nodes": 1, "y": None}, {"num_nodes": 2, "y": [1]}]


def test_meshes_take_turns(sources):
    splits = make("geometric-shapes", sources, sizes={"train": 5, "test": 2})
    assert [Counter(row["y"][0] for row in splits[split]) for split in ("train", "test")] == [{0: 3, 1: 2}, {0: 1, 1: 1}]
    assert {len(row["positions"]) for row in splits["train"]} == {8}


def test_targets_are_chosen_by_name(sources):
    alone, both = make("qm9", sources), make("qm9", sources, targets=["HOMO_au", "Polarizability_bohr3"])
    assert [row["y"] for row in both["test"]] == [[100 + row["y"][0], row["y"][0]] for row in alone["test"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cats", SIZES), r"kind: expected one of circular-skip-links, .*, got 'cats'\."),
        (("shapes", {"dev": 3}), "sizes: expected some of the splits train, validation, test, got dev"),
        (("shapes", {}), "sizes: expected some of the splits train, validation, test, got none"),
        (("shapes", {"test": 0}), r"`sizes\['test'\]` must be an integer of at least 1, got 0"),
        (("shapes", SIZES, -1), "`seed` must be an integer of at least 0, got -1"),
        (("shapes", SIZES, 0, None, {"colour": 1}), "'shapes' expects num_points, shapes, rotate, got 'colour'"),
        (("shapes", SIZES, 0, None, {"num_points": 1}), "`num_points` must be an integer of at least 2"),
        (("shapes", SIZES, 0, "file"), "source: expected none, for rows that are generated, got file"),
        (("qm9", SIZES), "source: expected the .npz file that qm9_rows describes, got None"),
        (("digits", {"train": 1790, "test": 8}), "sizes: expected at most the 1797 rows of the digits in all splits, got 1798"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_splits(*arguments)


def test_sources_that_do_not_fit_are_refused(sources, tmp_path):
    with pytest.raises(FileNotFoundError, match="source: expected the zip file of meshes, got nowhere.zip, which does not exist"):
        make_splits("geometric-shapes", SIZES, source="nowhere.zip")
    with pytest.raises(ValueError, match=r"expected a folder with train\*.npz, got .*, which has none"):
        make_splits("cifar10", SIZES, source=tmp_path)
    with pytest.raises(ValueError, match=r"at most the 12 rows of train\*.npz in all splits, got 14"):
        make("cifar10", sources, sizes={"train": 8, "validation": 6, "test": 1})


def test_nothing_is_written_over_and_nothing_half_written(tmp_path):
    rows = cycle_pairs(2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    for name in ("full", "full/note"):
        with pytest.raises(ValueError, match="expected a new or empty folder, got .*, which is there already"):
            save_splits({"train": rows}, tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note"]
    (tmp_path / "empty").mkdir()
    assert len(load_dataset(str(save_splits({"train": rows}, tmp_path / "empty")))["train"]) == 2
    with pytest.raises(ValueError, match="object"):
        save_splits({"train": rows, "test": [{"y": object()}]}, tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["empty", "full"]
