"""The pictures of exported rows: copied into the export, or referenced by path.

Other tools open a file as Pillow does. The picture is written as PNG if this differs from the picture in our training
(rotated by EXIF, transparent, 16 bit, animated), or if there is no file (``digits:``, a table's ``hf:``).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from mathse.data.image_decoding import FORMATS
from mathse.data.images import load_image

FOLDER = "images"
CACHED_PICTURES = 256  # rows of one problem often follow each other
COMMON_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}  # formats that every tool opens
Mode = Literal["copy", "reference"]


class ExportedPictures:
    """Writes pictures. ``count``: the pictures of all rows; a repeated picture counts again."""

    def __init__(self, folder: Path, mode: Mode) -> None:
        self.folder, self.mode, self.count = folder, mode, 0
        self._path: Callable[[str], str] = lru_cache(CACHED_PICTURES)(self._write)

    def add_path(self, ref: str) -> str:
        """Return the path for a row: below the export's folder, or (``reference``) the absolute path of the file."""
        self.count += 1
        return self._path(ref)

    def add_cell(self, ref: str) -> dict[str, str | bytes | None]:
        """Return the cell for a table of the datasets library: bytes, or (``reference``) the path of the file."""
        self.count += 1
        if self.mode == "reference" and _copyable_suffix(ref) is not None:
            return {"bytes": None, "path": str(Path(ref).absolute())}
        data, suffix = _read_content(ref)
        return {"bytes": data, "path": _name_by_content(data, suffix)}

    def _write(self, ref: str) -> str:
        if self.mode == "reference" and _copyable_suffix(ref) is not None:
            return str(Path(ref).absolute())
        data, suffix = _read_content(ref)
        name = _name_by_content(data, suffix)
        file = self.folder / FOLDER / name[:2] / name  # hubs refuse a folder of 100,000 files
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return file.relative_to(self.folder).as_posix()


def _name_by_content(data: bytes, suffix: str) -> str:
    """Return a name by content: equal pictures are one file, and names do not depend on the folder of the data."""
    return hashlib.sha256(data).hexdigest()[:24] + suffix


def _read_content(ref: str) -> tuple[bytes, str]:
    """Return a picture's bytes and the suffix of their format. Raises DataError for an unreadable picture."""
    if (suffix := _copyable_suffix(ref)) is not None:
        return Path(ref).read_bytes(), suffix
    buffer = io.BytesIO()
    load_image(ref).save(buffer, format="PNG")
    return buffer.getvalue(), ".png"


def _copyable_suffix(ref: str) -> str | None:
    """Return the suffix of a file that every tool opens as our training does; None if it must be written as PNG."""
    if not Path(ref).is_file():
        return None
    try:
        with Image.open(ref, formats=FORMATS) as image:
            upright = image.getexif().get(ImageOps.ExifTags.Base.Orientation, 1) == 1
            is_plain = image.mode in ("RGB", "L") and "transparency" not in image.info
            single = getattr(image, "n_frames", 1) == 1
            return COMMON_SUFFIXES.get(str(image.format)) if upright and is_plain and single else None
    except (OSError, ValueError, SyntaxError):
        return None  # load_image raises the error for this picture
