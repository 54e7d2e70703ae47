"""Decoding of images: 8-bit RGB, upright, transparency on white, the first frame of an animation.

Files may come from anybody. A damaged file, another format and more than ``MAX_PIXELS`` pixels raise a DataError with
the file's name. All decoding happens here, so that every model sees the same pixels of a file.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mathse.errors import DataError
from mathse.seeds import rng

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # no format that starts another program, as EPS does
MAX_PIXELS = 64_000_000  # pixels of an image; larger files may be decompression bombs
MAX_JPEG_SIDE = 65_500  # pixels, a limit of libjpeg

# Errors of Pillow's decoders on damaged files.
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
    """Decode the image in a file. Raises DataError."""
    return _decode(path, lambda: non_empty(path))


def decode(data: bytes, name: str) -> Image.Image:
    """Decode the image in ``data`` as ``load_file`` does; errors call it ``name``."""
    if not data:
        raise DataError(f"image {name}: 0 bytes; fetch it again")
    return _decode(name, lambda: io.BytesIO(data))


def jpeg(image: Image.Image, quality_low: int, quality_high: int, seed: int) -> Image.Image:
    """Compress an image as JPEG at a random quality between the two, and decode it. Equal seeds give equal pixels."""
    if max(image.size) > MAX_JPEG_SIDE:
        size = f"{image.width} x {image.height} pixels"
        raise DataError(f"an image of {size} has no JPEG form (at most {MAX_JPEG_SIDE} a side); scale it down")
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=rng(seed, "quality").randint(quality_low, quality_high))
    return Image.open(buffer).convert("RGB")


def pixels_sha256(image: Image.Image) -> str:
    """Hash the pixels and their shape: equal for two files that show the same image, pixel by pixel."""
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


def non_empty(path: Path) -> Path:
    """Return the path of a file that is not empty. Raises DataError for any other path."""
    if not path.is_file():
        raise DataError(f"image {path}: no such file; check the row's path, or put the image there")
    if path.stat().st_size == 0:
        raise DataError(f"image {path}: the file is empty (0 bytes); fetch it again")
    return path


def _decode(name: object, source: Callable[[], Path | io.BytesIO]) -> Image.Image:
    """Decode the image that ``source()`` opens. Raises DataError, which calls it ``name``."""
    try:
        # verify() checks PNG's checksums, which decoding skips. It consumes the image, so it is opened twice.
        with Image.open(source(), formats=FORMATS) as image:
            image.verify()
        with Image.open(source(), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
            try:
                upright = ImageOps.exif_transpose(image)
            except DAMAGED:  # an unreadable EXIF block does not make the image unusable
                upright = image
            return _convert_to_rgb(upright)
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"image {name}: no permission to read it ({error.strerror}); change its mode") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_too_large(name, "a decompression bomb")) from None
    except UnidentifiedImageError:
        raise DataError(f"image {name}: damaged, or none of {', '.join(FORMATS)}; save it as PNG") from None
    except DAMAGED as error:
        raise DataError(f"image {name}: damaged or cut off ({error}); fetch it again or save it as PNG") from None


def _too_large(name: object, size: str) -> str:
    return f"image {name}: {size}, at most {MAX_PIXELS:,} pixels are allowed; scale it down"


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    # Transparency: lay the image on white.
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    # 16 bits of grey, sometimes in 32-bit pixels. Pillow's own conversion clips at 255.
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        if grey.max() > 255:
            grey = grey // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no agreed range")
    return image.convert("RGB")
