"""What every mentor and every client keeps to, a user's own included: the members of its base class."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from helpers.loopback import anthropic_message, openai_chat, serve
from helpers.tiny import consultation

from llm_catalyst import mentors
from llm_catalyst.mentors import clients
from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.mentors.clients.base import Client, ClientResponse
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.requests import RequestRunner
from llm_catalyst.mentors.strategies.opro import Opro
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.runs.records import Advice, LLMCall, Message, Proposal, to_json
from llm_catalyst.utils.validation import ConfigurationError

MESSAGES = (Message("system", "You write prompts."), Message("user", 'Improve "a good film".'))


@dataclasses.dataclass(frozen=True)
class OwnMentor(Mentor):
    """A user's mentor that defines nothing but the required member."""

    word: str = "film"

    def propose(self, context: MentorContext) -> Advice:
        return Advice((Proposal(context.space.fit(self.word)[0]),))


@dataclasses.dataclass(frozen=True)
class OwnClient(Client):
    """A user's client that defines nothing but the required members."""

    model: str = "my-model"

    def respond(self, messages: Any, seed: int) -> ClientResponse:
        return ClientResponse("- is it good", answered=self.model)


MENTORS: dict[str, Mentor] = {
    "none": mentors.NoMentor(),
    "best": mentors.BestOfPool(),
    "random": mentors.RandomTokens(),
    "perturb": mentors.Perturb(),
    "perturb along the gradient": mentors.Perturb(toward="gradient"),
    "evolution": mentors.Evolution(),
    "listed": mentors.Listed(str(Path(__file__).parents[1] / "data" / "prompts.txt")),
    "diffusion": mentors.Diffusion(str(Path(__file__).parent), "sst2", "minilm", "a head"),
    "language model": LanguageModel(clients.MockModel(), Paper()),
    "language model with fallbacks": LanguageModel(
        clients.MockModel(lines=1), Opro(), fallbacks=[LanguageModel(clients.Human(), Paper()), mentors.NoMentor()]
    ),
    "own": OwnMentor(),
}


def test_every_public_mentor_and_client_is_in_this_suite(client_names: set[str]) -> None:
    public = {name for name in mentors.__all__ if isinstance(getattr(mentors, name), type)}
    kinds = {name for name in public if issubclass(getattr(mentors, name), Mentor)} - {"Mentor"}
    assert kinds == {type(mentor).__name__ for mentor in MENTORS.values()} - {"OwnMentor"}
    kinds = {name for name in clients.__all__ if isinstance(getattr(clients, name), type)}
    assert {name for name in kinds if issubclass(getattr(clients, name), Client)} - {"Client"} == client_names


@pytest.fixture(params=MENTORS)
def mentor(request: pytest.FixtureRequest) -> Mentor:
    return MENTORS[request.param]


def test_a_mentor_has_every_member_and_proposes_at_most_what_it_says(mentor: Mentor) -> None:
    assert isinstance(mentor.proposals, int)
    assert mentor.label
    assert mentor.interactive is False
    assert mentor.overlap is False
    assert isinstance(mentor.unpriced_models(), list)
    assert all(isinstance(model, LanguageModel) for model in mentor.language_models())
    assert all(isinstance(fallback, Mentor) for fallback in mentor.fallbacks)
    mentor.check_reachable()
    calls: list[LLMCall] = []
    near = tuple((5, 6) for _ in range(consultation().space.length))
    context = dataclasses.replace(consultation(), record=calls.append, hints=lambda prompts: [near for _ in prompts])
    advice = mentor.propose(context)
    assert len(advice.proposals) <= (mentor.proposals or 1)
    assert bool(calls) is bool(mentor.language_models())
    assert {len(proposal.prompt.tokens) for proposal in advice.proposals} <= {context.space.length}


def test_a_mentor_that_uses_the_model_cannot_be_asked_while_it_trains(mentor: Mentor) -> None:
    if mentor.needs_model:
        with pytest.raises(ConfigurationError, match=rf"mentor\.overlap=true: {mentor.label} tries prompts"):
            mentor.check_overlap()
    else:
        mentor.check_overlap()


