"""The title, home page and licence of a run's data, by the source of each problem.

Exports, model cards and ``mathse lineage`` show them, because users who share rows must know the terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.data.readers import find_set
from mathse.data.words.published import SETS

OWN_LICENCE = "that of your file"


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
    """Read the terms by source from a run's ``data`` settings."""
    match str(data.get("_target_", "")).rpartition(".")[2]:
        case "MixtureData":
            # By the name in the mixture and, for runs of earlier versions, by the name of the source itself.
            by_source: dict[str, Terms] = {}
            by_name: dict[str, Terms] = {}
            for name, section in data["sources"].items():
                terms = terms_of(section)
                by_source |= terms
                by_name[name] = next(iter(terms.values()), UNKNOWN)
            return by_source | by_name
        case "PublicData":
            published = find_set(data["name"])
            return {published.name: Terms(published.title, published.home, published.licence)}
        case "HubData":
            return {Path(str(data["root"])).name: Terms("", str(data["root"]), "see the page of the set")}
        case "JsonlData":
            paths = (data.get("path"), data.get("test_path"))
            return {Path(path).name: Terms("Own problems", "", OWN_LICENCE) for path in paths if path}
        case "WordProblems":
            return {name: Terms(name, SETS[name].home, SETS[name].licence) for name in data["sets"]}
        case "SyntheticData":
            return {"synthetic": DIGITS}
    return {}
