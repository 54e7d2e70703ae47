"""An image from a file or from bytes: 8-bit RGB, upright, transparency on white, the first frame of an animation.

Files come from anywhere, so a damaged one, one of another format and one that unpacks to more than ``MAX_PIXELS`` end
in a DataError that names it. All decoding happens here: what a file looks like to the models is decided in one place.
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
    """The image in a file. Raises DataError."""
    return _decoded(path, lambda: non_empty(path))


def decode(data: bytes, name: str) -> Image.Image:
    """The image in ``data``, decoded as ``load_file`` decodes a file; errors call it ``name``."""
    if not data:
        raise DataError(f"image {name}: 0 bytes; fetch it again")
    return _decoded(name, lambda: io.BytesIO(data))


def jpeg(image: Image.Image, quality_low: int, quality_high: int, seed: int) -> Image.Image:
    """The image after JPEG compression at a quality between the two, drawn from ``seed``: same seed, same pixels."""
    if max(image.size) > JPEG_SIDE:
        size = f"{image.width} x {image.height} pixels"
        raise DataError(f"an image of {size} has no JPEG form (at most {JPEG_SIDE} a side); scale it down")
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=rng(seed, "quality").randint(quality_low, quality_high))
    return Image.open(buffer).convert("RGB")


def pixels_sha256(image: Image.Image) -> str:
    """Hash of the pixels and their shape: equal for two files that show the same image, pixel by pixel."""
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


def non_empty(path: Path) -> Path:
    """``path``, if it is a file with something in it. Raises DataError otherwise."""
    if not path.is_file():
        raise DataError(f"image {path}: no such file; check the row's path, or put the image there")
    if path.stat().st_size == 0:
        raise DataError(f"image {path}: the file is empty (0 bytes); fetch it again")
    return path


def _decoded(name: object, source: Callable[[], Path | io.BytesIO]) -> Image.Image:
    """The image that ``source()`` opens, or a DataError that calls it ``name``."""
    try:
        with Image.open(source(), formats=FORMATS) as image:
            image.verify()  # PNG's checksums, which decoding skips; an image is of no use after it
        with Image.open(source(), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
            try:
                upright = ImageOps.exif_transpose(image)
            except DAMAGED:  # an unreadable EXIF block is no reason to lose the image
                upright = image
            return _rgb(upright)
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


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits of grey, sometimes in a 32-bit frame; Pillow's own convert clips at 255
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((grey // 257 if grey.max() > 255 else grey).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no agreed range")
    return image.convert("RGB")
