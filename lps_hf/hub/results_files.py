"""Names of the files of a checkpoint, and the file of what was measured."""

import json
import re
from pathlib import Path
from typing import Any

CARD_FILE, RESULTS_FILE, FIGURE_FILE = "README.md", "results.json", "samples.png"
WEIGHTS_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
# The objects in a results file.
_PARTS = ("dataset", "test", "test_deviation", "baseline", "scratch", "training", "equivariance", "environment")


def read_results(folder: Path) -> dict[str, Any]:
    """Read results.json of a checkpoint, which somebody else may have written.

    Args:
        folder: The checkpoint.

    Returns:
        `dict`: What it holds; nothing where there is none.

    Raises:
        ValueError: If it is no JSON, or its parts are not objects of figures.
    """
    file = folder / RESULTS_FILE
    if not file.is_file():
        return {}
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, got something else. {error}") from error
    if not isinstance(results, dict):
        raise ValueError(f"{file}: expected a JSON object of figures, got {type(results).__name__}.")
    for name in _PARTS:
        if not isinstance(results.get(name) or {}, dict):
            raise ValueError(f"{file}: expected a JSON object in {name!r}, got {type(results[name]).__name__}.")
    points = results.get("samples") or []
    if not (isinstance(points, list) and all(isinstance(point, dict) and "num_samples" in point for point in points)):
        raise ValueError(f"{file}: expected a list of objects with 'num_samples' in 'samples', got something else.")
    return results
