"""The seven hooks of the loop. Merging and reflecting are callbacks like any user's own.

This file imports nothing that loads torch, so that a user's module of callbacks is quick to check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mathse.evolution.evolution_run import EvolutionRun


class EvolutionCallback:
    """Override what you need; each hook is given the loop (``loop.state``, ``loop.stage``, ``loop.judged``, ...).

    A hook of a stage runs while the stage is made, and not again when a finished stage is found on resume;
    ``on_evolution_start``, ``on_round_end`` and ``on_evolution_end`` run in every process. Callbacks live for the whole
    run; what belongs to one fit is built anew for it.
    """

    def on_evolution_start(self, loop: EvolutionRun) -> None: ...

    def on_round_start(self, loop: EvolutionRun) -> None: ...

    def on_paths_generated(self, loop: EvolutionRun) -> None: ...

    def on_paths_judged(self, loop: EvolutionRun) -> None: ...

    def on_student_fitted(self, loop: EvolutionRun) -> None: ...

    def on_round_end(self, loop: EvolutionRun) -> None: ...

    def on_evolution_end(self, loop: EvolutionRun) -> None: ...
