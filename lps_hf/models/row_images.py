"""Images of rows: the pretrained classifier's own image processor, or numbers from 0 to 1."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from transformers import AutoImageProcessor
from transformers.utils import IMAGE_PROCESSOR_NAME, is_vision_available

from .row_checks import as_array, as_finite_float32

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


def check_image(image: Any, where: str, channels: int) -> np.ndarray:
    """One image as an array.

    Args:
        image: A PIL image, which is converted to the model's number of channels, or whole numbers from 0 to 255 of shape
            (height, width, channels); without the last axis where there is one channel.
        where: Row and key, for messages.
        channels: The model's number of channels.

    Returns:
        `np.ndarray` of shape `(height, width, channels)` uint8.

    Raises:
        ValueError: If the shape is wrong, or a number out of range.
        TypeError: If there is something else than whole numbers.
    """
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


def check_pixel_values(pixel_values: Any, where: str, channels: int) -> np.ndarray:
    """One image that an image processor has already been at.

    Args:
        pixel_values: Real numbers of shape (channels, height, width).
        where: Row and key, for messages.
        channels: The model's number of channels.

    Returns:
        `np.ndarray` of the same shape, float32.

    Raises:
        ValueError: If the shape is wrong, or a number not finite.
        TypeError: If they are no real numbers.
    """
    array = as_array(pixel_values, where)
    if array.ndim != 3 or array.shape[0] != channels or 0 in array.shape:
        raise ValueError(f"{where}: expected shape ({channels}, height, width), got {array.shape}.")
    if array.dtype.kind != "f":
        raise TypeError(f"{where}: expected real numbers, got {array.dtype}. Raw images go into the key 'image'.")
    return as_finite_float32(array, where)


def process_images(images: list[np.ndarray], image_processor: Any) -> list[np.ndarray]:
    """Turn raw images into pixel values.

    Args:
        images: Arrays (height, width, channels) uint8.
        image_processor: An image processor of transformers; `None` divides by 255 and does nothing else.

    Returns:
        Arrays (channels, height, width) float32.
    """
    if image_processor is None:
        return [image.transpose(2, 0, 1).astype(np.float32) / 255 for image in images]
    processed = image_processor(images=images, input_data_format="channels_last")["pixel_values"]
    return [np.asarray(image, dtype=np.float32) for image in processed]
