"""How far a run's judge may take Algorithm 1: bounds of D_SFT and of what is reflected on."""

from __future__ import annotations

from mathse.commands.plan.amounts import Range
from mathse.config.evolution import Evolution


class Bounds:
    """What holds whatever is accepted, after the stages told so far (mathse/evolution: state.py, reflect.py).

    A problem leaves D_remain with its first accepted path. Its row, or with ``keep=all`` its rows of one round, are all
    that it gives; a rewrite only takes their place. With ``all_drafts`` each reflection may add a row for every draft
    rejected so far, of solved problems too.

    Some outcome reaches each bound of rows and of drafts. Only ``all_drafts`` after every round, where samples of
    D_remain run out of problems, comes to less than is said here.

    Args:
        d: problems of D.
    """

    def __init__(self, d: int, evolution: Evolution) -> None:
        self.d, self.evolution = d, evolution
        self.chosen = 0  # problems that the teacher solved
        self.tries: list[int] = []  # of each round: problems that it tries at most
        self.reflected: list[int] = []  # of each reflection on all drafts: rounds before it

    # --- what happens, in the order of the run ---

    def distil(self, problems: int) -> None:
        self.chosen = problems

    def try_problems(self) -> Range:
        """A round's problems: D_remain, or a sample of it."""
        tried = Range(self.d - self.solved.high, self.d - self.solved.low).at_most(self.evolution.round.sample_size)
        self.tries.append(tried.high)
        return tried

    def reflect(self) -> int:
        """At most so many drafts are rewritten: the newest of each unsolved problem, or all that there are."""
        if not self.evolution.reflect.all_drafts:
            return min(self.d, sum(self.tries))
        self.reflected.append(len(self.tries))
        return self.evolution.samples_per_problem * sum(self.tries)

    # --- what that comes to ---

    @property
    def solved(self) -> Range:
        """Problems with an accepted path: at most those that somebody tried."""
        return Range(0, min(self.d, self.chosen + sum(self.tries)))

    @property
    def rows(self) -> Range:
        """Rows of D_SFT: as much as tries give, of no more problems than there are; what these leave of D may have the
        teacher's row."""
        rounds = range(1, len(self.tries) + 1)
        a_problem = max((self._rows_of(number, number) for number in rounds), default=1)
        by_tries = sum(tries * self._rows_of(number, 1) for number, tries in zip(rounds, self.tries, strict=True))
        by_tries = min(by_tries, self.d * a_problem)
        needed = -(-by_tries // a_problem)  # problems
        return Range(0, by_tries + min(self.chosen, self.d - needed))

    def _rows_of(self, last: int, times: int) -> int:
        """At most, of a problem tried so many times, in round ``last`` last: its drafts in each later reflection on all
        drafts; without one, what a round keeps of it."""
        samples = self.evolution.samples_per_problem
        later = sum(rounds >= last for rounds in self.reflected)
        if later:
            return times * samples * later
        return samples if self.evolution.keep == "all" else 1
