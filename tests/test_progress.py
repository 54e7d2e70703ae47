from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest

from mathse.errors import ConfigError
from mathse.evolution.planner import JobRequests, Range, StagePlan
from mathse.reporting.progress import Progress
from mathse.reporting.progress.outlook import Outlook
from mathse.reporting.progress.wording import accuracy_text, clean, duration, fit_info, stage_rows

SUMMARY = {
    "stages": [
        {"stage": "base", "accuracy": 0.01, "ci95": [0.005, 0.015], "teacher_calls": 0, "train_rows": 0},
        {"stage": "round_01", "accuracy": 0.64, "ci95": [0.62, 0.66], "teacher_calls": 400, "train_rows": 1400,
         "flops": 1_302e12, "accepted": 1052, "rejected": 1340, "unparsed": 8, "acceptance_precision": 0.978},
    ],
    "orm": {"overall_accuracy": 0.97, "positive_accuracy": 0.98, "negative_accuracy": 0.95,
            "error_step_accuracy": None, "n": 2642},
}  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def untimed(out: io.StringIO) -> list[str]:
    """The lines of a log file, each without the time that it begins with."""
    lines = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.*)", line) for line in out.getvalue().splitlines()]
    assert all(lines), out.getvalue()
    return [line[1] for line in lines if line]


def test_a_log_file_gets_a_line_at_start_and_end_and_few_between() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress("auto", stream=out, clock=clock)
    progress.stage("round_01", "the student samples")
    with progress.track("sampling paths", total=600, done=200) as track:
        for _ in range(40):  # 40 batches in 40 s
            clock.now += 1
            track.advance(10, loss=1.25)
    lines = untimed(out)
    assert lines[0] == "round_01: the student samples"
    assert lines[1] == "round_01 | sampling paths | 600 to do, 200 of them done before"
    assert lines[2] == "round_01 | sampling paths | 300 of 600 | 10.0/s | 30 s left | loss 1.25"
    assert lines[-1] == "round_01 | sampling paths | 600 of 600 | 10.0/s | took 40 s | loss 1.25"
    assert len(lines) == 6  # also at 20 and 30 s; the end says the rest


def test_a_log_file_never_gets_control_characters() -> None:
    out = io.StringIO()
    progress = Progress("plain", stream=out)
    progress.say("evil \x1b[31m\x07 model\r\ntext \u202e\u2028")
    progress.table(SUMMARY)
    assert all(c == "\n" or c.isprintable() for c in out.getvalue())
    assert "evil" in out.getvalue()


def test_a_terminal_gets_bars_that_share_one_display() -> None:
    out = Terminal()
    with Progress("auto", stream=out) as progress:
        assert progress.mode == "rich"
        progress.stage("round_01", "sampling [bold]")
        with progress.track("outer [red]paths", 2) as outer, progress.track("inner", 2) as inner:
            inner.advance(2, accuracy=0.5)
            outer.advance(1)
            progress.say("a note [link] in between")
        with progress.track("afterwards", 1) as track:
            track.advance()
        track.close()  # a second close does nothing
    written = out.getvalue()
    assert "outer [red]paths" in written and "a note [link] in between" in written and "afterwards" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 2  # the cursor comes back after each display


def test_the_closing_table_is_the_same_on_a_terminal_and_in_a_file() -> None:
    plain, rich = io.StringIO(), Terminal()
    Progress("plain", stream=plain).table(SUMMARY)
    Progress("rich", stream=rich).table(SUMMARY)
    assert (
        "round_01  64.0% [62.0, 66.0]            400         1.3 P       1,400     1,052     1,340         8      0.978"
        in plain.getvalue()
    )
    assert "overall 97.0%" in plain.getvalue() and "first wrong step named -" in plain.getvalue()
    for line in plain.getvalue().splitlines()[1:3]:
        assert line in rich.getvalue()


