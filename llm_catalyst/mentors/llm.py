"""A language model, or a person, as the mentor."""

import itertools
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import field, replace
from random import Random
from typing import Any, Literal

from llm_catalyst.mentors import response_cache
from llm_catalyst.mentors.base import Mentor, MentorContext, refuse_overlap
from llm_catalyst.mentors.catalogue import describe_replacement
from llm_catalyst.mentors.clients.base import NoResponseError, NotRecordedError
from llm_catalyst.mentors.conversation import Conversation, run_dialogue
from llm_catalyst.mentors.requests import RequestRunner, has_no_response
from llm_catalyst.mentors.strategies.base import Strategy
from llm_catalyst.runs.records import Advice, Rejected, ScoredPrompt
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.validation import (
    ConfigurationError,
    NonNegativeInt,
    PositiveInt,
    check_choice,
    config_dataclass,
)


class MentorError(RuntimeError):
    """The mentor did not answer, or its answers were unusable, and the configuration asks to stop then."""


@config_dataclass("mentor")
class LanguageModel(Mentor):
    """A mentor that sends the requests of a strategy to a client, and fits the responses into prompts.

    Attributes:
        client: A `Client`.
        strategy: A `Strategy`.
        history: What the model and its fallbacks are shown of the pool (see `apply_history`).
        attempts: How often each request is sent: after an unusable response again, with a reminder. The client's own
            retries of a failed request do not count.
        on_failure: "stop" or "fallback", if a request gets no answer at all: the provider refuses it for good, or does
            not answer until the retries are used up. Values of fallbacks are not used, here and in on_unusable.
        on_unusable: "fallback" or "stop", if there are answers, of which none holds a proposal.
        fallbacks: Mentors to ask in turn after this one has brought no proposal.
        cache: Whether the responses come from the machine's cache if it has them.
        overlap: Whether the response is awaited while the next stage trains, and used at its end.
        sample: Which of several answers to the same trajectory: another number is another random stream of the mentor.
        replaces: A model that was shut down, in whose place the client's model is asked; the run begins by saying so.
    """

    client: Any
    strategy: Any
    history: bool | str = True  # YAML's `true`; accepted as a word, too
    attempts: PositiveInt = 2
    on_failure: Literal["stop", "fallback"] = "stop"
    on_unusable: Literal["fallback", "stop"] = "fallback"
    fallbacks: list[Any] = field(default_factory=list)
    cache: bool = False
    overlap: bool = False
    sample: NonNegativeInt = 0
    replaces: str | None = None

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

    def check_reachable(self) -> list[str]:
        """Warnings, those of fallbacks included, and that another model is asked in the place of `replaces`.

        Raises ConfigurationError if a provider is not there, refuses the key or the model, or has shut the model down.
        """
        notes = [*filter(None, [describe_replacement(self.replaces, self.client.model) if self.replaces else None])]
        notes += self.client.check_reachable() or ()
        self._check_fallbacks(lambda mentor: notes.extend(mentor.check_reachable() or ()))
        return [*dict.fromkeys(notes)]

    def terms_of_use(self) -> list[str]:
        terms = self.client.terms_of_use(), *(mentor.terms_of_use() for mentor in self.fallbacks)
        return list(dict.fromkeys(itertools.chain(*terms)))

    def check_overlap(self) -> None:
        if self.needs_model:
            refuse_overlap(type(self.strategy).__name__)
        if not self.client.background:
            raise ConfigurationError(
                f"mentor.overlap=true: {type(self.client).__name__} cannot answer while this process trains; choose a "
                "mentor behind a network (mentor=openai_small), or mentor.overlap=false"
            )

    def language_models(self) -> "Sequence[LanguageModel]":
        return [self, *(model for mentor in self.fallbacks for model in mentor.language_models())]

    def propose(self, context: MentorContext) -> Advice:
        """At most `proposals` new prompts and the lines that were rejected, or why there is no prompt.

        Raises:
            MentorError: A request got no answer and no fallback a proposal (on_failure=stop), or no answer a usable
                proposal (on_unusable=stop).
            NotRecordedError: A replay does not fit.
        """
        answered = context.answered
        if self.on_failure == "stop" and not self.fallbacks:  # what stopped a run is tried again when it is resumed
            answered = tuple(call for call in answered if not has_no_response(call))
        requests = RequestRunner(context.stage, context.record, answered, context.before_call)
        shown = apply_history(context, self.history)
        rejected: list[Rejected] = []
        reasons: list[str] = []
        failed = False
        for mentor in (self, *self.fallbacks):
            # Each draws from a copy of the stream: what it would draw if it were the only one.
            advice = mentor.propose_alone(replace(context, rng=copy(context.rng)), shown, requests)
            rejected += advice.rejected
            failed = failed or bool(advice.failure)
            # Of a consultation that was cut short, what came before is proposed only if the run does not stop.
            stops = failed and self.on_failure == "stop" and not self.fallbacks
            if not stops and (advice.proposals or not advice.fallback):
                instead = "; ".join([*reasons, f"{mentor.label} proposes instead"]) if reasons else ""
                return replace(advice, rejected=tuple(rejected), instead=instead)
            reasons.append(f"{mentor.label}: " * bool(self.fallbacks) + (advice.failure or advice.fallback or ""))
        why = "; ".join(reasons)
        if (self.on_failure if failed else self.on_unusable) == "stop":
            raise MentorError(explain_stop(context.stage, why, failed))
        return Advice(rejected=tuple(rejected), fallback=why)

    def propose_alone(self, context: MentorContext, shown: MentorContext, requests: RequestRunner) -> Advice:
        if self.strategy.needs_pool and not shown.pool:
            return Advice(fallback="the pool is empty")
        conversation = Conversation(self.client, self.attempts, self.cache, context, requests)
        broken = ""
        try:
            strategy: Strategy = self.strategy.in_form(self.client.has_roles())
            rng = Random(derive_seed(copy(context.rng).getrandbits(63), "strategy"))
            advice = run_dialogue(strategy.propose(replace(shown, rng=rng)), conversation.send)
        except NoResponseError as failure:  # the responses until then are paid for, and used
            if isinstance(failure, NotRecordedError) and not self.fallbacks:
                raise
            proposals = tuple(conversation.proposals[: self.proposals])
            advice = Advice(proposals, fallback=None if proposals else str(failure))
            broken = "" if self.client.replays else str(failure)  # a replay falls back where the recorded run did
        why = advice.fallback
        if not advice.proposals and not conversation.understood:
            why = why or conversation.why or "nothing was asked"
        rejected = (*conversation.rejected, *advice.rejected)
        return replace(advice, rejected=rejected, fallback=why, failure=broken)

    def _check_fallbacks(self, check: Callable[[Mentor], None]) -> None:
        for i, mentor in enumerate(self.fallbacks):
            try:
                check(mentor)
            except ConfigurationError as error:  # its keys do not stand under `mentor.client`
                raise ConfigurationError(f"mentor.fallbacks[{i}]: {error}") from None


def explain_stop(stage: int, why: str, failed: bool) -> str:
    """The message of a run that stops after `stage` (from 0), with the ways to continue it."""
    why = why.rstrip(".")
    if not failed:
        return (
            f"the mentor gave no usable answer after stage {stage + 1}: {why}; resume the run, or set "
            "mentor.on_unusable=fallback to continue without its advice"
        )
    return (
        f"the mentor did not answer after stage {stage + 1}: {why}; remove the cause and resume the run (catalyst "
        "resume DIR), or resume it with another model (mentor.client.model=NAME), at another address "
        "(mentor.client.base_url=URL), or with other mentors to ask instead ('mentor.fallbacks=[evolution]'); "
        "mentor.on_failure=fallback continues without advice"
    )


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
