"""The rows that a model is tested on: as a run takes them, and once more from what its results file says of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub.utils import validate_repo_id

from .dataset_folders import DATASET_KINDS, make_splits
from .rows import fold_splits, load_dataset_for, with_all_pairs

# A results file that somebody else wrote may ask for no more rows than this, and not for larger ones.
MOST_GENERATED_ROWS, LARGEST_OPTION = 100_000, 10_000


def evaluated_rows(task: str, rows: Any, max_rows: int | None = None, seed: int = 0) -> Any:
    """The rows of a split that are evaluated.

    Args:
        task: A key of `TASK_COLUMNS`.
        rows: The split, a `Dataset`; without `max_rows` also a list of rows.
        max_rows: At most so many, drawn by the seed.
        seed: See `max_rows`.

    Returns:
        The rows in the order of evaluation; links with every pair of nodes, as ranking metrics want.
    """
    if max_rows is not None and max_rows < len(rows):
        rows = rows.shuffle(seed=seed).select(range(max_rows))
    if task != "link-prediction":
        return rows
    return rows.map(with_all_pairs) if isinstance(rows, Dataset) else list(map(with_all_pairs, rows))


def recorded_rows(task: str, facts: Mapping[str, Any], name_or_path: str | None = None) -> Any:
    """Load, or generate, the test rows that the `dataset` part of a results file tells of.

    Args:
        task: A key of `TASK_COLUMNS`.
        facts: `name`, `config_name`, `revision`, `split`, `fold`, `num_folds`, `seed` and `max_eval_samples` of a data set on the
            Hub; of a generated one `generated`, and for `make_splits` its `kind`, `options`, `seed` and `num_rows`.
        name_or_path: Where the data set is now, if not where `facts` say.

    Returns:
        The rows, in the order of evaluation.

    Raises:
        ValueError: If the facts do not tell where the rows are.
        OSError: If they cannot be found there.
    """
    split, seed = facts.get("split") or "test", facts.get("seed") or 0
    if facts.get("generated") and name_or_path is None:
        kind, num_rows = facts.get("kind"), facts.get("num_rows")
        if kind not in DATASET_KINDS or DATASET_KINDS[kind].source or DATASET_KINDS[kind].task != task:
            raise ValueError(f"dataset: expected a generated kind for {task}, got {kind!r}.")
        if not isinstance(num_rows, int) or not 1 <= num_rows <= MOST_GENERATED_ROWS:
            raise ValueError(f"dataset: expected 1 to {MOST_GENERATED_ROWS} rows, got {num_rows!r}.")
        if any(number > LARGEST_OPTION for number in _numbers_in(facts.get("options"))):
            raise ValueError(f"dataset: expected options of at most {LARGEST_OPTION}, got {facts['options']!r}.")
        return make_splits(kind, {split: num_rows}, seed, options=facts.get("options"))[split]
    name = facts.get("name") if name_or_path is None else name_or_path
    if name_or_path is None:
        if facts.get("local") or not isinstance(name, str):
            raise ValueError(f"dataset: {name!r} was a folder where the model was made. Say where it is now.")
        validate_repo_id(name)
        if Path(name).exists():  # what somebody else wrote is no path on this machine
            raise ValueError(f"dataset: {name!r} was one of the Hub, and is a folder here. Say which one is meant.")
    is_folder = Path(str(name)).exists()
    revision = None if is_folder else facts.get("revision")
    splits = load_dataset_for(task, str(name), facts.get("config_name"), revision)
    if facts.get("fold") is not None:
        splits = fold_splits(splits["train"], facts["fold"], facts.get("num_folds") or 10, seed)
    if split not in splits:
        raise ValueError(f"dataset {name!r}: expected a split {split!r}, got {', '.join(splits)}.")
    return evaluated_rows(task, splits[split], facts.get("max_eval_samples"), seed)


def _numbers_in(value: Any) -> list[float]:
    """All numbers in nested lists and dictionaries."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in _numbers_in(part)]
    return [value] if isinstance(value, int | float) else []
