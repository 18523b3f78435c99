"""A language model, or a person, as the mentor."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import field, replace
from random import Random
from typing import Any, Literal

from llm_catalyst.mentors import response_cache
from llm_catalyst.mentors.base import Mentor, MentorContext, refuse_overlap
from llm_catalyst.mentors.clients.base import NoResponseError, NotRecordedError
from llm_catalyst.mentors.conversation import Conversation, run_dialogue
from llm_catalyst.mentors.requests import RequestRunner
from llm_catalyst.mentors.strategies.base import Strategy
from llm_catalyst.runs.records import Advice, Rejected, ScoredPrompt
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.validation import ConfigurationError, PositiveInt, check_choice, config_dataclass


class MentorError(RuntimeError):
    """The mentor gave no usable proposal, and on_failure=stop asks to stop then."""


@config_dataclass("mentor")
class LanguageModel(Mentor):
    """A mentor that sends the requests of a strategy to a client, and fits the responses into prompts.

    Attributes:
        client: A `Client`.
        strategy: A `Strategy`.
        history: What the model and its fallbacks are shown of the pool (see `apply_history`).
        attempts: How often each request is sent: after an unusable response again, with a reminder. The client's own
            retries of a failed request do not count.
        on_failure: "fallback" or "stop", if no mentor of this one and its fallbacks has a proposal; a fallback's own
            value is not used.
        fallbacks: Mentors to ask in turn after this one has brought no proposal.
        cache: Whether the responses come from the machine's cache if it has them.
        overlap: Whether the response is awaited while the next stage trains, and used at its end.
    """

    client: Any
    strategy: Any
    history: bool | str = True  # YAML's `true`; accepted as a word, too
    attempts: PositiveInt = 2
    on_failure: Literal["fallback", "stop"] = "fallback"
    fallbacks: list[Any] = field(default_factory=list)
    cache: bool = False
    overlap: bool = False

    def __post_init__(self) -> None:
        history = "true" if self.history is True else str(self.history)
        check_choice("mentor.history", history, ("true", "shuffled", "absent"))
        for model in self.language_models():
            if self.history == "absent" and model.strategy.needs_pool:
                raise ConfigurationError(
                    f"mentor.history=absent leaves strategy {type(model.strategy).__name__} nothing to ask about; "
                    "choose another strategy (strategy=paper), or mentor.history=shuffled"
                )
        if any(mentor.fallbacks for mentor in self.fallbacks):
            raise ConfigurationError("a mentor in mentor.fallbacks has fallbacks of its own; name them all in one list")
        if self.overlap:
            for mentor in (self, *self.fallbacks):
                mentor.check_overlap()

    @property
    def label(self) -> str:
        return str(self.client.model)

    @property
    def needs_model(self) -> bool:
        return bool(self.strategy.needs_model)

    @property
    def proposals(self) -> int:  # type: ignore[override]
        return int(self.strategy.proposals)

    @property
    def interactive(self) -> bool:  # type: ignore[override]
        return bool(self.client.interactive)

    def preflight(self) -> None:
        """Raise ConfigurationError without a key, terminal, recorded run or place to write, fallbacks included."""
        self.client.preflight()
        if self.cache:
            response_cache.prepare_cache()
        self._check_fallbacks(lambda mentor: mentor.preflight())

    def check_reachable(self) -> None:
        """Raise ConfigurationError if a provider, a fallback's included, is not there or refuses key or model."""
        self.client.check_reachable()
        self._check_fallbacks(lambda mentor: mentor.check_reachable())

    def check_overlap(self) -> None:
        if self.needs_model:
            refuse_overlap(type(self.strategy).__name__)
        if not self.client.background:
            raise ConfigurationError(
                f"mentor.overlap=true: {type(self.client).__name__} cannot answer while this process trains; choose a "
                "mentor behind a network (mentor=gpt4o_mini), or mentor.overlap=false"
            )

    def language_models(self) -> "Sequence[LanguageModel]":
        return [self, *(model for mentor in self.fallbacks for model in mentor.language_models())]

    def propose(self, context: MentorContext) -> Advice:
        """At most `proposals` new prompts and the lines that were rejected, or why there is no prompt.

        Raises:
            MentorError: There is no prompt, with on_failure=stop.
            NotRecordedError: A replay does not fit.
        """
        requests = RequestRunner(context.stage, context.record, context.answered, context.before_call)
        shown = apply_history(context, self.history)
        rejected: list[Rejected] = []
        reasons: list[str] = []
        for mentor in (self, *self.fallbacks):
            # Each draws from a copy of the stream: what it would draw if it were the only one.
            advice = mentor.propose_alone(replace(context, rng=copy(context.rng)), shown, requests)
            rejected += advice.rejected
            if advice.proposals or not advice.fallback:
                return replace(advice, rejected=tuple(rejected))
            reasons.append(f"{mentor.label}: " * bool(self.fallbacks) + advice.fallback)
        why = "; ".join(reasons)
        if self.on_failure == "stop":
            raise MentorError(
                f"the mentor failed after stage {context.stage}: {why}; "
                "remove the cause and resume the run, or set mentor.on_failure=fallback to continue without its advice"
            )
        return Advice(rejected=tuple(rejected), fallback=why)

    def propose_alone(self, context: MentorContext, shown: MentorContext, requests: RequestRunner) -> Advice:
        strategy: Strategy = self.strategy
        if strategy.needs_pool and not shown.pool:
            return Advice(fallback="the pool is empty")
        conversation = Conversation(self.client, self.attempts, self.cache, context, requests)
        try:
            rng = Random(derive_seed(copy(context.rng).getrandbits(63), "strategy"))
            advice = run_dialogue(strategy.propose(replace(shown, rng=rng)), conversation.send)
        except NoResponseError as failure:  # the responses until then are paid for, and used
            if isinstance(failure, NotRecordedError) and not self.fallbacks:
                raise
            proposals = tuple(conversation.proposals[: self.proposals])
            advice = Advice(proposals, fallback=None if proposals else str(failure))
        why = advice.fallback
        if not advice.proposals and not conversation.understood:
            why = why or conversation.why or "nothing was asked"
        return replace(advice, rejected=(*conversation.rejected, *advice.rejected), fallback=why)

    def _check_fallbacks(self, check: Callable[[Mentor], None]) -> None:
        for i, mentor in enumerate(self.fallbacks):
            try:
                check(mentor)
            except ConfigurationError as error:  # its keys do not stand under `mentor.client`
                raise ConfigurationError(f"mentor.fallbacks[{i}]: {error}") from None


def apply_history(context: MentorContext, history: bool | str) -> MentorContext:
    """The context with the pool that a language model is shown, to test whether it uses the trajectory.

    true: the pool as it is. shuffled: the same prompts and scores, but each score beside a prompt drawn at random, and
    the list in the order of these scores, so that the order says nothing either. absent: no prompt at all. The draws
    come from a stream beside the context's own, which gives the seeds of requests.
    """
    if history == "absent":
        return replace(context, pool=(), scored=())
    if history == "shuffled":
        rng = Random(derive_seed(copy(context.rng).getrandbits(63), "history"))
        pool, scored = (shuffle_scores(entries, rng) for entries in (context.pool, context.scored))
        return replace(context, pool=pool, scored=scored)
    return context


def shuffle_scores(entries: tuple[ScoredPrompt, ...], rng: Random) -> tuple[ScoredPrompt, ...]:
    """The same prompts in a drawn order, with the scores in their old order."""
    mixed = zip(rng.sample(entries, len(entries)), entries, strict=True)
    return tuple(replace(entry, score=other.score) for entry, other in mixed)
