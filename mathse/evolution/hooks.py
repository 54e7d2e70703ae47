"""The seven hooks of the loop. Merging, reflection and evaluation are callbacks like those in a user's package.

This file imports nothing that loads torch, so that a user's module of callbacks is checked quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mathse.evolution.evolution_run import EvolutionRun


class EvolutionCallback:
    """Base class of callbacks. Override the hooks that you need; each receives the loop (``loop.state``,
    ``loop.stage``, ``loop.judged``, ...).

    The hooks of a stage run while the stage is made. They do not run again when a resumed run finds the stage finished.
    ``on_evolution_start``, ``on_round_end`` and ``on_evolution_end`` run in every process. A callback lives for the
    whole run; callbacks of Lightning's Trainer are built for each fit.
    """

    def on_evolution_start(self, loop: EvolutionRun) -> None: ...

    def on_round_start(self, loop: EvolutionRun) -> None: ...

    def on_paths_generated(self, loop: EvolutionRun) -> None: ...

    def on_paths_judged(self, loop: EvolutionRun) -> None: ...

    def on_student_fitted(self, loop: EvolutionRun) -> None: ...

    def on_round_end(self, loop: EvolutionRun) -> None: ...

    def on_evolution_end(self, loop: EvolutionRun) -> None: ...
