"""From answers to a benchmark's files: verdicts, the answers that count, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse import __version__
from mathse.config.schema import EvaluateConfig
from mathse.evaluation import figures, mistakes
from mathse.evaluation.contamination import check
from mathse.evaluation.decoding import Decoding
from mathse.evaluation.files import (
    CONTAMINATED,
    DISAGREEMENTS,
    METRICS,
    PREDICTIONS,
    SAMPLES,
    SCORED,
    answered,
    count_unasked,
)
from mathse.evaluation.identity import fingerprint
from mathse.evaluation.opened import Opened
from mathse.evaluation.predictions import Answer
from mathse.evaluation.scoring import Graded, grade, item_of
from mathse.evaluation.selectors import choose, curve
from mathse.reporting.progress import Progress
from mathse.runs.store import sha256_file, write_json, write_jsonl
from mathse.scoring.metrics import accuracy

if TYPE_CHECKING:
    from mathse.evaluation.asking import Asked
    from mathse.judges import Judge


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome. ``graded``: the answers that count, one a problem."""

    opened: Opened
    graded: Sequence[Graded]
    metrics: Mapping[str, Any]


@dataclass
class Scorer:
    """Scores the benchmarks of one start. ``llm`` None: nobody is asked; ``how`` None: the answers are a file's."""

    config: EvaluateConfig
    progress: Progress
    llm: Asked | None
    how: Decoding | None

    def result(self, opened: Opened, answers: Sequence[Answer]) -> Result:
        samples = self._graded(opened, answers)
        problems = [list(group) for _, group in groupby(samples, key=lambda g: g.item.problem.id)]
        chosen = [found[choose(found, self.config.selector)] for found in problems]
        metrics = figures.metrics(opened, chosen, self._protocol(opened, answers))
        if self.config.n_samples > 1:
            metrics["selectors"] = curve(problems, self.config.seed)
        metrics |= self._beside(opened, chosen)
        result = Result(opened, chosen, metrics)
        _write(result, samples)
        how = figures.circumstances(metrics["protocol"])
        self.progress.say(f"{opened.name} ({how}): {figures.sentence(metrics)}: {opened.folder / METRICS}")
        if "not_scored" in metrics and self.llm is None:
            self.progress.say(f"{opened.name}: {opened.bench.needs_llm}; pass llm.model=NAME, and llm.base_url=URL")
        return result

    def _graded(self, opened: Opened, answers: Sequence[Answer]) -> list[Graded]:
        """Every answer with its verdicts, and with the ORM's P(correct) where there is an ORM."""
        items = {item.problem.id: item for item in opened.items}
        self.progress.say(f"{opened.name}: scoring {len(answers):,} answers")
        graded = grade(opened.bench, [item_of(items[a.id], a) for a in answers], answers, self.llm, _maps(self.config))
        if self.config.judge.checkpoint is None:
            return graded
        from mathse.evaluation import rewards  # here: it loads torch, which scoring does not need

        settings = self.config.judge
        made_by = [fingerprint(settings.checkpoint), settings.batch_size, settings.max_new_tokens]
        file = rewards.verdicts_file(opened.folder, made_by)
        with closing(self.progress.track(f"{opened.name}: ORM", len(graded))) as track:
            return rewards.weigh(graded, lambda: self._orm, file, settings.batch_size, track.advance)

    @cached_property
    def _orm(self) -> Judge:
        """Read once for all benchmarks."""
        from mathse.evaluation import models

        return models.reward_model(self.config)

    def _beside(self, opened: Opened, chosen: Sequence[Graded]) -> dict[str, Any]:
        """Contamination and kinds of mistakes, where they are asked for."""
        found: dict[str, Any] = {}
        if self.config.check_against is not None:
            file = opened.folder / CONTAMINATED
            items, against = [g.item for g in chosen], Path(self.config.check_against)
            listed = check(opened.name, items, against, file, self.progress.say)
            found["contamination"] = _without(listed, chosen)
        if self.config.error_types and self.llm is not None:
            wrong = [g for g in chosen if g.scored.correct is False]
            found["error_types"] = mistakes.classify(wrong, self.llm, opened.folder, vision=self.config.llm.vision)
        return found

    def _protocol(self, opened: Opened, answers: Sequence[Answer]) -> dict[str, Any]:
        """What the number was measured with."""
        config = self.config
        return {
            **opened.bench.protocol(),
            **({"prompt": "not known: the answers are a file's"} if self.how is None else {}),
            "split": opened.split,
            "problems": len(opened.items),
            "limit": config.evaluation.limit,
            "answers": self._source(),
            "rows_with_own_metadata": sum(answer.metadata is not None for answer in answers),
            "unasked": count_unasked(opened.folder),
            "selector": config.selector,
            "answer_marker": "mapped" if _maps(config) else "as it stands",
            "llm": self.llm.protocol() if self.llm is not None else None,
            "orm": config.judge.checkpoint,
            "mathse": __version__,
        }

    def _source(self) -> dict[str, Any]:
        """Whose answers they are."""
        config = self.config
        if self.how is None:
            return {"file": config.predictions, "sha256": sha256_file(Path(str(config.predictions)))}
        backbone = config.backbone if isinstance(config.backbone, dict) else vars(config.backbone)
        return {
            "backbone": backbone["_target_"],
            "checkpoint": config.checkpoint or backbone.get("path"),
            "revision": backbone.get("revision"),
            **self.how.described(),
        }


def _maps(config: EvaluateConfig) -> bool:
    return config.map_marker if config.map_marker is not None else config.predictions is None


def _write(result: Result, samples: Sequence[Graded]) -> None:
    """metrics.json last: where it is, the rest is."""
    folder, several = result.opened.folder, len(samples) > len(result.graded)
    write_jsonl(folder / SCORED, (g.to_json(several) for g in result.graded))
    if several:
        write_jsonl(folder / SAMPLES, (g.to_json(several) for g in samples))
    write_jsonl(folder / DISAGREEMENTS, (g.to_json(several) for g in figures.disagreements(result.graded)))
    write_json(folder / METRICS, result.metrics)


def _without(listed: Mapping[str, Any], chosen: Sequence[Graded]) -> dict[str, Any]:
    """Accuracy with and without the problems that the training rows hold: all listed, or the sure ones alone."""
    left_out = {"with": set(), "without": set(listed["problems"]), "without_sure": set(listed["sure"])}
    return dict(listed) | {
        name: figures.share([g.scored.correct for g in chosen if g.item.problem.id not in ids])
        for name, ids in left_out.items()
    }


def own_form(result: Result, run: Path) -> None:
    """The two files that the stages of a training run have, in the order the answers were made."""
    scored = {g.answer.id: g.scored for g in result.graded}
    rows = [
        {
            "id": row.id,
            "response": row.response,
            "prediction": row.prediction,
            "answer": row.answer,
            "correct": row.correct,
        }
        for row in (scored[i] for i in answered(result.opened.folder))
    ]
    write_jsonl(run / PREDICTIONS, rows)
    write_json(run / METRICS, accuracy(rows))
