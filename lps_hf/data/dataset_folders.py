"""Data sets by name, as folders of parquet files that `datasets.load_dataset` reads.

Some are generated, others are made from a file. All have seeded splits; the task that each is for is in `DATASET_KINDS`.
"""

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Image
from tqdm.auto import tqdm

from .converters import cifar10_rows, digit_rows, mesh_clouds, qm9_rows
from .generators import check_count, circular_skip_links, cycle_pairs, triangle_regular
from .geometric_rows import atom_clusters, charged_particles, shape_clouds
from .schema import with_features
from .structured_graphs import folded_chains, pattern_graphs

SPLITS = ("train", "validation", "test")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Row = Mapping[str, Any]
Splits = dict[str, list[Row]]


@dataclass(frozen=True)
class DatasetKind:
    """A data set that can be made.

    Args:
        task: The task it is for, a key of `lps_hf.data.rows.TASK_COLUMNS`.
        make: Takes the source, the number of rows of each split, `seed` and options; returns the rows of each split.
        source: What the source is; `None` for a data set that has none.
        class_names: Names of the classes of images.
    """

    task: str
    make: Callable[..., Splits]
    source: str | None = None
    class_names: Sequence[str] | None = None

    def option_names(self) -> list[str]:
        """Names of the options of `make`."""
        # The first argument is the source, or the number of rows of the generator behind `make`.
        return [name for name in list(inspect.signature(self.make).parameters)[1:] if name not in ("num_rows", "seed")]


def make_splits(
    kind: str,
    sizes: Mapping[str, int],
    seed: int = 0,
    source: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Splits:
    """Make the rows of a data set.

    The splits of a generated data set are drawn from independent seeds, and a larger split continues a smaller one.

    Args:
        kind: A key of `DATASET_KINDS`.
        sizes: Number of rows of each split of `SPLITS`.
        seed: Seed of rows and cuts.
        source: The raw file or folder, for the kinds that are made from one.
        options: Arguments of the generator or converter.

    Returns:
        `dict[str, list]`: The rows of each split.

    Raises:
        ValueError: If there is no such kind, option or split, a size is out of range, or the source has not enough rows.
        FileNotFoundError: If there is no such source.
    """
    if kind not in DATASET_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(DATASET_KINDS)}, got {kind!r}.")
    definition, options = DATASET_KINDS[kind], dict(options or {})
    check_count("seed", seed, 0)
    if not sizes or not set(sizes) <= set(SPLITS):
        raise ValueError(f"sizes: expected some of the splits {', '.join(SPLITS)}, got {', '.join(sizes) or 'none'}.")
    for split, size in sizes.items():
        check_count(f"sizes[{split!r}]", size, 1)
    unknown = sorted(set(options) - set(definition.option_names()))
    if unknown:
        known = ", ".join(definition.option_names()) or "no option"
        raise ValueError(f"options: {kind!r} expects {known}, got {unknown[0]!r}.")
    if (source is None) != (definition.source is None):
        expected = f"expected {definition.source}" if definition.source else "expected none, for rows that are generated"
        raise ValueError(f"source: {expected}, got {source}.")
    if source is not None and not Path(source).exists():
        raise FileNotFoundError(f"source: expected {definition.source}, got {source}, which does not exist.")
    return definition.make(None if source is None else Path(source), sizes, seed, **options)


