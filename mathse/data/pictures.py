"""A picture from a file or from bytes: 8-bit RGB, upright, transparency on white, the first frame of an animation.

Files come from anywhere, so a damaged one, one of another format and one that unpacks to more than ``MAX_PIXELS`` end
in a DataError that names it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mathse.errors import DataError
from mathse.seeds import rng

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # none that starts another program, as EPS does
MAX_PIXELS = 64_000_000  # area; larger files are decompression bombs or belong scaled down
JPEG_SIDE = 65_500  # pixels; libjpeg writes no longer side

# What Pillow's decoders raise on damaged files.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def load_file(path: Path) -> Image.Image:
    """The picture in a file. Raises DataError."""
    return _guarded(path, lambda: filled(path))


def decode(data: bytes, name: str) -> Image.Image:
    """The image in ``data``, as ``load_image`` of a file; errors call it ``name``."""
    if not data:
        raise DataError(f"image {name}: 0 bytes; fetch it again")
    return _guarded(name, lambda: io.BytesIO(data))


def jpeg(image: Image.Image, quality_low: int, quality_high: int, seed: int) -> Image.Image:
    """The image after JPEG compression at a quality between the two, drawn from ``seed``: same seed, same pixels."""
    if max(image.size) > JPEG_SIDE:
        size = f"{image.width} x {image.height} pixels"
        raise DataError(f"an image of {size} has no JPEG form (at most {JPEG_SIDE} a side); scale it down")
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=rng(seed, "quality").randint(quality_low, quality_high))
    return Image.open(buffer).convert("RGB")


def filled(path: Path) -> Path:
    """``path``, where a file with something in it lies there. Raises DataError."""
    if not path.is_file():
        raise DataError(f"image {path}: no such file; check the row's path, or put the image there")
    if path.stat().st_size == 0:
        raise DataError(f"image {path}: the file is empty (0 bytes); fetch it again")
    return path


def _guarded(name: object, opened: Callable[[], Path | io.BytesIO]) -> Image.Image:
    """The image behind ``opened()``, or a DataError that names it."""
    try:
        with Image.open(opened(), formats=FORMATS) as image:
            image.verify()  # PNG's checksums, which decoding skips
        with Image.open(opened(), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
            return _rgb(_upright(image))
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"image {name}: no permission to read it ({error.strerror}); mend its mode") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_too_large(name, "a decompression bomb")) from None
    except UnidentifiedImageError:
        raise DataError(f"image {name}: damaged, or none of {', '.join(FORMATS)}; save it as PNG") from None
    except DAMAGED as error:
        raise DataError(f"image {name}: damaged or cut off ({error}); fetch it again or save it as PNG") from None


def _too_large(name: object, found: str) -> str:
    return f"image {name}: {found}, at most {MAX_PIXELS:,} pixels are allowed; scale it down"


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; an unreadable EXIF block is no reason to lose the image."""
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGED:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits of grey, sometimes in a 32-bit frame
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((grey // 257 if grey.max() > 255 else grey).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no agreed range")
    return image.convert("RGB")
