"""One contract for every strategy in conf/strategy: whole runs by it, with training and without, and resumed."""

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers.dialogues import first_request
from helpers.tiny import consultation
from helpers.tiny_models import Stops, adamw, run_in, toy_data, toy_problem
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.build import build_node
from llm_catalyst.config.settings import Evaluations, StageLengths
from llm_catalyst.mentors.clients.mock import MockModel
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.base import Strategy
from llm_catalyst.models.heads.text import Verbalizer
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import NoTraining
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import LLMCall, Outcome, Record
from llm_catalyst.training.loop import Experiment
from llm_catalyst.utils.paths import conf_directory, list_choices

FILES = list_choices(conf_directory() / "strategy")
# Numbers of the papers that would make a tiny run long.
FEWER = {
    "proposals": 4,
    "population": 4,
    "crossovers": 2,
    "candidates": 6,
    "subsets": 2,
    "examples": 8,
    "pareto": 6,
    "block": 6,
}
STAGES = 4
WITH_MEMORY = ("directional", "evoprompt_de", "gepa")


@dataclass
class Cut(RunCallback):
    """Raises after `answers` answers, which are on the disk, as a killed process would end."""

    answers: int

    def on_record(self, record: Record) -> None:
        if isinstance(record, LLMCall):
            self.answers -= 1
            if not self.answers:
                raise Stops


@cache
def strategy(path: Path) -> Any:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("config", [f"strategy={path.stem}"]).strategy)
    return build_node(node | {name: value for name, value in FEWER.items() if name in node}, "strategy")


def carry_out(path: Path, choice: Path, optimizer: Any, view: Any = None) -> Outcome:
    """A run of four stages by a strategy, answered by a rehearsal."""
    problem = toy_problem(
        head=Verbalizer(),
        data=toy_data(cloze="it was {mask} ."),
        prompt=PromptSettings(length=6),
        stage=StageLengths(steps=1),
        evaluate=Evaluations(steps=1),
        stages=STAGES,
    )
    mentor = LanguageModel(MockModel(lines=12), strategy(choice), attempts=2)
    return run_in(path, Experiment(problem, optimizer, mentor, (1,) * STAGES), view)


def written(path: Path) -> dict[str, Any]:
    """What a run wrote, but for dates and durations."""
    run = read_run(path)
    assert run.outcome
    outcome = replace(run.outcome, seconds=0, finished="", peak_memory_bytes=0)
    exchanges = [replace(exchange, date="", latency_s=0) for exchange in run.exchanges]
    memory = json.loads((path / f"stages/{STAGES - 1:02d}/state.json").read_text())["state"]["memory"]
    return vars(replace(run, path=Path(), outcome=outcome, exchanges=tuple(exchanges))) | {"memory": memory}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def choice(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_a_request_follows_from_the_context_alone_and_has_the_form_asked_for(choice: Path) -> None:
    chat = replace(strategy(choice), form="chat")
    assert isinstance(chat, Strategy)
    request, again = first_request(chat, consultation()), first_request(chat, consultation())
    assert (request.messages, request.reminder) == (again.messages, again.reminder)
    assert [message.role for message in request.messages] == ["system", "user"]
    assert [message.role for message in request.remind("?")] == ["assistant", "user"]
    plain = first_request(replace(chat, form="plain"), consultation())
    assert [message.role for message in plain.messages] == ["user"]
    assert plain.remind("?") == ()
    listed = first_request(replace(chat, form="auto").in_form(has_roles=False), consultation())
    assert [message.role for message in listed.messages] == ["user"]
    assert re.search(r"\n\d+\.$", listed.messages[0].content)


@pytest.mark.parametrize("optimizer", [NoTraining(), Backprop(adamw)], ids=["alone", "alternating"])
def test_a_run_asks_scores_and_restarts_and_the_same_run_writes_the_same(
    tmp_path: Path, choice: Path, optimizer: Any
) -> None:
    outcome = carry_out(tmp_path / "a", choice, optimizer)
    run = read_run(tmp_path / "a")
    assert outcome.status == "done"
    assert outcome.ledger.mentor_calls == len(run.exchanges) > 0
    assert (outcome.ledger.gradient_steps == 0) == isinstance(optimizer, NoTraining)
    proposals = [proposal.prompt for restart in run.restarts for proposal, _ in restart.considered]
    assert all(len(prompt.tokens) == 6 for prompt in proposals)
    assert len({entry.prompt.tokens for entry in run.pool if entry.origin == "mentor"}) > 1
    for restart in run.restarts:
        assert restart.fallback or 0 < len(restart.considered) <= strategy(choice).proposals
    carry_out(tmp_path / "b", choice, optimizer)
    assert written(tmp_path / "b") == written(tmp_path / "a")


@pytest.mark.parametrize(
    "choice",
    [pytest.param(file, id=file.stem, marks=() if file.stem in WITH_MEMORY else pytest.mark.slow) for file in FILES],
)
def test_a_run_that_was_cut_off_after_any_answer_goes_on_to_the_same_end(tmp_path: Path, choice: Path) -> None:
    carry_out(tmp_path / "whole", choice, NoTraining())
    answers = len(read_run(tmp_path / "whole").exchanges)
    for cut in sorted({1, answers // 2, answers - 1, answers} - {0}):
        path = tmp_path / f"{cut}"
        with pytest.raises(Stops):
            carry_out(path, choice, NoTraining(), Cut(cut))
        assert len(read_run(path).exchanges) == cut
        carry_out(path, choice, NoTraining())
        assert written(path) == written(tmp_path / "whole")
