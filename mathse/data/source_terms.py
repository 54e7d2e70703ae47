"""The title, home page and licence of a run's data, by the name that each problem carries as its source.

Exports, model cards and ``mathse lineage`` show them: whoever passes rows on needs to know on what terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.data.readers import find_set
from mathse.data.words.published import SETS

OWN = "that of your file"


@dataclass(frozen=True)
class Terms:
    title: str
    home: str
    licence: str


DIGITS = Terms(
    "Synthetic problems: arithmetic over handwritten digits",
    "scikit-learn's load_digits, the UCI ML hand-written digits",
    "CC BY 4.0 (the digits)",
)
UNKNOWN = Terms("", "", "not known here")


def terms_of(data: Mapping[str, Any]) -> dict[str, Terms]:
    """Terms by source, from a run's ``data`` settings."""
    match str(data.get("_target_", "")).rpartition(".")[2]:
        case "MixtureData":
            # by the name of a problem's source here, and, for runs of earlier versions, by the source's own
            parts = {name: terms_of(part) for name, part in data["sources"].items()}
            by_source = {name: terms for part in parts.values() for name, terms in part.items()}
            return by_source | {name: next(iter(part.values()), UNKNOWN) for name, part in parts.items()}
        case "PublicData":
            published = find_set(data["name"])
            return {published.name: Terms(published.title, published.home, published.licence)}
        case "HubData":
            return {Path(str(data["root"])).name: Terms("", str(data["root"]), "see the page of the set")}
        case "JsonlData":
            paths = (data.get("path"), data.get("test_path"))
            return {Path(path).name: Terms("Own problems", "", OWN) for path in paths if path}
        case "WordProblems":
            return {name: Terms(name, SETS[name].home, SETS[name].licence) for name in data["sets"]}
        case "SyntheticData":
            return {"synthetic": DIGITS}
    return {}
