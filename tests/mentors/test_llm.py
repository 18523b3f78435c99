"""A language model as the mentor: asks, records, reads, fits, and fails in the open."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from helpers.dialogues import first_request
from helpers.loopback import error, openai_chat, serve
from helpers.tiny import prompt_space, scored
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from llm_catalyst.config.build import build_dataclass
from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.mentors.clients.anthropic import Claude
from llm_catalyst.mentors.clients.base import NotRecordedError
from llm_catalyst.mentors.clients.huggingface import LocalModel
from llm_catalyst.mentors.clients.human import Human
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.controls import Evolution, NoMentor
from llm_catalyst.mentors.llm import LanguageModel, MentorError, apply_history
from llm_catalyst.mentors.strategies.base import Dialogue, repeat_request
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.mentors.strategies.paraphrase import Paraphrase
from llm_catalyst.runs.records import Advice, LLMCall, Restart, to_json
from llm_catalyst.sweeps.fallbacks import read_node
from llm_catalyst.utils.paths import conf_directory, list_choices
from llm_catalyst.utils.signals import BudgetExceededError
from llm_catalyst.utils.validation import ConfigurationError

GOOD = "- is it good\n- how is the mood\n- tell me the story"


@dataclass
class Recorder:
    """A consultation whose records are kept, in the tiny space; `calls` counts what `before_call` allowed."""

    exchanges: list[LLMCall] = field(default_factory=list)
    calls: int = 0

    def before_call(self) -> None:
        self.calls += 1

    def consultation(self, seed: int = 0, answered: Sequence[LLMCall] = ()) -> MentorContext:
        space = prompt_space(length=4)
        pool = (scored(space, "dull", 0.7, 0.4), scored(space, "is the film good", 0.3, 0.9))
        task = TaskDescription("sst2", "Judge film reviews.", ("negative", "positive"))
        rng, record = random.Random(seed), self.exchanges.append
        return MentorContext(task, pool, 1, 3, space, rng, record, tuple(answered), self.before_call)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "test-key-0123456789abcdef")


def advise(*script: Any, seed: int = 0, **settings: Any) -> tuple[Advice, Recorder, list[dict[str, Any]]]:
    """The advice of a language model behind a real server, its records, and the requests' bodies."""
    recorder = Recorder()
    strategy = settings.pop("strategy", Paper())
    with serve(*script) as server:
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY", timeout_s=5, retry_s=0)
        advice = LanguageModel(client, strategy, **settings).propose(recorder.consultation(seed))
    return advice, recorder, [request.body for request in server.requests]


def texts(advice: Advice) -> list[str]:
    return [proposal.prompt.text for proposal in advice.proposals]


def reasons(advice: Advice) -> list[str]:
    return [rejected.reason for rejected in advice.rejected]


def test_proposals_become_prompts_of_m_tokens() -> None:
    advice, recorder, _ = advise(openai_chat(GOOD))
    assert texts(advice) == ["is it good is", "how is the mood", "tell me the story"]
    assert all(len(proposal.prompt.tokens) == 4 for proposal in advice.proposals)
    assert advice.fallback is None
    assert [exchange.stage for exchange in recorder.exchanges] == [1]


def test_a_text_without_any_token_is_rejected_by_name() -> None:
    advice, _, _ = advise(openai_chat("- 好\n- is it good"))
    assert texts(advice) == ["is it good is"]
    assert reasons(advice) == ["'好' holds no token of this tokenizer"]


def test_what_does_not_fit_is_said() -> None:
    advice, _, _ = advise(openai_chat("- is the movie good or is it bad"))
    assert texts(advice) == ["is the movie good"]
    assert advice.proposals[0].lost == "or is it bad"


def test_an_exchange_is_recorded_before_its_reply_is_read() -> None:
    def fail(response: str) -> Any:
        raise RuntimeError("a bug in a strategy")

    @dataclass(frozen=True)
    class Broken(Paper):
        def propose(self, context: MentorContext) -> Dialogue:
            return repeat_request(replace(self.build_request(context), parse=fail), 1)

    recorder = Recorder()
    with serve(openai_chat(GOOD)) as server:
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY")
        with pytest.raises(RuntimeError, match="a bug"):
            LanguageModel(client, Broken()).propose(recorder.consultation())
    assert [exchange.reply for exchange in recorder.exchanges] == [GOOD]


