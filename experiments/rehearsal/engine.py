"""A stand-in engine of the rehearsal: experiments/engines/stand_in.py with the texts of made_up.py, and a record on the
disk of all that it answered, which outlasts its loss.

    python experiments/rehearsal/engine.py serve "" --served-model-name mathse-model --port 8000 --answered FILE

It begins without weights, so nothing is answered before the client has had them loaded. ``--answered FILE``: 16 bytes a
request that was answered, the hash of weights and request: one that stands there twice was asked twice.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
from pathlib import Path
from typing import Any

import made_up

sys.path.insert(0, str(Path(__file__).parent.parent / "engines"))
import stand_in

LETTERS_A_TOKEN = 3.5
STUDENTS_RIGHT = 0.55  # of a student's paths
VERDICTS_TRUE = 0.9  # of the ORM's verdicts
RECORD = 16  # bytes


class Engine(stand_in.StandIn):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.answered = open(options.answered, "ab", buffering=0)  # noqa: SIM115  (lives as long as the engine)

    async def _completion(self, asked: dict[str, Any], body: bytes) -> dict[str, Any]:
        self._look_at_pictures(asked)
        identity = hashlib.blake2b(self.held.encode() + body, digest_size=RECORD).digest()
        words = "\n".join(part["text"] for part in parts(asked) if part["type"] == "text")
        number = int(made_up.NUMBER.findall(words)[0])
        texts = [
            self._text(asked, words, number, random.Random(identity + bytes([k]))) for k in range(asked.get("n", 1))
        ]
        tokens = [min(asked["max_tokens"], 1 + round(len(text) / LETTERS_A_TOKEN)) for text in texts]
        await asyncio.sleep(max(tokens) / self.options.tokens_per_second)
        self.answered.write(identity)
        choice = stand_in.verdict if asked.get("logprobs") else stand_in.written
        return {
            "id": "x",
            "object": "chat.completion",
            "model": asked["model"],
            "choices": [choice(k, text) for k, text in enumerate(texts)],
            # no count of the prompt: nothing is read here that it could be compared with
            "usage": {"prompt_tokens": 0, "completion_tokens": sum(tokens)},
        }

    def _text(self, asked: dict[str, Any], words: str, number: int, draw: random.Random) -> str:
        if asked.get("logprobs"):
            return made_up.verdict(number, words, VERDICTS_TRUE, draw)
        return made_up.students_text(number, STUDENTS_RIGHT, draw)


def parts(asked: dict[str, Any]) -> list[dict[str, Any]]:
    contents = [message["content"] for message in asked["messages"]]
    return [
        part
        for content in contents
        for part in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--answered", required=True)
    own, _ = parser.parse_known_args()
    options = stand_in.options_of(sys.argv[1:])
    options.answered = own.answered
    asyncio.run(Engine(options).serve())


if __name__ == "__main__":
    main()
