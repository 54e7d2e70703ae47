"""Where a run's problems come from, and on what terms, by the name that each problem carries as its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.data.readers import reader

OWN = "that of your file"


@dataclass(frozen=True)
class Terms:
    title: str
    home: str
    licence: str


DIGITS = Terms(
    "The embedded world: arithmetic over handwritten digits",
    "scikit-learn's load_digits, the UCI ML hand-written digits",
    "CC BY 4.0 (the digits)",
)
UNKNOWN = Terms("", "", "not known here")


def terms_of(data: Mapping[str, Any]) -> dict[str, Terms]:
    """By source, from a run's ``data`` settings."""
    return dict(_terms(data))


def _terms(data: Mapping[str, Any]) -> Iterator[tuple[str, Terms]]:
    kind = str(data.get("_target_", "")).rpartition(".")[2]
    if kind == "MixtureData":
        for section in data["sources"].values():
            yield from _terms(section)
    elif kind == "PublicData":
        found = reader(data["name"])
        yield found.name, Terms(found.title, found.home, found.licence)
    elif kind == "HubData":
        yield Path(str(data["root"])).name, Terms("", str(data["root"]), "see the page of the set")
    elif kind == "JsonlData":
        for name in (data.get("path"), data.get("test_path")):
            if name:
                yield Path(name).name, Terms("Own problems", "", OWN)
    elif kind == "SyntheticData":
        yield "synthetic", DIGITS