def check_new(folder: str | Path) -> None:
    """Refuse to write over anything.

    Raises:
        ValueError: If the folder has content, or is a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder: expected a new or empty folder, got {folder}, which is there already. Choose another name.")


def save_splits(
    splits: Mapping[str, Sequence[Row]],
    folder: str | Path,
    class_names: Sequence[str] | None = None,
    task: str | None = None,
    make_card: Callable[[dict[str, Dataset]], Any] | None = None,
) -> Path:
    """Write splits as `data/<split>-00000-of-00001.parquet`, all of them or nothing.

    Args:
        splits: Rows of each split.
        folder: A new folder, or one that is empty.
        class_names: Names of the classes of the column `label`.
        task: Give columns the types of this task; see `with_features`.
        make_card: Makes the text of `README.md` from the splits as they are stored; see `lps_hf.hub.dataset_card`.

    Returns:
        `pathlib.Path`: The folder; `datasets.load_dataset(str(folder))` reads it.

    Raises:
        ValueError: If the folder has content, or is a file.
        OSError: If it cannot be written; nothing is then left of it.
    """
    check_new(folder)
    folder = Path(folder)
    stored = {split: _as_dataset(rows, class_names, task) for split, rows in splits.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that it can be moved there in one step.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lps-hf-") as temporary:
        new = Path(temporary) / "new"
        (new / "data").mkdir(parents=True)
        for split, dataset in tqdm(stored.items(), desc="Writing splits", unit="split"):
            dataset.to_parquet(new / "data" / f"{split}-00000-of-00001.parquet")
        if make_card is not None:
            (new / "README.md").write_text(str(make_card(stored)), encoding="utf-8")
        new.rename(folder)
    return folder


def _as_dataset(rows: Sequence[Row], class_names: Sequence[str] | None, task: str | None) -> Dataset:
    columns = dict.fromkeys(key for row in rows for key in row)  # Dataset.from_list would take those of the first row alone
    rows = [{key: row.get(key) for key in columns} for row in rows]
    dataset = Dataset.from_list([{**row, "image": _as_png(row["image"])} if "image" in row else row for row in rows])
    if "image" in dataset.column_names:
        dataset = dataset.cast_column("image", Image())
    if class_names is not None:
        dataset = dataset.cast_column("label", ClassLabel(names=list(class_names)))
    return dataset if task is None else with_features(dataset, task, class_names)


def _as_png(image: np.ndarray) -> dict[str, Any]:
    """Encoded here: as nested lists a split of images would take gigabytes."""
    return Image().encode_example(image)


def _seeds(seed: int) -> dict[str, int]:
    """Independent seeds of the splits."""
    return dict(zip(SPLITS, np.random.SeedSequence(seed).generate_state(len(SPLITS)).tolist(), strict=True))


def _cut(rows: Sequence[Row], sizes: Mapping[str, int], where: str) -> Splits:
    """Consecutive parts of rows, in the order of `SPLITS`."""
    if sum(sizes.values()) > len(rows):
        raise ValueError(f"sizes: expected at most the {len(rows)} rows of {where} in all splits, got {sum(sizes.values())}.")
    remaining = iter(rows)
    return {split: list(islice(remaining, sizes[split])) for split in SPLITS if split in sizes}


def _shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    return [rows[number] for number in np.random.default_rng(seed).permutation(len(rows))]


def _generated(generator: Callable[..., list[dict[str, Any]]]) -> Callable[..., Splits]:
    """`DatasetKind.make` for a generator of so many rows."""

    @wraps(generator)
    def make(source: None, num_rows: Mapping[str, int], seed: int, **options: Any) -> Splits:
        parts = tqdm(num_rows.items(), desc="Drawing splits", unit="split", leave=False)
        return {split: list(generator(size, **options, seed=_seeds(seed)[split])) for split, size in parts}

    return make


def _digits(source: None, num_rows: Mapping[str, int], seed: int, scale: int = 4) -> Splits:
    return _cut(digit_rows(scale, seed), num_rows, "the digits")


def _qm9(source: Path, num_rows: Mapping[str, int], seed: int, targets: str | Sequence[str] = "Polarizability_bohr3") -> Splits:
    return _cut(_shuffled(qm9_rows(source, targets), seed), num_rows, source.name)


def _cifar10(source: Path, num_rows: Mapping[str, int], seed: int) -> Splits:
    """The published test images; `validation` is cut from the training images."""
    parts: Splits = {}
    for name, wanted in (("train", ("train", "validation")), ("test", ("test",))):
        own_sizes = {split: num_rows[split] for split in wanted if split in num_rows}
        if not own_sizes:
            continue
        files = sorted(source.glob(f"{name}*.npz"))
        if not files:
            raise ValueError(f"source: expected a folder with {name}*.npz, got {source}, which has none.")
        images = tqdm(chain.from_iterable(map(cifar10_rows, files)), desc=f"Reading {name}", unit="image")
        parts |= _cut(_shuffled(list(images), seed), own_sizes, f"{name}*.npz")
    return parts


def _geometric_shapes(source: Path, num_rows: Mapping[str, int], seed: int, num_points: int = 128) -> Splits:
    """Clouds of every mesh in turn; `validation` has new points on the meshes of `train`."""
    splits: Splits = {}
    for split, size in tqdm(num_rows.items(), desc="Drawing splits", unit="split"):
        part = "test" if split == "test" else "train"
        num_meshes = len(mesh_clouds(source, part, num_points=2)[0])
        per_mesh = -(-size // num_meshes)
        rows, _ = mesh_clouds(source, part, num_points, per_mesh, _seeds(seed)[split])
        splits[split] = [rows[mesh * per_mesh + cloud] for cloud in range(per_mesh) for mesh in range(num_meshes)][:size]
    return splits


DATASET_KINDS: dict[str, DatasetKind] = {
    "circular-skip-links": DatasetKind("graph-classification", _generated(circular_skip_links)),
    "cycle-pairs": DatasetKind("graph-classification", _generated(cycle_pairs)),
    "triangle-regular": DatasetKind("graph-classification", _generated(triangle_regular)),
    "pattern": DatasetKind("node-classification", _generated(pattern_graphs)),
    "contacts": DatasetKind("link-prediction", _generated(folded_chains)),
    "nbody": DatasetKind("particle-dynamics", _generated(charged_particles)),
    "clusters": DatasetKind("molecule-regression", _generated(atom_clusters)),
    "qm9": DatasetKind("molecule-regression", _qm9, source="the .npz file that qm9_rows describes"),
    "shapes": DatasetKind("point-cloud-classification", _generated(shape_clouds)),
    "geometric-shapes": DatasetKind("point-cloud-classification", _geometric_shapes, source="the zip file of meshes"),
    "digits": DatasetKind("image-classification", _digits, class_names=[str(digit) for digit in range(10)]),
    "cifar10": DatasetKind(
        "image-classification",
        _cifar10,
        source="the folder of train*.npz and test*.npz, as cifar10_rows describes them",
        class_names=CIFAR10_CLASSES,
    ),
}
"""What can be made, by name."""