def test_the_end_of_a_run_says_what_was_spent_and_what_measuring_cost() -> None:
    out = io.StringIO()
    nothing = {"prefilled_tokens": 0, "sampled_tokens": 0, "trained_tokens": 0, "flops": 0}
    method = {**nothing, "prefilled_tokens": 12_000, "trained_tokens": 3_163, "flops": 522_487_168}
    ledger = {"method": method, "measuring": {**nothing, "sampled_tokens": None, "flops": None}}
    Progress("plain", stream=out).table({**SUMMARY, "ledger": ledger})
    assert (
        "spent: tokens read 12,000, trained 3,163, 522 M FLOPs; and to measure it: tokens sampled not recorded, "
        "not recorded FLOPs" in out.getvalue()
    )


def test_stages_that_judge_nothing_show_dashes() -> None:
    assert stage_rows(SUMMARY)[0] == ("base", "1.0% [0.5, 1.5]", "0", "not recorded", "0", "-", "-", "-", "-")
    assert accuracy_text(None, None) == "-"


def test_off_says_nothing() -> None:
    out = io.StringIO()
    with Progress("off", stream=out) as progress:
        progress.stage("base", "x")
        with progress.track("y", 3) as track:
            track.advance(3)
        progress.say("z")
        progress.table(SUMMARY)
    assert out.getvalue() == ""


def test_an_unknown_mode_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match="'loud'.*auto, rich, plain, off"):
        Progress("loud")


@pytest.mark.parametrize("mode", ["plain", "rich"])
def test_a_closed_output_does_not_end_the_run(mode: str) -> None:
    out = io.StringIO()
    progress = Progress(mode, stream=out)
    out.close()
    progress.stage("base", "x")
    with progress.track("y", 3) as track:
        track.advance(3)
    progress.table(SUMMARY)


@pytest.mark.parametrize("mode", ["plain", "rich"])
def test_a_broken_pipe_leaves_exit_code_0_and_no_noise(mode: str) -> None:
    code = f"""
import sys
from mathse.reporting.progress import Progress
with Progress({mode!r}) as progress:
    for k in range(3000):
        progress.say("line " * 20)
"""
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.read(reading, 100)
    os.close(reading)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, b"")


def test_a_poor_encoding_is_survived() -> None:
    raw = io.BytesIO()
    progress = Progress("plain", stream=io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    progress.say("答案 ± 4")
    assert raw.getvalue().endswith(b" ?? ? 4\n")


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (0.4, 59.6, 125, 12000)] == ["0 s", "1 min 00 s", "2 min 05 s", "3 h 20 min"]
    assert clean("a\tb\ud800") == "a b "


# --- the whole run --------------------------------------------------------------------------------------------------

STAGES = (
    StagePlan("base", evaluated=100),
    StagePlan("orm", steps=Range.of(10), verdicts=Range.of(20)),
    StagePlan("distill", steps=Range(0, 40), evaluated=100, jobs={"generate": JobRequests(Range.of(50), 0, 0)}),
    StagePlan("round_01", samples=Range(100, 300), verdicts=Range(100, 300), steps=Range(0, 40), evaluated=100),
)


def test_a_line_says_which_stage_of_the_run_is_made_and_how_long_the_rest_takes() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress("plain", stream=out, clock=clock)
    outlook = progress.outlook = Outlook(STAGES, clock)

    def work(unit, count, seconds):
        outlook.start_work()
        clock.now += seconds
        outlook.record_work(unit, count)

    progress.stage("base", "before any training")
    work("sample", 100, 10)  # 0.1 s each
    progress.stage("orm", "the ORM learns")
    work("fit_orm", 10, 20)
    work("judge", 20, 20)  # 1 s each
    assert outlook.seconds_left is None, "no student was fitted yet, and the teacher was not asked"
    progress.stage("distill", "the teacher solves")
    work("ask", 50, 100)
    work("fit", 20, 40)  # 2 s each
    # 20 steps and 100 answers of this stage; 40 steps, 300 answers and 200 verdicts of the next one
    assert outlook.seconds_left == pytest.approx(40 + 10 + 80 + 30 + 200)
    with progress.track("fit on 43 paths", 40, done=20) as track:
        clock.now += 10
        track.advance(5)
    progress.stage("round_01", "sample, judge")
    assert untimed(out) == [
        "base: before any training (stage 1 of 4)",
        "orm: the ORM learns (stage 2 of 4)",
        "distill: the teacher solves (stage 3 of 4)",
        "distill | fit on 43 paths | 40 to do, 20 of them done before",
        "distill | fit on 43 paths | 25 of 40 | 0.50/s | 30 s left | about 6 min of the run left",
        "distill | fit on 43 paths | 25 of 40 | 0.50/s | took 10 s",
        "round_01: sample, judge (stage 4 of 4, about 5 min of the run left)",
    ]


