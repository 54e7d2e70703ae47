"""The pictures of requests as files: each is brought into its final form once a run, and read or named from then on.

An engine on this machine is given the file's address (``file://``), any other its bytes. A request's key has the hash
of the file's contents in the picture's place, so that a request is the same wherever its picture lies and however it
goes out, and no megabytes are hashed or held.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from mathse.data.images import load_image
from mathse.inference.llm.images import as_it_is
from mathse.runs.store import make_folder, sha256_file

PICTURES = "pictures"  # in RUN/served
SCHEME = "sha256:"  # of a picture's address before it is sent
KINDS = {".png": "image/png", ".jpg": "image/jpeg"}


class Pictures:
    """Pictures in ``folder``, at most ``side`` pixels long.

    A PNG or JPEG file that is upright, opaque and 8 bits a channel shows what the backbones see, and is taken as it is;
    anything else is drawn or decoded, and kept as a PNG: no pixel differs from what the local prompt is made from.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.folder, self.side = folder.absolute(), side
        self._by_source: dict[str, str] = {}  # a reference and the state of its file -> the address
        self._files: dict[str, Path] = {}  # an address -> the file

    def address(self, image: Any) -> str:
        """``sha256:...`` of the picture, whose file lies in the folder from now on. Raises DataError as ``load_image``.

        Args:
            image: a reference (see mathse/data/images.py), or a picture in memory.
        """
        source = _source(image)
        if source not in self._by_source:
            file = self._file(image, hashlib.sha256(f"{self.side} {source}".encode()).hexdigest()[:24])
            address = SCHEME + sha256_file(file)
            self._by_source[source], self._files[address] = address, file
        return self._by_source[source]

    def url(self, address: str, local: bool) -> str:
        """What a server is sent: ``file://`` where it is ``local``, else the bytes as a data URL."""
        file = self._files[address]
        if local:
            return file.as_uri()
        return f"data:{KINDS[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"

    def _file(self, image: Any, name: str) -> Path:
        """The picture's file, made where an earlier start has not."""
        for suffix in KINDS:
            if (file := self.folder / f"{name}{suffix}").exists():
                return file
        make_folder(self.folder)
        unfinished = self.folder / f".{name}.{os.getpid()}.partial"
        kind = None if isinstance(image, Image.Image) else as_it_is(str(image), self.side)
        if kind is not None:  # a copy, since an engine may read below the run folder alone
            file = self.folder / f"{name}{next(suffix for suffix, of in KINDS.items() if of == kind)}"
            try:
                os.link(Path(image).resolve(), unfinished)
            except OSError:
                shutil.copyfile(image, unfinished)
        else:
            file = self.folder / f"{name}.png"
            opened = image if isinstance(image, Image.Image) else load_image(str(image))
            if max(opened.size) > self.side:
                opened = opened.copy()
                opened.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
            opened.save(unfinished, format="PNG")
        unfinished.replace(file)
        return file


def _source(image: Any) -> str:
    """What tells pictures apart before they are opened: pixels of one in memory, size and time of a file."""
    if isinstance(image, Image.Image):
        return f"{image.mode} {image.size} {hashlib.sha256(image.tobytes()).hexdigest()}"
    file = Path(str(image))
    state = file.stat() if file.is_file() else None
    return f"{image} {state.st_size} {state.st_mtime_ns}" if state else str(image)
