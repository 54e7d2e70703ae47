"""A side's end of the comparison: it does one step each time it is told to, and says what the step cost.

``peers.py`` writes a line to standard input for a step, and reads a line of JSON from a pipe of its own (libraries
print to the other streams). Between two steps a side waits for its input, which takes no CPU time. Standard library
only at the top: this file also runs in the peers' environments.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
import time
from typing import Any

PIPE = "SPEED_PIPE"  # the number of the file descriptor that answers go to


class Turns:
    """``begin`` once, when all is loaded; then ``done`` behind each step."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(int(os.environ[PIPE]), "w", buffering=1)

    def begin(self, **about: Any) -> None:
        self._answer({"ready": True, **about})

    def done(self, **figures: Any) -> None:
        """What came out of the step; its CPU time and page faults are added. Returns when the next step is due."""
        cpu = time.process_time() - self._cpu
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - self._faults
        self._answer({"cpu_ms": 1000 * cpu, "page_faults": faults, **figures})

    def _answer(self, message: dict[str, Any]) -> None:
        self._pipe.write(json.dumps(message) + "\n")
        if not sys.stdin.readline():  # closed: no step is wanted any more
            os._exit(0)
        self._faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self._cpu = time.process_time()


def hugging_face_trainer_in_turns() -> None:
    """From here on every ``transformers.Trainer`` trains in turns; TRL, LLaMA-Factory and ms-swift build theirs on it.

    A step is all between the ends of two optimiser steps: data, passes, optimiser, what the trainer does around them.
    """
    import transformers

    turns, step = Turns(), {"loss": 0.0, "tokens": 0}
    train, training_step = transformers.Trainer.train, transformers.Trainer.training_step

    class InTurns(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turns.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.done(**step)
            step.update(loss=0.0, tokens=0)

    @functools.wraps(train)
    def train_in_turns(self: Any, *args: Any, **options: Any) -> Any:
        self.add_callback(InTurns())
        return train(self, *args, **options)

    @functools.wraps(training_step)
    def counted(self: Any, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        step["tokens"] += int(inputs["attention_mask"].sum())
        loss = training_step(self, model, inputs, *args, **options)
        step["loss"] += float(loss)  # already a share of the whole step's mean where gradients accumulate
        return loss

    transformers.Trainer.train, transformers.Trainer.training_step = train_in_turns, counted