def test_a_terminal_says_it_too() -> None:
    out, clock = Terminal(), Clock()
    with Progress("rich", stream=out, clock=clock) as progress:
        progress.outlook = Outlook(STAGES[:1], clock)
        progress.outlook.record_time("sample", 10, 1)
        progress.stage("base", "before any training")
        assert "base  before any training  (stage 1 of 1, about 10 s of the run left)" in strip(out.getvalue())
        with progress.track("test accuracy", 100) as track:
            track.advance(10)
            progress._display._bars.refresh()
            assert "about 10 s of the run left" in strip(out.getvalue()).rpartition("test accuracy")[2]


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_bar_count_and_time_left_come_first_and_figures_have_the_rest_of_the_row(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    with Progress("rich", stream=out) as progress, progress.track("fit on 2,412 paths of the round", 3000) as track:
        progress._display._bars.update(track._task, completed=0)
        figures = {"loss": 1.25, "grad_norm": 0.5, "speed": "1,204 tokens/s", "MFU": "41%", "peak": "61.3 GiB"}
        track.advance(150, **figures)
        track.advance(150, **figures)
        progress._display._bars.refresh()
        row = strip(out.getvalue()).splitlines()[-1].rpartition("\r")[2]
    assert re.search(r"━ +300/3000 [\d:-]+ loss 1.25", row), row
    assert len(row) <= columns and "…" not in row.partition("300/3000")[2], "no figure is cut"
    assert ("speed 1,204 tokens/s" in row) == (columns == 140)


def strip(text: str) -> str:
    """Without the codes that move and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_stage_of_the_users_own_has_no_number_and_no_time() -> None:
    outlook = Outlook(STAGES[:1])
    outlook.record_time("sample", 1, 1.0)
    outlook.begin("own")
    assert (outlook.heading("own"), outlook.time_left, Outlook().heading("base")) == ("", "", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "10 s"), (44, "40 s"), (62, "1 min"), (95, "1 min 40 s"), (150, "2 min"), (7000, "1 h 57 min"),
     (10700, "3 h"), (12000, "3 h 20 min")],
)  # fmt: skip
def test_an_estimate_is_rounded(seconds: float, text: str) -> None:
    outlook = Outlook(STAGES[:1])
    outlook.record_time("sample", 100, seconds)
    outlook.begin("base")
    assert outlook.time_left == f"about {text} of the run left"


def test_a_fit_says_what_is_worth_a_look() -> None:
    line = {"step": 10, "loss": 0.5, "lr": 1e-3, "grad_norm": 0.25, "tokens_per_second": 1204.2, "mfu": 0.413,
            "peak_memory_gib": 61.26, "padding": 0.042, "data_wait": 0.004}  # fmt: skip
    info = fit_info([line, {"step": 10, "val_loss": 0.75, "val_token_accuracy": 0.9}])
    assert info == {"loss": 0.5, "val_loss": 0.75, "grad_norm": 0.25, "speed": "1,204 tokens/s", "MFU": "41%",
                    "peak": "61.3 GiB", "padding": "4%"}  # fmt: skip
    assert fit_info([{"step": 10, "loss": 0.5, "lr": 1e-3}]) == {"loss": 0.5}, "an earlier version's line"
