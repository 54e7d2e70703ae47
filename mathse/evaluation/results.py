"""From answers to the files of a benchmark's folder: verdicts, the answers that count, metrics.json."""

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
from mathse.evaluation import error_types, metrics
from mathse.evaluation.contamination import check
from mathse.evaluation.folder import CONTAMINATED, DISAGREEMENTS, SAMPLES, SCORED, UNASKED, fingerprint
from mathse.evaluation.grading import GradedAnswer, grade, item_of
from mathse.evaluation.opened import OpenedBenchmark
from mathse.evaluation.predictions import Answer
from mathse.evaluation.selectors import choose, curve
from mathse.reporting.progress import Progress
from mathse.runs.layout import METRICS, PREDICTIONS
from mathse.runs.store import read_jsonl, sha256_file, write_json, write_jsonl
from mathse.scoring.metrics import accuracy

if TYPE_CHECKING:
    from mathse.evaluation.sampling import Decoding
    from mathse.evaluation.scoring_llm import ScoringLLM
    from mathse.inference.serving.student import ServedStudents
    from mathse.judges import Judge


@dataclass(frozen=True)
class BenchmarkResult:
    """One benchmark's outcome. ``graded``: the answers that count, one a problem."""

    opened: OpenedBenchmark
    graded: Sequence[GradedAnswer]
    metrics: Mapping[str, Any]


@dataclass
class Scorer:
    """Scores the benchmarks of one evaluation. ``llm`` None: there is none; ``decoding`` None: the answers are a
    file's; ``served``: the engine of generator=vllm."""

    config: EvaluateConfig
    progress: Progress
    llm: ScoringLLM | None
    decoding: Decoding | None
    served: ServedStudents | None = None

    def result(self, opened: OpenedBenchmark, answers: Sequence[Answer]) -> BenchmarkResult:
        """Verdicts and figures of one benchmark, written into its folder."""
        config, folder, say = self.config, opened.folder, self.progress.say
        map_marker = config.map_marker if config.map_marker is not None else config.predictions is None

        # The official verdict on every answer, and the ORM's P(correct) where there is an ORM.
        items = {item.problem.id: item for item in opened.items}
        say(f"{opened.name}: scoring {len(answers):,} answers")
        samples = grade(opened.bench, [item_of(items[a.id], a) for a in answers], answers, self.llm, map_marker)
        if config.judge.checkpoint is not None:
            from mathse.evaluation import rewards  # here: it loads torch, which scoring does not need

            orm = config.judge
            file = rewards.verdicts_file(folder, [fingerprint(orm.checkpoint), orm.batch_size, orm.max_new_tokens])
            with closing(self.progress.track(f"{opened.name}: ORM", len(samples))) as track:
                samples = rewards.weigh(samples, lambda: self._orm, file, orm.batch_size, track.advance)

        # Of several answers to a problem one counts.
        problems = [list(answers_to_one) for _, answers_to_one in groupby(samples, key=lambda g: g.item.problem.id)]
        chosen = [graded[choose(graded, config.selector)] for graded in problems]
        figures = metrics.metrics(opened, chosen, self._protocol(opened, answers, map_marker))
        if config.n_samples > 1:
            figures["selectors"] = curve(problems)

        # What stands beside the official figures, where it is asked for.
        if config.check_against is not None:
            training_file = Path(config.check_against)
            pairs = check(opened.name, [g.item for g in chosen], training_file, folder / CONTAMINATED, say)
            left_out = {"with": set(), "without": set(pairs["problems"]), "without_sure": set(pairs["sure"])}
            figures["contamination"] = pairs | {
                name: metrics.share([g.scored.correct for g in chosen if g.item.problem.id not in ids])
                for name, ids in left_out.items()
            }
        if config.error_types and self.llm is not None:
            wrong = [g for g in chosen if g.scored.correct is False]
            figures["error_types"] = error_types.classify(wrong, self.llm, folder, vision=config.llm.vision)

        # metrics.json last: where it is, all else is.
        several = len(samples) > len(chosen)
        write_jsonl(folder / SCORED, (g.to_json(several) for g in chosen))
        if several:
            write_jsonl(folder / SAMPLES, (g.to_json(several) for g in samples))
        write_jsonl(folder / DISAGREEMENTS, (g.to_json(several) for g in metrics.disagreements(chosen)))
        write_json(folder / METRICS, figures)

        circumstances = metrics.circumstances(figures["protocol"])
        say(f"{opened.name} ({circumstances}): {metrics.sentence(figures)}: {folder / METRICS}")
        if "not_scored" in figures and self.llm is None:
            say(f"{opened.name}: {opened.bench.needs_llm}; pass llm.model=NAME, and llm.base_url=URL")
        return BenchmarkResult(opened, chosen, figures)

    @cached_property
    def _orm(self) -> Judge:
        """Read once for all benchmarks."""
        from mathse.evaluation import models

        return (
            models.reward_model(self.config) if self.served is None else models.reward_model(self.config, self.served)
        )

    def _protocol(self, opened: OpenedBenchmark, answers: Sequence[Answer], map_marker: bool) -> dict[str, Any]:
        """What the number was measured with."""
        config = self.config
        if self.decoding is None:
            source = {"file": config.predictions, "sha256": sha256_file(Path(str(config.predictions)))}
        else:
            backbone = config.backbone if isinstance(config.backbone, dict) else vars(config.backbone)
            source = {
                "backbone": backbone["_target_"],
                "checkpoint": config.checkpoint or backbone.get("path"),
                "revision": backbone.get("revision"),
                **self.decoding.described(),
            }
        unasked = opened.folder / UNASKED
        return {
            **opened.bench.protocol(),
            **({"prompt": "not known: the answers are a file's"} if self.decoding is None else {}),
            "split": opened.split,
            "problems": len(opened.items),
            "limit": config.evaluation.limit,
            "answers": source,
            "rows_with_own_metadata": sum(answer.metadata is not None for answer in answers),
            "unasked": len(list(read_jsonl(unasked))) if unasked.exists() else 0,
            "selector": config.selector,
            "answer_marker": "mapped" if map_marker else "as it stands",
            "llm": self.llm.protocol() if self.llm is not None else None,
            "orm": config.judge.checkpoint,
            "mathse": __version__,
        }


def write_stage_files(result: BenchmarkResult, run: Path) -> None:
    """The two files that the stages of a training run have, in the order in which the answers were made."""
    scored = {g.answer.id: g.scored for g in result.graded}
    answered = dict.fromkeys(row["id"] for row in read_jsonl(result.opened.folder / PREDICTIONS))
    rows = [
        {
            "id": row.id,
            "response": row.response,
            "prediction": row.prediction,
            "answer": row.answer,
            "correct": row.correct,
        }
        for row in (scored[identity] for identity in answered)
    ]
    write_jsonl(run / PREDICTIONS, rows)
    write_json(run / METRICS, accuracy(rows))
