"""Images of rows: pictures and arrays, the pretrained classifier's own image processor, or numbers from 0 to 1."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor
from transformers.utils import IMAGE_PROCESSOR_NAME, is_vision_available

from .row_checks import as_array, as_finite_float32, check_mapping, present_keys
from .row_pictures import is_picture, is_picture_file, pixels_of, read_picture


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

    One picture has the same pixels in every form of `image`: a path, the bytes of a file, a dictionary of `bytes` and `path` as
    data sets have it, an object of PIL, or whole numbers from 0 to 255 of shape (height, width, channels) or (channels, height,
    width). Pictures are turned upright as their EXIF data say, transparent ones stand on white, colours become grey for a model
    of one channel and grey becomes colours for one of three, and 16-bit grey is rounded to 8 bits; of several frames the one that
    the picture stands at is read, with a warning. Refused is what has no known range: PIL's modes "I" and "F", arrays of 16 bits,
    and real numbers.

    Args:
        row: With `image` or `pixel_values`.
        where: Which row, for messages.
        channels: The model's number of channels.

    Returns:
        `pixel_values` (channels, height, width) float32, or `image` (height, width, channels) uint8.

    Raises:
        ValueError: If there is no image, it cannot be read, its shape is wrong or a number out of range.
        TypeError: If it is none.
        FileNotFoundError: If there is no such file.
    """
    check_mapping(row, where, "'image'")
    if row.get("pixel_values") is not None:
        return {"pixel_values": _check_pixel_values(row["pixel_values"], f"{where}: pixel_values", channels)}
    if row.get("image") is None:
        raise ValueError(f"{where}: expected the key 'image' or 'pixel_values', got only {present_keys(row)}.")
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
    """A picture in any form, as (height, width, channels) uint8; see `check_image_row`."""
    if is_picture(image) or is_picture_file(image):
        array = pixels_of(read_picture(image, where), channels, where)
    else:
        array = _channels_last(as_array(image, where), channels, where, isinstance(image, torch.Tensor))
    array = array[..., None] if array.ndim == 2 and channels == 1 else array
    if array.ndim != 3 or array.shape[2] != channels or 0 in array.shape:
        raise ValueError(f"{where}: expected shape (height, width, {channels}), got {array.shape}.")
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{where}: expected whole numbers from 0 to 255, got {array.dtype}. Multiply 0 to 1 by 255, and round to uint8. What "
            "an image processor has made goes into pixel_values."
        )
    if array.dtype == np.uint16:
        raise ValueError(
            f"{where}: expected whole numbers from 0 to 255, got uint16, whose white is 65535. Divide by 257, and round to uint8."
        )
    if array.min() < 0 or array.max() > 255:
        raise ValueError(f"{where}: expected whole numbers from 0 to 255, got {array.min()} to {array.max()}.")
    return array.astype(np.uint8)


def _channels_last(array: np.ndarray, channels: int, where: str, is_tensor: bool) -> np.ndarray:
    """An array of an image with its channels on the last axis."""
    if array.ndim != 3 or array.shape[0] != channels:
        return array
    if array.shape[2] != channels:
        return array.transpose(1, 2, 0)
    if is_tensor:
        # Arrays have their channels last and tensors first, but not always, and here nothing tells.
        raise ValueError(
            f"{where}: expected a tensor whose shape tells where its {channels} channels are, got {tuple(array.shape)}. Give it "
            "as an array of shape (height, width, channels)."
        )
    return array


def _check_pixel_values(pixel_values: Any, where: str, channels: int) -> np.ndarray:
    """What an image processor has already been at, (channels, height, width) float32."""
    array = as_array(pixel_values, where)
    if array.ndim != 3 or array.shape[0] != channels or 0 in array.shape:
        raise ValueError(f"{where}: expected shape ({channels}, height, width), got {array.shape}.")
    if array.dtype.kind != "f":
        raise TypeError(f"{where}: expected real numbers, got {array.dtype}. Raw images go into the key 'image'.")
    return as_finite_float32(array, where)
