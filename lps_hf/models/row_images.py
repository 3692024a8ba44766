"""Images of rows: the pretrained classifier's own image processor, or numbers from 0 to 1."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from transformers import AutoImageProcessor
from transformers.utils import IMAGE_PROCESSOR_NAME, is_vision_available

from .row_checks import as_array, as_finite_float32, check_mapping

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def make_image_processor(settings: Mapping[str, Any]) -> Any:
    """Rebuild an image processor of transformers from the dictionary that it was saved as; its code is never remote.

    Args:
        settings: What `image_processor.to_dict()` gives.

    Returns:
        The image processor, with the backend that this machine has (torchvision or Pillow).

    Raises:
        ImportError: If Pillow is missing.
        ValueError: If transformers has no such image processor.
    """
    check_pillow()
    # The Auto class chooses the backend, and reads files only.
    with TemporaryDirectory() as folder:
        (Path(folder) / IMAGE_PROCESSOR_NAME).write_text(json.dumps(dict(settings)), encoding="utf-8")
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)


def check_pillow() -> None:
    """Refuse to go on without Pillow, which every image processor of transformers needs.

    Raises:
        ImportError: If it is missing.
    """
    if not is_vision_available():
        raise ImportError("image_processor: expected the package Pillow, which is not installed. Run 'pip install pillow'.")


def check_image_row(row: Mapping[str, Any], where: str, channels: int) -> dict[str, Any]:
    """Check the image of a row.

    Args:
        row: With `image` or `pixel_values`.
        where: Which row, for messages.
        channels: The model's number of channels.

    Returns:
        `pixel_values` (channels, height, width) float32, or `image` (height, width, channels) uint8.

    Raises:
        ValueError: If there is no image, its shape is wrong or a number out of range.
        TypeError: If it is none.
    """
    check_mapping(row, where, "'image'")
    if row.get("pixel_values") is not None:
        return {"pixel_values": _check_pixel_values(row["pixel_values"], f"{where}: pixel_values", channels)}
    if row.get("image") is None:
        raise ValueError(f"{where}: expected the key 'image' or 'pixel_values', got only {sorted(row)}.")
    return {"image": _check_image(row["image"], f"{where}: image", channels)}


def process_images(rows: list[dict[str, Any]], image_processor: Any) -> list[dict[str, Any]]:
    """Turn the raw images of checked rows into pixel values, all at once, as image processors are fastest.

    Args:
        rows: With `image` (height, width, channels) uint8, or `pixel_values` already.
        image_processor: An image processor of transformers; `None` divides by 255 and does nothing else.

    Returns:
        The same rows with `pixel_values` (channels, height, width) float32.
    """
    raw = [row for row in rows if "image" in row]
    if raw and image_processor is not None:
        images = [row["image"] for row in raw]
        processed = image_processor(images=images, input_data_format="channels_last")["pixel_values"]
    else:
        processed = [row["image"].transpose(2, 0, 1) / np.float32(255) for row in raw]
    for row, pixel_values in zip(raw, processed, strict=True):
        row["pixel_values"] = np.asarray(pixel_values, dtype=np.float32)
    return rows


def _check_image(image: Any, where: str, channels: int) -> np.ndarray:
    """A PIL image in the model's number of channels, or whole numbers from 0 to 255, as (height, width, channels) uint8."""
    if hasattr(image, "convert") and hasattr(image, "mode"):
        wanted = _MODES.get(channels, image.mode)
        image = image if image.mode == wanted else image.convert(wanted)
    array = as_array(image, where)
    array = array[..., None] if array.ndim == 2 and channels == 1 else array
    if array.ndim != 3 or array.shape[2] != channels or 0 in array.shape:
        raise ValueError(f"{where}: expected shape (height, width, {channels}), got {array.shape}.")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{where}: expected whole numbers from 0 to 255, got {array.dtype}. Real numbers go into pixel_values.")
    if array.min() < 0 or array.max() > 255:
        raise ValueError(f"{where}: expected whole numbers from 0 to 255, got {array.min()} to {array.max()}.")
    return array.astype(np.uint8)


def _check_pixel_values(pixel_values: Any, where: str, channels: int) -> np.ndarray:
    """What an image processor has already been at, (channels, height, width) float32."""
    array = as_array(pixel_values, where)
    if array.ndim != 3 or array.shape[0] != channels or 0 in array.shape:
        raise ValueError(f"{where}: expected shape ({channels}, height, width), got {array.shape}.")
    if array.dtype.kind != "f":
        raise TypeError(f"{where}: expected real numbers, got {array.dtype}. Raw images go into the key 'image'.")
    return as_finite_float32(array, where)
