"""`catalyst run mentor=gpt4` and `catalyst models` against a server that has only the models that live today."""

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.command import Command, write_jsonl
from helpers.loopback import Loopback, Request, Response, openai_chat, serve
from helpers.tiny_models import folder

from llm_catalyst.runs.reader import read_run

pytestmark = pytest.mark.slow

KEY = "dummy-key-0123456789"
REPLACED = "GPT-4 of the paper, gpt-4-1106-preview, was shut down on 2026-10-23; asking gpt-6.2-sol"
SOON = datetime.date.today() + datetime.timedelta(days=30)
LIVING = {"gpt-6.2-sol": None, "gpt-6-luna": None, "gpt-5.5": str(SOON), "text-embedding-3-large": None}
SMALL = ("task=sst2", "backbone=bert_base", f"backbone.name={folder('bert')}", "head=similarity", "batch_size=8")
SMALL += ("prompt.length=4", "pool.candidates=2", "stage.steps=[1,1]", "threads=1", "device=cpu", "view=plain")


def answer(request: Request) -> Response:
    """Three proposals of the snapshot of the model that is asked, to which OpenAI's answers are attributed."""
    return openai_chat("1. is it good\n2. was it bad\n3. a fine film", model=f"{request.body['model']}-2026-04-23")


@dataclass(frozen=True)
class Place:
    """A folder with a small SST-2, and the server that a command there asks."""

    catalyst: Command
    home: Path
    server: Loopback

    def __call__(self, *words: str, home: Path | None = None) -> tuple[int, str]:
        """The exit code of a command, and all that it printed, on one line."""
        variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{self.server.url}/v1", "CATALYST_DATA": str(self.home)}
        done = self.catalyst(*words, cwd=home or self.home, **variables)
        assert KEY not in done.stdout + done.stderr
        return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def place(catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("living")
    rows = [
        {"sentence": f"film {number} is {'good' if number % 2 else 'bad'}", "label": number % 2} for number in range(40)
    ]
    for split in ("train", "validation"):
        write_jsonl(home / "sst2" / f"{split}.jsonl", rows)
    with serve(reply=answer, living=LIVING) as server:
        yield Place(catalyst, home, server)


def test_the_headline_command_is_estimated_and_says_which_model_it_asks(place: Place) -> None:
    code, printed = place("run", *SMALL, "mentor=gpt4", "dry_run=true")
    assert code == 0, printed
    assert printed.count(REPLACED) == 1
    assert "cost about $" in printed
    assert place.server.looked_up[-1] == "/v1/models/gpt-6.2-sol"
    assert place.server.requests == []


def test_the_papers_own_snapshot_is_refused_with_its_day_and_successor(place: Place) -> None:
    code, printed = place("run", *SMALL, "mentor=gpt4_1106", "dry_run=true")
    assert code == 2
    assert "gpt-4-1106-preview was shut down on 2026-10-23" in printed
    assert "mentor.client.model=gpt-6.2-sol" in printed


def test_a_run_of_a_role_ends_within_its_budget_and_its_manifest_names_what_was_replaced(place: Place) -> None:
    run = place.home / "runs" / "gpt4"
    words = ("run", *SMALL, "mentor=gpt4", "budget.usd=1", f"hydra.run.dir={run}")
    code, printed = place(*words)
    assert code == 0, printed
    assert REPLACED in printed
    records = read_run(run)
    assert records.manifest.mentor_notes == (REPLACED,)
    assert records.config["mentor"]["client"]["model"] == "gpt-6.2-sol"
    (call,) = {(call.asked, call.answered) for call in records.exchanges}
    assert call == ("gpt-6.2-sol", "gpt-6.2-sol-2026-04-23")
    assert records.outcome is not None
    # 100 tokens in at 2 USD a million and 20 out at 10, for each call
    assert records.outcome.ledger.cost_usd == pytest.approx(len(records.exchanges) * (100 * 2 + 20 * 10) / 1e6)
    assert records.outcome.ledger.unpriced_calls == 0
    body = place.server.requests[-1].body
    assert {"temperature", "presence_penalty", "seed"} & body.keys() == set()
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("low", 8000)
    code, printed = place("report", str(run))
    assert code == 0, printed
    assert REPLACED in (run / "report" / "report.html").read_text()


def test_a_role_that_moves_changes_no_run_already_made(place: Place) -> None:
    run = place.home / "runs" / "moved"
    words = ("run", *SMALL, "mentor=gpt35", f"hydra.run.dir={run}")
    assert place(*words)[0] == 0
    for name in ("config.yaml", "SHA256SUMS"):
        assert (run / name).exists(), sorted(path.name for path in run.iterdir())
    body = place.server.requests[-1].body
    assert (body["model"], body["reasoning_effort"], body["temperature"]) == ("gpt-6-luna", "none", 1.0)
    text = (run / "config.yaml").read_text().replace("gpt-6-luna", "gpt-5.5")
    edit_sealed(run, text)
    code, printed = place(*words)
    assert (code, "finished already" in printed) == (0, True), printed
    assert "model: gpt-5.5" in (run / "config.yaml").read_text()
    code, printed = place(*words, "mentor.client.model=gpt-6.2-sol")  # other words are another run
    assert code == 2
    assert "another configuration" in printed


def edit_sealed(run: Path, text: str) -> None:
    """Write another config.yaml as an earlier revision would have, with its checksum."""
    import hashlib

    (run / "config.yaml").write_text(text)
    sums = (run / "SHA256SUMS").read_text().splitlines()
    new = f"{hashlib.sha256(text.encode()).hexdigest()}  config.yaml"
    (run / "SHA256SUMS").write_text("\n".join(new if line.endswith("  config.yaml") else line for line in sums) + "\n")


def test_a_shutdown_within_sixty_days_is_one_warning_in_manifest_and_report(place: Place) -> None:
    run = place.home / "runs" / "soon"
    code, printed = place("run", *SMALL, "mentor=gpt55", f"hydra.run.dir={run}")
    assert code == 0, printed
    warning = f"gpt-5.5 will be shut down on {SOON}, in 30 days"
    assert printed.partition("Warnings")[0].count(warning) == 1
    (note,) = json.loads((run / "manifest.json").read_text())["mentor_notes"]
    assert note.startswith(warning)


def test_a_users_own_models_are_priced_and_stay_so_when_the_run_is_resumed(place: Place) -> None:
    own = place.home / "own"
    own.mkdir()
    (own / "models.yaml").write_text("models: {gpt-6-luna: {prices: [{input: 1000, output: 1000}]}}\n")
    run = place.home / "runs" / "own"
    words = ("run", *SMALL, "mentor=gpt35", "stage.steps=[1,1,1]", "budget.usd=0.1", f"hydra.run.dir={run}")
    code, printed = place(*words, f"--config-dir={own}")
    assert code == 3, printed
    assert "is not used" not in printed
    code, printed = place("resume", str(run), "budget.usd=1")
    assert code == 0, printed
    calls = read_run(run).exchanges
    assert {call.cost_usd for call in calls} == {0.12}
    (own / "models.yaml").write_text("models: {gpt-6-luna: {price: 3}}\n")
    code, printed = place("run", *SMALL, "mentor=gpt35", f"--config-dir={own}")
    assert code == 2
    assert f"{own}/models.yaml, gpt-6-luna: there is no key price (did you mean prices?)" in printed


def test_a_servers_models_are_listed_with_shutdown_price_and_preset(place: Place) -> None:
    for words in (["models", "gpt4"], ["models", f"{place.server.url}/v1"]):
        code, printed = place(*words)
        assert code == 0, printed
        assert "gpt-6.2-sol 2 0.1 10 gpt4, openai" in printed
        assert f"gpt-5.5 {SOON} 5 0.5 30 gpt55" in printed
        assert f"3 chat models of {place.server.url}/v1" in printed
        assert "human" not in printed  # a preset without a model asks none of them
        assert "left out by their names: text-embedding-3-large" in printed
    code, printed = place("models")
    assert code == 0
    assert "claude-haiku-5-5" in printed
    assert "gpt-4-1106-preview" not in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["opnai"], "did you mean openai"),
        (["localhost:8000"], "try http://localhost:8000"),
        (["--config-dir", "nowhere"], "there is no folder nowhere"),
        (["human"], "mentor=human asks no server"),
        (["azure"], "leaves mentor.client.base_url open"),
        (["bedrock"], "mentor=bedrock has no list of models"),
        (["http://127.0.0.1:1/v1"], "no list of models came from http://127.0.0.1:1/v1"),
        (["{url}"], "did you mean {url}/v1?"),
        (["claude_haiku"], "ANTHROPIC_API_KEY is not set"),
    ],
)
def test_what_has_no_list_is_refused(place: Place, words: list[str], said: str) -> None:
    url = f"{place.server.url}/other"
    code, printed = place("models", *(word.format(url=url) for word in words))
    assert code == 2
    assert said.format(url=url) in printed
