"""A stand-in teacher of the rehearsal: the API of the tests (tests/api_server.py), with the texts of made_up.py.

    python experiments/rehearsal/teacher.py --port 8100 --answered FILE

Batches are answered when they are looked at. ``--answered FILE``: as engine.py's.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import threading
from pathlib import Path
from typing import Any

import made_up
from engine import RECORD

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from api_server import ApiServer, identity_of, text_of

SOLUTIONS_RIGHT, REWRITES_RIGHT = 0.9, 0.6


class Teacher(ApiServer):
    def __init__(self, port: int, answered: Path) -> None:
        self.answered = open(answered, "ab", buffering=0)  # noqa: SIM115  (lives as long as the teacher)
        super().__init__(self._text, key=None, port=port)

    def next_mood(self, body: dict[str, Any]) -> str | None:
        return None  # and nothing is held in memory of what was asked

    def _text(self, body: dict[str, Any]) -> str:
        words = text_of(body)
        identity = hashlib.blake2b(identity_of(body).encode(), digest_size=RECORD).digest()
        draw = random.Random(identity)
        self.answered.write(identity)
        number = int(made_up.NUMBER.findall(words)[0])
        if "improvement_suggestion" in words:
            return made_up.annotation(number, words, draw)
        rewrites = len(made_up.ANSWERED.findall(words)) > 0
        return made_up.students_text(number, REWRITES_RIGHT if rewrites else SOLUTIONS_RIGHT, draw)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answered", type=Path, required=True)
    options = parser.parse_args()
    with Teacher(options.port, options.answered) as teacher:
        print(f"answers at {teacher.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