def test_more_than_asked_for_is_rejected_and_duplicates_do_not_count() -> None:
    reply = "- is the film good\n- is it good\n- is it good is\n- how is the mood\n- tell me the story"
    advice, _, _ = advise(openai_chat(reply), strategy=Paper(proposals=2))
    assert texts(advice) == ["is it good is", "how is the mood"]
    assert reasons(advice) == [
        "the same tokens as a prompt that was scored, or as another proposal",
        "the same tokens as a prompt that was scored, or as another proposal",
        "more than asked for",
    ]


def test_the_last_line_of_a_truncated_answer_is_not_used() -> None:
    advice, _, _ = advise(openai_chat("- is it good\n- how is the", "length"))
    assert texts(advice) == ["is it good is"]
    assert reasons(advice) == ["cut off: the answer ended by length"]


def test_an_unusable_answer_is_asked_again_with_a_reminder() -> None:
    advice, recorder, (first, second) = advise(openai_chat("..."), openai_chat(GOOD))
    assert len(advice.proposals) == 3
    assert advice.fallback is None
    assert reasons(advice) == ["no letter or digit in it"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][2]["content"] == "..."
    assert first["seed"] != second["seed"]
    assert len(recorder.exchanges) == 2


def test_after_the_last_attempt_the_advice_says_why_there_is_none() -> None:
    advice, recorder, requests = advise(*[openai_chat("- is the film good")] * 3, attempts=3)
    assert advice.proposals == ()
    assert advice.fallback == "no usable proposal in the answer"
    assert reasons(advice) == ["the same tokens as a prompt that was scored, or as another proposal"] * 3
    assert len(recorder.exchanges) == len(requests) == 3


def test_a_refusal_is_asked_again_and_then_named() -> None:
    advice, recorder, _ = advise(*[openai_chat(None, refusal="No.")] * 2)
    assert advice.fallback == "the model refused"
    assert [exchange.error for exchange in recorder.exchanges] == ["the model refused"] * 2


def test_where_nobody_answers_the_question_is_not_repeated() -> None:
    advice, recorder, requests = advise(error(404, "no such model"), on_failure="fallback")
    assert "no such model" in str(advice.fallback)
    assert len(recorder.exchanges) == len(requests) == 1


def test_a_permanent_failure_raises_with_the_reason_and_keeps_the_record() -> None:
    recorder = Recorder()
    with serve(error(401, "bad key")) as server:
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY")
        mentor = LanguageModel(client, Paper())
        with pytest.raises(MentorError, match=r"after stage 2: .* answered 401 .*bad key.*resume the run"):
            mentor.propose(recorder.consultation())
    assert len(recorder.exchanges) == 1


