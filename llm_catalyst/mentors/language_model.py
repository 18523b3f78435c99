"""A language model (or a person) as the mentor: asks, records, reads, fits."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from llm_catalyst.checks import ConfigurationError, at_least, one_of
from llm_catalyst.mentors import answer_cache
from llm_catalyst.mentors.clients import Client, NotRecorded
from llm_catalyst.mentors.consultation import Consultation, Mentor
from llm_catalyst.mentors.prices import prices
from llm_catalyst.mentors.questions import Questions
from llm_catalyst.mentors.strategies import Strategy
from llm_catalyst.randomness import derive
from llm_catalyst.records import Advice, Exchange, Proposal, Rejected

CUT_OFF = ("length", "max_tokens", "model_context_window_exceeded")  # stop reasons of a truncated answer


class MentorFailed(RuntimeError):  # noqa: N818 - reads as a sentence where it is caught
    """The mentor gave no usable proposal, and on_failure=stop asks to stop then."""


@dataclass(frozen=True)
class LanguageModel:
    """The `mentor` node. `client` is a Client and `strategy` a Strategy (OmegaConf takes no protocols).

    `attempts` counts the questions of one consultation: after an unusable answer it is asked again with a
    reminder. Retries of single requests are the client's. `fallbacks` are mentors to consult in turn when that
    has brought no proposal; `on_failure` is for when they bring none either (a fallback's own does not count).
    `history` says what the model, and each model that stands in for it, is shown of the pool (see `shown`).
    """

    client: Any
    strategy: Any
    history: bool | str = True  # YAML's `true`; as a word it is accepted, too
    proposals: int = 3
    attempts: int = 2
    on_failure: str = "fallback"
    fallbacks: list[Any] = field(default_factory=list)
    cache: bool = False

    def __post_init__(self) -> None:
        one_of("mentor.history", "true" if self.history is True else str(self.history), ("true", "shuffled", "absent"))
        for model in (self, *(mentor for _, mentor in self._models())):
            if self.history == "absent" and model.strategy.needs_pool:
                raise ConfigurationError(
                    f"mentor.history=absent leaves strategy {type(model.strategy).__name__} nothing to ask about; "
                    "choose another strategy (strategy=paper), or mentor.history=shuffled"
                )
        at_least("mentor.proposals", self.proposals, 1)
        at_least("mentor.attempts", self.attempts, 1)
        one_of("mentor.on_failure", self.on_failure, ("fallback", "stop"))
        if any(getattr(mentor, "fallbacks", None) for mentor in self.fallbacks):
            raise ConfigurationError("a mentor in mentor.fallbacks has fallbacks of its own; name them all in one list")

    def preflight(self) -> None:
        """Raise ConfigurationError where it is bound to fail: no key, no terminal, no recorded run, no place to write.

        The same goes for its fallbacks. Nothing is asked over a network.
        """
        self.client.preflight()
        if self.cache:
            answer_cache.preflight()
        for i, mentor in self._models():
            with named(i):
                mentor.preflight()

    def reach(self) -> None:
        """Raise ConfigurationError where a provider, a fallback's included, is not there or refuses key or model."""
        self.client.reach()
        for i, mentor in self._models():
            with named(i):
                mentor.reach()

    def unpriced(self) -> list[str]:
        """The models, those of fallbacks included, whose answers cost a sum that is not known."""
        clients: list[Client] = [self.client, *(mentor.client for _, mentor in self._models())]
        return [client.model for client in clients if client.paid and client.model not in prices()]

    def propose(self, consultation: Consultation) -> Advice:
        """At most `proposals` new prompts, the lines that were rejected, or why there is none.

        Raises MentorFailed instead of the latter with on_failure=stop, and NotRecorded where a replay does not fit.
        """
        questions, asked = Questions(consultation), shown(consultation, self.history)
        rejected: list[Rejected] = []
        reasons: list[str] = []
        for mentor in (self, *self.fallbacks):
            advice = consult(mentor, consultation, asked, questions)
            rejected += advice.rejected
            if advice.proposals:
                return replace(advice, rejected=tuple(rejected))
            reasons.append(f"{who(mentor)}: " * bool(self.fallbacks) + (advice.fallback or "no proposal"))
        why = "; ".join(reasons)
        if self.on_failure == "stop":
            raise MentorFailed(
                f"the mentor failed after stage {consultation.stage}: {why}; "
                "mend it and resume the run, or set mentor.on_failure=fallback to carry on without its advice"
            )
        return Advice(rejected=tuple(rejected), fallback=why)

    def _models(self) -> list[tuple[int, "LanguageModel"]]:
        return [(i, mentor) for i, mentor in enumerate(self.fallbacks) if isinstance(mentor, LanguageModel)]


def shown(consultation: Consultation, history: bool | str) -> Consultation:
    """The consultation with the pool that a model is shown: does it use the trajectory?

    true: the pool as it is. shuffled: the same prompts and scores, but each score at a prompt drawn at random, and the
    list in the order of these scores, so that the order tells no truth either. absent: no prompt at all. The draws come
    from a stream beside that of the consultation, which gives the seeds of requests.
    """
    pool = consultation.pool
    if history == "absent":
        return replace(consultation, pool=())
    if history == "shuffled":
        rng = Random(derive(copy(consultation.rng).getrandbits(63), "history"))
        mixed = zip(rng.sample(pool, len(pool)), pool, strict=True)
        return replace(consultation, pool=tuple(replace(entry, score=other.score) for entry, other in mixed))
    return consultation


def consult(mentor: Mentor, consultation: Consultation, asked: Consultation, questions: Questions) -> Advice:
    """The advice of one mentor alone, without its fallbacks. A model is asked about `asked`, with the pool shown to it.

    It draws from a copy of the consultation's stream: what it would draw, were it the only one.
    """
    consultation = replace(consultation, rng=copy(consultation.rng))
    if not isinstance(mentor, LanguageModel):
        return mentor.propose(consultation)
    strategy: Strategy = mentor.strategy
    if strategy.needs_pool and not asked.pool:
        return Advice(fallback="the pool is empty")
    messages = strategy.messages(asked, mentor.proposals)
    rejected: list[Rejected] = []
    why = ""
    for _ in range(mentor.attempts):
        try:
            exchange = questions.ask(mentor.client, messages, consultation.rng.getrandbits(31), mentor.cache)
        except NotRecorded as error:
            if not mentor.fallbacks:
                raise
            why = str(error)
            break
        texts, dropped = read(strategy, exchange)
        proposals, unfit = fit(texts, consultation, mentor.proposals)
        rejected += dropped + unfit
        if proposals:
            return Advice(tuple(proposals), tuple(rejected))
        why = exchange.error or "no usable proposal in the answer"
        if exchange.error and exchange.answered is None:
            break  # nobody answered: the same question would fail the same way
        messages = [*messages, *strategy.reminder(exchange.reply, mentor.proposals)]
    return Advice(rejected=tuple(rejected), fallback=why)


def who(mentor: Mentor) -> str:
    """The name of a mentor among others."""
    return str(mentor.client.model) if isinstance(mentor, LanguageModel) else type(mentor).__name__


@contextmanager
def named(i: int) -> Iterator[None]:
    """Say of a ConfigurationError that it is a fallback's: its keys do not stand under `mentor.client` then."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"mentor.fallbacks[{i}]: {error}") from None


def read(strategy: Strategy, exchange: Exchange) -> tuple[list[str], list[Rejected]]:
    """The proposals in an exchange; the last one of a truncated answer is rejected, as it is likely half a one."""
    if exchange.error:
        return [], []
    texts, rejected = strategy.read(exchange.reply)
    if texts and exchange.stop_reason in CUT_OFF:
        rejected = [*rejected, Rejected(texts[-1], f"cut off: the answer ended by {exchange.stop_reason}")]
        texts = texts[:-1]
    return texts, rejected


def fit(texts: list[str], consultation: Consultation, most: int) -> tuple[list[Proposal], list[Rejected]]:
    """At most `most` texts as prompts of m tokens that are new to the pool and distinct, and the others."""
    proposals: list[Proposal] = []
    rejected: list[Rejected] = []
    tried = {scored.prompt.tokens for scored in consultation.pool}
    proposed: set[tuple[int, ...]] = set()
    for text in texts:
        try:
            prompt, lost = consultation.space.fit(text)
        except ValueError as error:
            rejected.append(Rejected(text, str(error)))
            continue
        if prompt.tokens in tried:
            rejected.append(Rejected(text, "the same tokens as a prompt of the pool"))
        elif prompt.tokens in proposed:
            rejected.append(Rejected(text, "the same tokens as another proposal"))
        elif len(proposals) == most:
            rejected.append(Rejected(text, "more than asked for"))
        else:
            proposals.append(Proposal(prompt, lost=lost))
            proposed.add(prompt.tokens)
    return proposals, rejected
