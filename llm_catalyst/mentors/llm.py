"""A language model (or a person) as the mentor: asks, records, reads, fits."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from llm_catalyst.mentors import response_cache
from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.mentors.clients.base import Client
from llm_catalyst.mentors.conversation import Conversation, NoResponseError, run_dialogue
from llm_catalyst.mentors.pricing import load_prices
from llm_catalyst.mentors.requests import RequestRunner
from llm_catalyst.mentors.strategies.base import Strategy
from llm_catalyst.runs.records import Advice, Rejected, ScoredPrompt
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.validation import ConfigurationError, check_at_least, check_choice


class MentorError(RuntimeError):
    """The mentor gave no usable proposal, and on_failure=stop asks to stop then."""


@dataclass(frozen=True)
class LanguageModel:
    """The `mentor` node. `client` is a Client and `strategy` a Strategy (OmegaConf takes no protocols).

    `attempts` counts how often each question of the strategy is asked: after an unusable answer again, with a
    reminder. Retries of single requests are the client's. `fallbacks` are mentors to consult in turn when that
    has brought no proposal; `on_failure` is for when they bring none either (a fallback's own does not count).
    `history` says what the model, and each model that stands in for it, is shown of the pool (see `shown`).
    With `overlap` its answer is awaited while the next stage trains, and used at the end of that.
    """

    client: Any
    strategy: Any
    history: bool | str = True  # YAML's `true`; as a word it is accepted, too
    attempts: int = 2
    on_failure: str = "fallback"
    fallbacks: list[Any] = field(default_factory=list)
    cache: bool = False
    overlap: bool = False

    def __post_init__(self) -> None:
        check_choice(
            "mentor.history", "true" if self.history is True else str(self.history), ("true", "shuffled", "absent")
        )
        for model in (self, *(mentor for _, mentor in self._models())):
            if self.history == "absent" and model.strategy.needs_pool:
                raise ConfigurationError(
                    f"mentor.history=absent leaves strategy {type(model.strategy).__name__} nothing to ask about; "
                    "choose another strategy (strategy=paper), or mentor.history=shuffled"
                )
        check_at_least("mentor.attempts", self.attempts, 1)
        check_choice("mentor.on_failure", self.on_failure, ("fallback", "stop"))
        if any(getattr(mentor, "fallbacks", None) for mentor in self.fallbacks):
            raise ConfigurationError("a mentor in mentor.fallbacks has fallbacks of its own; name them all in one list")
        if self.overlap:
            for mentor in (self, *self.fallbacks):
                refuse_overlap(mentor)

    @property
    def needs_model(self) -> bool:
        """Whether its strategy tries prompts on the model while it asks."""
        return bool(self.strategy.needs_model)

    @property
    def proposals(self) -> int:
        """How many new prompts a consultation is to bring."""
        return int(self.strategy.proposals)

    def preflight(self) -> None:
        """Raise ConfigurationError where it is bound to fail: no key, no terminal, no recorded run, no place to write.

        The same goes for its fallbacks. Nothing is asked over a network.
        """
        self.client.preflight()
        if self.cache:
            response_cache.prepare_cache()
        for i, mentor in self._models():
            with prefix_fallback_errors(i):
                mentor.preflight()

    def reach(self) -> None:
        """Raise ConfigurationError where a provider, a fallback's included, is not there or refuses key or model."""
        self.client.reach()
        for i, mentor in self._models():
            with prefix_fallback_errors(i):
                mentor.reach()

    def unpriced(self) -> list[str]:
        """The models, those of fallbacks included, whose answers cost a sum that is not known."""
        clients: list[Client] = [self.client, *(mentor.client for _, mentor in self._models())]
        return [client.model for client in clients if client.paid and client.model not in load_prices()]

    def propose(self, context: MentorContext) -> Advice:
        """At most `proposals` new prompts, the lines that were rejected, or why there is none.

        Raises MentorFailed instead of the latter with on_failure=stop, and NotRecorded where a replay does not fit.
        """
        questions, asked = RequestRunner(context), apply_history(context, self.history)
        rejected: list[Rejected] = []
        reasons: list[str] = []
        for mentor in (self, *self.fallbacks):
            advice = consult_mentor(mentor, context, asked, questions)
            rejected += advice.rejected
            if advice.proposals or (isinstance(mentor, LanguageModel) and not advice.fallback):
                return replace(advice, rejected=tuple(rejected))
            reasons.append(f"{name_mentor(mentor)}: " * bool(self.fallbacks) + (advice.fallback or "no proposal"))
        why = "; ".join(reasons)
        if self.on_failure == "stop":
            raise MentorError(
                f"the mentor failed after stage {context.stage}: {why}; "
                "mend it and resume the run, or set mentor.on_failure=fallback to carry on without its advice"
            )
        return Advice(rejected=tuple(rejected), fallback=why)

    def _models(self) -> list[tuple[int, "LanguageModel"]]:
        return [(i, mentor) for i, mentor in enumerate(self.fallbacks) if isinstance(mentor, LanguageModel)]


def refuse_overlap(mentor: Any) -> None:
    """Raise ConfigurationError where a mentor, or one that stands in for it, cannot answer while the model trains."""
    if getattr(mentor, "needs_model", False):
        name = type(mentor.strategy if isinstance(mentor, LanguageModel) else mentor).__name__
        raise ConfigurationError(
            f"mentor.overlap=true: {name} tries prompts on the model, or takes its gradients, while the model trains; "
            "choose a strategy that only asks (strategy=opro), set show_gradient=false where it has that, leave such "
            "a mentor out of mentor.fallbacks, or set mentor.overlap=false"
        )
    if isinstance(mentor, LanguageModel) and not mentor.client.background:
        raise ConfigurationError(
            f"mentor.overlap=true: {type(mentor.client).__name__} cannot answer while this process trains; choose a "
            "mentor behind a network (mentor=gpt4o_mini), or mentor.overlap=false"
        )


def apply_history(context: MentorContext, history: bool | str) -> MentorContext:
    """The consultation with the pool that a model is shown: does it use the trajectory?

    true: the pool as it is. shuffled: the same prompts and scores, but each score at a prompt drawn at random, and the
    list in the order of these scores, so that the order tells no truth either. absent: no prompt at all. The draws come
    from a stream beside that of the consultation, which gives the seeds of requests.
    """
    if history == "absent":
        return replace(context, pool=(), scored=())
    if history == "shuffled":
        rng = Random(derive_seed(copy(context.rng).getrandbits(63), "history"))
        pool, scored = (shuffle_scores(entries, rng) for entries in (context.pool, context.scored))
        return replace(context, pool=pool, scored=scored)
    return context


def shuffle_scores(entries: tuple[ScoredPrompt, ...], rng: Random) -> tuple[ScoredPrompt, ...]:
    """The same prompts in a drawn order, under the scores in the order that they had."""
    mixed = zip(rng.sample(entries, len(entries)), entries, strict=True)
    return tuple(replace(entry, score=other.score) for entry, other in mixed)


def consult_mentor(mentor: Mentor, context: MentorContext, asked: MentorContext, questions: RequestRunner) -> Advice:
    """The advice of one mentor alone, without its fallbacks. A model is asked about `asked`, with the pool shown to it.

    It draws from a copy of the consultation's stream: what it would draw, were it the only one.
    """
    context = replace(context, rng=copy(context.rng))
    if not isinstance(mentor, LanguageModel):
        return mentor.propose(context)
    strategy: Strategy = mentor.strategy
    if strategy.needs_pool and not asked.pool:
        return Advice(fallback="the pool is empty")
    alone = not mentor.fallbacks
    conversation = Conversation(mentor.client, mentor.attempts, mentor.cache, alone, context, questions)
    try:
        rng = Random(derive_seed(copy(context.rng).getrandbits(63), "strategy"))
        advice = run_dialogue(strategy.propose(replace(asked, rng=rng)), conversation.ask)
    except NoResponseError as failure:  # what was paid for until then is used
        advice = Advice(
            tuple(conversation.proposals[: mentor.proposals]), fallback=None if conversation.proposals else str(failure)
        )
    failed = not advice.proposals and not conversation.understood
    why = advice.fallback or (conversation.why or "nothing was asked" if failed else None)
    return replace(advice, rejected=(*conversation.rejected, *advice.rejected), fallback=why)


def name_mentor(mentor: Mentor) -> str:
    """The name of a mentor among others."""
    return str(mentor.client.model) if isinstance(mentor, LanguageModel) else type(mentor).__name__


@contextmanager
def prefix_fallback_errors(i: int) -> Iterator[None]:
    """Say of a ConfigurationError that it is a fallback's: its keys do not stand under `mentor.client` then."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"mentor.fallbacks[{i}]: {error}") from None
