"""JSON that every reader takes: without NaN and infinity, which Python would write."""

import json
import math
from typing import Any


def json_text(data: Any, indent: int | None = 2) -> str:
    """The data as JSON.

    Args:
        data: What JSON can hold; numbers that are not finite become null.
        indent: Spaces per level; `None` for one line.

    Returns:
        `str`: Without a line break at the end.

    Raises:
        TypeError: If JSON cannot hold something.
    """
    return json.dumps(_finite(data), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
