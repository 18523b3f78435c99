"""The bars of runs that share a terminal: how far each is, and what it is at."""

import io

from helpers.tiny import prompt_space
from rich.console import Console

from llm_catalyst.callbacks.base import RunInfo
from llm_catalyst.callbacks.progress_bars import ProgressBars
from llm_catalyst.runs.records import Evaluation, Event, Restart, Score


def drawn(bars: ProgressBars) -> list[str]:
    """The lines as a terminal of 120 columns shows them."""
    console = Console(width=120, file=io.StringIO())
    console.print(bars)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_each_run_has_a_bar_with_its_steps_and_its_latest_news() -> None:
    bars = ProgressBars({3: "seed=1", 7: "seed=[2]"}, Console(file=io.StringIO()))
    with bars:
        assert [line.split()[0] for line in drawn(bars)] == ["seed=1", "seed=[2]"]
        assert all("waits" in line for line in drawn(bars))
        first, second = bars.callbacks[3], bars.callbacks[7]
        for view in (first, second):
            view.on_run_start(RunInfo("sst2", "outputs/x", (6, 4), 0.5, "accuracy"))
        first.on_step(0, 5, (0.7,))
        first.on_record(Evaluation(0, 5, 0, "dev", Score(0.4, 0.875, 16), {"accuracy": 0.875}))
        prompt = prompt_space().fit("is it [bold]good\x1b[2J or bad")[0]
        second.on_record(Restart(0, 0, prompt, "best of 1", None, None, (), (), None))
        lines = drawn(bars)
    assert "5/10" in lines[0]
    assert "dev 0.875" in lines[0]
    assert "0/10" in lines[1]
    assert "restarts from" in lines[1]
    assert "\x1b" not in lines[1]


def test_a_run_that_ended_early_and_one_that_warns_say_so() -> None:
    bars = ProgressBars({0: "seed=1"}, Console(file=io.StringIO()))
    bars.callbacks[0].on_record(Event(0, 3, "diverged", "loss was not finite"))
    assert "loss was not finite" in drawn(bars)[0]
    bars.callbacks[0].on_run_end(None)
    assert "stopped" in drawn(bars)[0]