def test_the_seed_sent_comes_from_the_consultation() -> None:
    seeds = [advise(openai_chat(GOOD), seed=seed)[2][0]["seed"] for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_the_official_parsing_takes_what_the_official_code_takes() -> None:
    advice, _, _ = advise(openai_chat("Is it good?\n- how is the mood"), strategy=Paper(parsing="official"))
    assert texts(advice) == ["is it good?", "how is the mood"]


def mentors(url: str, *names: str, **settings: Any) -> LanguageModel:
    """A mentor of the first of these models, the others are its fallbacks; all of them are behind one server."""
    first, *others = [OpenAIChat(name, url + "/v1", "TEST_KEY", timeout_s=5, retry_s=0) for name in names]
    fallbacks = [LanguageModel(client, Paper(), attempts=1, on_unusable="stop") for client in others]
    return LanguageModel(first, Paper(), **{"attempts": 1, "fallbacks": fallbacks, **settings})


def test_a_fallback_answers_where_the_mentor_does_not_and_all_rejected_lines_stay() -> None:
    recorder = Recorder()
    with serve(openai_chat("..."), openai_chat(GOOD, model="gpt-4o")) as server:
        advice = mentors(server.url, "gpt-4o-mini", "gpt-4o", "gpt-4.1").propose(recorder.consultation())
    assert len(advice.proposals) == 3
    assert advice.fallback is None
    assert reasons(advice) == ["no letter or digit in it"]
    assert [request.body["model"] for request in server.requests] == ["gpt-4o-mini", "gpt-4o"]
    assert [exchange.answered for exchange in recorder.exchanges] == ["gpt-4o-mini", "gpt-4o"]
    first, second = (request.body["messages"] for request in server.requests)
    assert first == second


def test_where_no_fallback_helps_all_reasons_are_told() -> None:
    recorder = Recorder()
    with serve(error(404, "gone"), openai_chat("...")) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o")
        mentor.fallbacks.append(NoMentor())
        advice = replace(mentor, on_failure="fallback").propose(recorder.consultation())
    first, second, third = str(advice.fallback).split("; ")
    assert re.fullmatch(r"gpt-4o-mini: http\S+ answered 404 .*: gone", first)
    assert (second, third) == ("gpt-4o: no usable proposal in the answer", "NoMentor: no proposal")


def test_on_failure_stop_counts_after_the_last_fallback_and_only_the_mentors_own_does() -> None:
    with serve(*[error(400, "bad")] * 4) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o")
        patient = replace(mentor, on_failure="fallback")
        assert "gpt-4o: " in str(patient.propose(Recorder().consultation()).fallback)
        with pytest.raises(MentorError, match=r"gpt-4o-mini: .*; gpt-4o: "):
            mentor.propose(Recorder().consultation())
    assert len(server.requests) == 4


@pytest.mark.parametrize("failed_attempts", [1, 3])
def test_a_fallback_proposes_what_it_would_as_the_only_mentor(failed_attempts: int) -> None:
    alone = Evolution().propose(Recorder().consultation(seed=5))
    with serve(*[openai_chat("...")] * failed_attempts) as server:
        mentor = mentors(server.url, "gpt-4o-mini", attempts=failed_attempts, fallbacks=[Evolution()])
        advice = mentor.propose(Recorder().consultation(seed=5))
    assert advice.proposals == alone.proposals != ()


def test_a_fallback_has_no_fallbacks_of_its_own() -> None:
    inner = LanguageModel(None, None, fallbacks=[NoMentor()])
    with pytest.raises(ConfigurationError, match="name them all in one list"):
        LanguageModel(None, None, fallbacks=[inner])


def test_a_resumed_consultation_goes_the_way_of_the_first_and_asks_only_what_is_new() -> None:
    """Two attempts, a failure, and a fallback: cut off after each exchange, it comes to the same advice."""
    script = [openai_chat("..."), error(400, "too long"), openai_chat("- is it good", model="gpt-4o")]
    whole = Recorder()
    with serve(*script) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o", attempts=2)
        advice = mentor.propose(whole.consultation())
        assert texts(advice) == ["is it good is"]
        for kept in range(4):
            server.script[:] = script[kept:]
            rest = Recorder()
            assert mentor.propose(rest.consultation(answered=whole.exchanges[:kept])) == advice
            assert server.script == []
            assert rest.calls == len(rest.exchanges) == 3 - kept


def test_an_answer_to_another_question_is_kept_for_whoever_asks_that() -> None:
    """A resume with more attempts asks one question more, and then takes the fallback's answer from the record."""
    whole = Recorder()
    with serve(openai_chat("..."), openai_chat(GOOD), openai_chat("!!!")) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o")
        advice = mentor.propose(whole.consultation())
        patient = replace(mentor, attempts=2).propose(whole.consultation(answered=tuple(whole.exchanges)))
    assert patient.proposals == advice.proposals
    assert len(server.requests) == 3


def test_what_before_call_raises_passes_and_nothing_is_asked() -> None:
    def spent() -> None:
        raise BudgetExceededError("budget.usd=1 is used up")

    recorder = Recorder()
    with serve(openai_chat(GOOD)) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o")
        with pytest.raises(BudgetExceededError, match="is used up"):
            mentor.propose(replace(recorder.consultation(), before_call=spent))
    assert server.requests == recorder.exchanges == []


# How much of the history a model sees


def with_history(consultation: MentorContext) -> MentorContext:
    """The consultation with a pool of five, of which each score tells its prompt apart."""
    words = ("dull", "poor text", "find the mood", "say what it is", "is the film good")
    space = consultation.space
    return replace(consultation, pool=tuple(scored(space, w, 0.7 - i / 10, 0.4 + i / 10) for i, w in enumerate(words)))


def request_for(history: bool | str, seed: int = 0) -> dict[str, Any]:
    """The body of the request that brings the advice."""
    with serve(openai_chat(GOOD)) as server:
        mentor = LanguageModel(OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY"), Paper(), history=history)
        assert mentor.propose(with_history(Recorder().consultation(seed))).proposals
    return server.requests[0].body


def entries(request: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The prompts that a request lists, each with its loss and its accuracy."""
    return re.findall(r'Prompt: "(.+)"\nLoss: (\S+)\nAccuracy: (\S+)', request["messages"][1]["content"])


def test_a_model_sees_the_true_scores_or_the_same_scores_mixed_up_or_no_prompt_at_all() -> None:
    true, shuffled, absent = (request_for(history) for history in (True, "shuffled", "absent"))
    pool = with_history(Recorder().consultation()).pool
    assert entries(true) == [(e.prompt.text, f"{e.score.loss:.3f}", f"{e.score.metric:.3f}") for e in pool]
    assert [scores for _, *scores in entries(shuffled)] == [scores for _, *scores in entries(true)]
    assert sorted(prompt for prompt, *_ in entries(shuffled)) == sorted(prompt for prompt, *_ in entries(true))
    assert entries(shuffled) != entries(true)
    without = first_request(Paper(), replace(Recorder().consultation(), pool=())).messages
    assert absent["messages"] == [vars(message) for message in without]
    assert true["seed"] == shuffled["seed"] == absent["seed"]


def test_scores_are_mixed_up_by_the_seed_alone() -> None:
    first, again, other = (entries(request_for("shuffled", seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_mixed_up_scores_tell_nothing_about_their_prompts() -> None:
    consultations = [with_history(Recorder().consultation(seed)) for seed in range(300)]
    best = consultations[0].pool[-1].prompt
    losses = [e.score.loss for c in consultations for e in apply_history(c, "shuffled").pool if e.prompt == best]
    assert {round(loss, 1) for loss in losses} == {0.3, 0.4, 0.5, 0.6, 0.7}
    assert fmean(losses) == pytest.approx(0.5, abs=0.04)  # five standard errors; its own loss is 0.3


def test_a_reminder_and_a_fallback_are_about_the_history_that_was_shown_first() -> None:
    with serve(openai_chat("..."), openai_chat("!!!"), openai_chat(GOOD, model="gpt-4o")) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o", attempts=2, history="shuffled")
        assert mentor.propose(with_history(Recorder().consultation())).proposals
    first, second, third = (entries(request.body) for request in server.requests)
    assert first == second == third != entries(request_for(True))


@pytest.mark.parametrize("history", ["shuffled", "absent"])
def test_a_prompt_of_the_pool_is_rejected_though_a_model_did_not_see_it_as_it_is(history: str) -> None:
    advice, _, _ = advise(openai_chat("- is the film good\n- is it good"), history=history)
    assert texts(advice) == ["is it good is"]
    assert reasons(advice) == ["the same tokens as a prompt that was scored, or as another proposal"]


def test_a_strategy_that_needs_a_prompt_is_refused_without_a_history() -> None:
    paraphrase = LanguageModel(Human(), Paraphrase())
    for strategy, fallbacks in ((Paraphrase(), []), (Paper(), [NoMentor(), paraphrase])):
        with pytest.raises(ConfigurationError, match=r"mentor\.history=absent leaves strategy Paraphrase nothing"):
            LanguageModel(Human(), strategy, history="absent", fallbacks=fallbacks)


def test_a_strategy_that_needs_a_prompt_asks_nobody_where_the_pool_is_empty() -> None:
    with serve() as server:
        mentor = LanguageModel(OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY"), Paraphrase())
        advice = mentor.propose(replace(Recorder().consultation(), pool=()))
    assert advice == Advice(fallback="the pool is empty")
    assert server.requests == []


def test_a_paraphrase_is_asked_for_as_every_other_proposal_is() -> None:
    advice, recorder, (first, second) = advise(openai_chat("Sure!"), openai_chat(GOOD), strategy=Paraphrase())
    assert texts(advice) == ["is it good is", "how is the mood", "tell me the story"]
    assert '"is the film good"' in first["messages"][1]["content"]
    assert "dull" not in str(first)
    reminder = first_request(Paraphrase(), Recorder().consultation()).remind("Sure!")
    assert second["messages"][2:] == [vars(message) for message in reminder]
    assert len(recorder.exchanges) == 2


def test_models_without_a_known_price_are_named_and_free_ones_are_not() -> None:
    def model(client: Any, *fallbacks: Any) -> LanguageModel:
        return LanguageModel(client, Paper(), fallbacks=list(fallbacks))

    unknown, known = OpenAIChat("my-model", key_variable=None), OpenAIChat("gpt-4o")
    assert model(known).unpriced_models() == []
    three = model(known, model(unknown), Evolution(), model(Claude("claude-9")))
    assert three.unpriced_models() == ["my-model", "claude-9"]
    assert model(unknown, model(known)).unpriced_models() == ["my-model"]
    assert model(Human(), model(LocalModel("a/b")), model(Replay("run"))).unpriced_models() == []


def replay_of(run: Path, exchanges: Sequence[LLMCall], fallback: str | None = None, **settings: Any) -> LanguageModel:
    """A mentor that replays a run with these exchanges, which restarted from its pool's best where `fallback` says."""
    run.mkdir(exist_ok=True)
    (run / "exchanges.jsonl").write_text("".join(to_json(exchange) + "\n" for exchange in exchanges))
    prompt = prompt_space().prompt([7, 8, 9, 10])
    restart = Restart(1, 0, prompt, "best of 1", None, None, (), (), fallback)
    (run / "restarts.jsonl").write_text(to_json(restart) + "\n")
    return LanguageModel(Replay(str(run)), Paper(**settings.pop("strategy", {})), attempts=20, **settings)


@pytest.mark.parametrize("form", ["chat", "plain"])
def test_a_replay_repeats_attempts_and_the_answers_of_fallbacks_whatever_the_form(form: str, tmp_path: Path) -> None:
    recorder, again = Recorder(), Recorder()
    strategy = Paper(form=form)
    with serve(openai_chat("..."), openai_chat("!!!"), openai_chat(GOOD, model="gpt-4o")) as server:
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY")
        other = LanguageModel(replace(client, model="gpt-4o"), strategy)
        advice = LanguageModel(client, strategy, fallbacks=[other]).propose(recorder.consultation())
    replay = replay_of(tmp_path, recorder.exchanges, strategy={"form": form})
    assert advice.instead == "gpt-4o-mini: no usable proposal in the answer; gpt-4o proposes instead"
    advice = replace(advice, instead="")
    assert replay.propose(again.consultation()) == advice
    assert [e.reply for e in again.exchanges] == ["...", "!!!", GOOD]
    assert [e.answered for e in again.exchanges] == ["gpt-4o-mini", "gpt-4o-mini", "gpt-4o"]
    assert not any(e.billed for e in again.exchanges)
    resumed = Recorder()
    assert replay.propose(resumed.consultation(answered=again.exchanges[:2])) == advice
    assert [e.reply for e in resumed.exchanges] == [GOOD]


@pytest.mark.parametrize(
    "script", [[openai_chat("..."), error(400, "no")], [error(400, "no")]], ids=["late", "at once"]
)
def test_a_replay_falls_back_where_the_recorded_run_did_and_for_its_reason(script: list[Any], tmp_path: Path) -> None:
    recorder = Recorder()
    with serve(*script, *[error(400, "neither")] * 2) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o", attempts=len(script), on_failure="fallback")
        advice = mentor.propose(recorder.consultation())
    assert "gpt-4o: " in str(advice.fallback)
    replay = replay_of(tmp_path, recorder.exchanges, advice.fallback)
    assert replay.propose(Recorder().consultation()) == replace(advice, failure="")


def test_a_replay_that_is_not_the_recorded_run_stops_whatever_on_failure_says(tmp_path: Path) -> None:
    recorder = Recorder()
    with serve(openai_chat("...")) as server:
        mentors(server.url, "gpt-4o-mini").propose(recorder.consultation())
    with pytest.raises(NotRecordedError, match=r"holds 1 answers for stage 1 \(from 0\), and all are used up"):
        replay_of(tmp_path, recorder.exchanges).propose(Recorder().consultation())


def test_a_replay_repeats_a_fallback_that_asks_no_model_where_it_is_named(tmp_path: Path) -> None:
    recorder = Recorder()
    with serve(openai_chat("..."), error(400, "no")) as server:
        mentor = mentors(server.url, "gpt-4o-mini", "gpt-4o")
        mentor.fallbacks.append(Evolution())
        advice = mentor.propose(recorder.consultation())
    assert advice.proposals
    replay = replay_of(tmp_path, recorder.exchanges, fallbacks=[Evolution()])
    again = replay.propose(Recorder().consultation())
    assert (again.proposals, again.rejected) == (advice.proposals, advice.rejected)


def test_preflight_asks_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    mentor = LanguageModel(OpenAIChat("gpt-4o-mini", key_variable="TEST_KEY"), Paper())
    mentor.preflight()
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ConfigurationError, match="TEST_KEY is not set"):
        mentor.preflight()
    with pytest.raises(ConfigurationError, match=r"mentor\.fallbacks\[1\]: .*TEST_KEY is not set"):
        LanguageModel(OpenAIChat("m", key_variable=None), Paper(), fallbacks=[NoMentor(), mentor]).preflight()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"attempts": 0}, r"mentor\.attempts=0 is too small"),
        ({"on_failure": "ignore"}, r"mentor\.on_failure=ignore is not known"),
        ({"history": "shufled"}, r"mentor\.history=shufled is not known; .*did you mean shuffled"),
        ({"history": False}, r"mentor\.history=False is not known; there are: true, shuffled, absent"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        LanguageModel(None, None, **settings)


FILES = {path.stem: path for path in (conf_directory() / "mentor").glob("*.yaml")}


def client_files() -> Sequence[Path]:
    return [path for path in list_choices(conf_directory() / "mentor") if "client" in mentor_node(path)]


def mentor_node(path: Path) -> Any:
    """The node that a choice describes, with what it inherits; replay, of the package _global_, has it under a key."""
    if path.stem != "replay":
        return read_node(path.stem, FILES)
    return OmegaConf.merge(OmegaConf.load(FILES["_language_model"]), OmegaConf.load(path).mentor)


def test_conf_names_forty_mentors_with_a_client() -> None:
    assert len(client_files()) == 40


@pytest.mark.parametrize("path", client_files(), ids=lambda path: path.stem)
def test_every_mentor_in_conf_builds_from_its_schema_and_lists_every_field(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.removeprefix("# @package _global_\n").startswith(f"# catalyst run mentor={path.stem}")
    whole = OmegaConf.create({"mentor": mentor_node(path), "replay": {"run": "somewhere"}})
    OmegaConf.resolve(whole)
    node = whole.mentor
    client = build(node.client)
    mentor = build(node, client=client, strategy=Paper())
    assert isinstance(mentor, LanguageModel)
    assert mentor.client is client


def build(node: DictConfig, **parts: Any) -> Any:
    """The object of a YAML node, merged into its dataclass; `parts` are given instead of the node's own."""
    unset = {"model": "some/model", "base_url": "http://127.0.0.1:9"}
    kind: Any = get_class(node.pop("_target_"))
    unlisted = {field.name for field in fields(kind)} - set(node) - {"strategy"}
    assert not unlisted, "a key that YAML does not list cannot be overridden without a +"
    missing = {str(key): unset[str(key)] for key in node if OmegaConf.is_missing(node, key)}
    settings: Any = OmegaConf.to_container(OmegaConf.merge(node, missing), resolve=True)
    return build_dataclass(kind, {key: value for key, value in settings.items() if key not in parts}, "mentor", parts)
