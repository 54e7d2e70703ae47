"""A whole run on kept features of its frozen tower."""

from __future__ import annotations

from pathlib import Path

from e2e.runs import TINY, run

SETTINGS = ("judge=orm", "orm.augment=0", "sft.freeze=[tower]", "sft.tower_features=true", "trainer.precision=32-true")


def test_all_stages_share_the_features_and_the_store_may_move(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(tmp_path / "run", *TINY, *SETTINGS, f"trainer.tower_features_folder={store}")
    files = list(store.glob("*/*.safetensors"))
    assert len({file.parent for file in files}) == 1  # of students, weak students and the ORM: one tower
    pictures = 8 + 16 + 8 + 4 + 12 + 6  # of all splits
    # each once at most: fits, sampling and judging compute in the same numbers
    assert 0 < len(files) <= pictures
    finished = (tmp_path / "run" / "final" / "stage.json").stat().st_mtime_ns
    run(tmp_path / "run", *TINY, *SETTINGS, f"trainer.tower_features_folder={tmp_path / 'moved'}")
    assert (tmp_path / "run" / "final" / "stage.json").stat().st_mtime_ns == finished
    assert not (tmp_path / "moved").exists()
