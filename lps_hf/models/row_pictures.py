"""Pictures in every form in which people have them, as images of PIL and as pixels."""

import io
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from .row_files import check_not_url

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112  # the number of this field in EXIF data


def is_picture(value: Any) -> bool:
    """Whether it is an image of PIL."""
    return hasattr(value, "convert") and hasattr(value, "mode")


def is_picture_file(value: Any) -> bool:
    """Whether it may be the file of a picture: a path, its bytes, a stream of them, or a dictionary of `bytes` and `path`."""
    if isinstance(value, Mapping):
        return "bytes" in value or "path" in value
    return isinstance(value, str | os.PathLike | bytes | bytearray | io.BytesIO)


def read_picture(source: Any, where: str = "image") -> Any:
    """Read a picture, and turn it upright as its EXIF data say.

    Args:
        source: An image of PIL, or what `is_picture_file` says may be one.
        where: What to call it in messages.

    Returns:
        `PIL.Image.Image`: In memory; its file is closed if it was opened here.

    Raises:
        ValueError: If it is no picture, or a broken one.
        FileNotFoundError: If there is no such file.
        ImportError: If Pillow is missing.
    """
    pillow, _ = _pillow()
    if isinstance(source, Mapping):  # as columns of data sets and parquet files have it
        source = source["bytes"] if source.get("bytes") is not None else source.get("path")
        if not is_picture_file(source):
            raise ValueError(f"{where}: expected bytes or a path, got a dictionary without them.")
    name = getattr(source, "name", "bytes")
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        check_not_url(name, where)
        if not os.path.isfile(name):
            raise FileNotFoundError(f"{where}: expected the path of a file, got {name!r}, where there is none.")
    try:
        if is_picture(source):
            return _upright(source, where)
        with pillow.open(io.BytesIO(source) if isinstance(source, bytes | bytearray) else source) as picture:
            return _upright(picture, f"{where}: {name}").copy()  # which needs no file
    except pillow.UnidentifiedImageError:  # whose text is an address in memory
        raise ValueError(f"{where}: expected a picture, got {name}, which has the format of none.") from None
    except Exception as error:  # decoders raise anything where a file is broken
        raise ValueError(f"{where}: expected a picture, got {name}, which Pillow cannot read: {error}.") from error


def _pillow() -> tuple[Any, Any]:
    """Modules of Pillow, to open pictures and to change them."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("image: expected the package Pillow, which is not installed. Run 'pip install pillow'.") from error
    return Image, ImageOps


def _upright(picture: Any, what: str) -> Any:
    """One frame of a picture, as its EXIF data say that it was taken."""
    # Phones put a small copy into the file (MPO), which is no other picture.
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        text = f"{what}: one of {picture.n_frames} frames is read. Make a row of each frame."
        warnings.warn(text, UserWarning, stacklevel=4)
    try:
        is_turned = picture.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # broken EXIF data say nothing, and the picture may be whole
        return picture
    return _pillow()[1].exif_transpose(picture) if is_turned else picture


def pixels_of(picture: Any, channels: int, where: str) -> np.ndarray:
    """A picture of PIL in the model's number of channels, (height, width, channels) or without the last uint8."""
    if picture.mode.startswith("I;16"):
        picture = _to_eight_bits(picture, where)
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"{where}: expected a picture of whole numbers from 0 to 255, got one of mode {picture.mode!r}, which does not say "
            "what white is. Scale it to 0 to 255 and make an image of mode 'L', or give what the model reads in pixel_values."
        )
    wanted = _MODES.get(channels, picture.mode)
    try:
        if wanted in ("L", "RGB") and picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = picture.copy()
            white.paste((255, 255, 255, 255), (0, 0, *picture.size))
            white.alpha_composite(picture)
            picture = white
        return np.asarray(picture if picture.mode == wanted else picture.convert(wanted))
    except Exception as error:  # decoders raise anything where a file is broken
        raise ValueError(f"{where}: expected a picture, got one that cannot be read as {wanted}: {error}.") from error


def _to_eight_bits(picture: Any, where: str) -> Any:
    """Grey of 0 to 65535 as grey of 0 to 255, rounded."""
    array = np.asarray(picture).astype(np.uint32)
    if 0 < array.max() < 4096:
        raise ValueError(
            f"{where}: expected a 16-bit picture of 0 to 65535, got at most {array.max()}, of which 8 bits would keep "
            f"{array.max() // 257 + 1} levels of grey. Scale it first, if its white is darker."
        )
    return _pillow()[0].fromarray(((array + 128) // 257).astype(np.uint8))