def test_a_mentor_without_a_proposal_says_why_the_next_one_is_asked(mentor: Mentor) -> None:
    context = dataclasses.replace(consultation(), pool=(), scored=(), rng=random.Random(1))
    requests = RequestRunner(context.stage, context.record)
    advice = mentor.propose_alone(context, context, requests)
    assert bool(advice.proposals) is not bool(advice.fallback)


# Clients


@pytest.fixture(params=["OpenAIChat", "Claude", "MockModel", "LocalModel", "Human", "Replay", "OwnClient"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client_names() -> set[str]:
    return {"OpenAIChat", "Claude", "MockModel", "LocalModel", "Human", "Replay"}


@pytest.fixture
def client(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client that can answer, or fail, without a network beyond this machine."""
    monkeypatch.setenv("TEST_KEY", "test-key-0123456789abcdef")
    if kind == "Replay":
        recorded = OwnClient().complete(MESSAGES, 1, 3)
        (tmp_path / "exchanges.jsonl").write_text(json.dumps(json.loads(to_json(recorded))) + "\n")
        (tmp_path / "restarts.jsonl").touch()
    with serve(openai_chat("- is it good") if kind != "Claude" else anthropic_message("- is it good")) as server:
        yield {
            "OpenAIChat": lambda: clients.OpenAIChat("m", server.url + "/v1", "TEST_KEY", check_model=False),
            "Claude": lambda: clients.Claude("m", server.url, "TEST_KEY", check_model=False),
            "MockModel": clients.MockModel,
            "LocalModel": lambda: clients.LocalModel(str(tmp_path / "no model")),
            "Human": clients.Human,
            "Replay": lambda: clients.Replay(str(tmp_path)),
            "OwnClient": OwnClient,
        }[kind]()


def test_a_client_has_every_member(client: Client, kind: str) -> None:
    assert isinstance(client, Client)
    assert isinstance(client.model, str)
    assert client.paid is (kind in ("OpenAIChat", "Claude"))
    assert client.background is (kind not in ("LocalModel", "Human", "OwnClient"))
    assert client.interactive is (kind == "Human")
    assert client.replays is (kind == "Replay")
    assert client.at_once is None or client.at_once >= 1
    assert client.max_tokens is None or client.max_tokens >= 1
    assert client.retry_s >= 0
    assert isinstance(client.unsent, tuple)
    json.dumps(dict(client.parameters(7)))
    client.check_reachable()


def test_a_client_records_what_was_sent_and_what_came_or_why_nothing_did(client: Client, kind: str) -> None:
    call = client.complete(MESSAGES, 1, 3)
    assert call.messages == MESSAGES
    assert call.stage == 1
    assert call.attempts == 1
    assert "test-key" not in to_json(call)
    assert (call.error is None) is (kind not in ("Human", "LocalModel"))
    assert call.error or call.reply.startswith("- ")
    assert call.error or call.answered
    if not client.paid:
        assert call.cost_usd == 0
    if kind != "Replay":
        assert (call.asked, call.parameters) == (client.model, client.parameters(3))
        assert call.not_sent == client.unsent


def test_a_users_client_retries_and_hides_its_key() -> None:
    from llm_catalyst.mentors.clients.base import TemporaryError

    tries: list[int] = []

    class Moody(OwnClient):
        retry_s = 5.0

        def read_key(self) -> str:
            return "a-secret-of-mine"

        def respond(self, messages: Any, seed: int) -> ClientResponse:
            tries.append(seed)
            if len(tries) == 1:
                raise TemporaryError(ClientResponse(error="busy"), 0.0)
            return ClientResponse("- the key is a-secret-of-mine", answered=self.model)

    call = Moody().complete(MESSAGES, 0, 3)
    assert (call.reply, call.attempts, call.error) == ("- the key is [key]", 2, None)
