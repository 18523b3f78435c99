"""What a mentor is shown, and the base of every mentor."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from llm_catalyst.mentors.catalogue import has_price
from llm_catalyst.mentors.requests import RequestRunner
from llm_catalyst.runs.records import Advice, LLMCall, Prompt, ScoredPrompt
from llm_catalyst.tasks.base import Example
from llm_catalyst.utils.validation import ConfigurationError

if TYPE_CHECKING:
    from llm_catalyst.models.soft_prompt import PromptSpace


@dataclass(frozen=True)
class TaskDescription:
    """A task in words: its name, what it asks, the names of its labels, and its training examples."""

    name: str
    text: str
    labels: tuple[str, ...]
    examples: tuple[Example, ...] = ()

    def name_answer(self, example: Example) -> str:
        """The right answer to an example: the name of its label, or its first reference."""
        return example.targets[0] if example.targets else self.labels[example.label]


@dataclass(frozen=True)
class Trial:
    """A discrete prompt's answer to one training example: the loss in nats, and a label's name or generated text."""

    loss: float
    answer: str
    right: bool


def refuse_probe(*_: Any) -> Any:
    """The default of `attempt` and `hints`: raise NotImplementedError."""
    raise NotImplementedError("this context has no model at hand")


@dataclass(frozen=True)
class MentorContext:
    """What a mentor is given when it is asked for advice after a stage.

    Attributes:
        task: The task in words.
        pool: The best discrete prompts with their dev scores, the best one last (highest loss first).
        stage: The stage that has ended, from 0.
        stages: How many stages the run has.
        space: Turns text into prompts of m tokens.
        rng: The random stream of this context alone.
        record: Stores a call of a language model on disk; must be called before the response is used. May be called
            from several threads, like `before_call`.
        answered: Calls of this stage that a run which was cut off has paid for: they are not sent again.
        before_call: Must be called before each call; raises if the run's budget is used up.
        scored: All prompts of the run that were scored under the present head, in the order of `pool`, which they hold.
        memory: What the mentor asked to be given again (`Advice.memory`).
        attempt: Tries prompts on training examples (numbers into `task.examples`); a list of trials for each prompt.
        hints: For each prompt and each of its m tokens, the vocabulary ids that the gradient would move it to.
        moves: For each row of the running prompt, the vocabulary ids that point most along its way in this stage, the
            nearest first; none where it has not moved, or has gone on meanwhile (`overlap`).
    """

    task: TaskDescription
    pool: tuple[ScoredPrompt, ...]
    stage: int
    stages: int
    space: "PromptSpace"
    rng: random.Random
    record: Callable[[LLMCall], None]
    answered: tuple[LLMCall, ...] = ()
    before_call: Callable[[], None] = lambda: None
    scored: tuple[ScoredPrompt, ...] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    moves: tuple[tuple[int, ...], ...] = ()
    attempt: Callable[[Sequence[Prompt], Sequence[int]], list[list[Trial]]] = refuse_probe
    hints: Callable[[Sequence[Prompt]], list[tuple[tuple[int, ...], ...]]] = refuse_probe

    def draw_examples(self, most: int) -> list[int]:
        """Numbers of at most `most` distinct training examples, drawn by `rng`."""
        n = len(self.task.examples)
        return self.rng.sample(range(n), min(most, n))


class Mentor(ABC):
    """Proposes restart points: a language model, a control, or a person. The base of every mentor.

    A subclass is usually a frozen dataclass whose fields are its keys in the configuration. Only `propose` must be
    defined; every other member has a default that does nothing.

    Attributes:
        proposals: How many new prompts `propose` returns at most; the dry run counts with it.
        overlap: Whether it is asked from a thread of its own while the next stage trains.
        fallbacks: The mentors that are asked in turn if this one proposes nothing.
        sample: Chooses its random stream, beside the run's seed and the stage.
        soft: Whether it proposes soft prompts of m rows (`Advice.rows`).
        interactive: Whether it asks a person at the terminal, where no live view can be drawn meanwhile.
        strategy: The `Strategy` that writes its requests; None if it asks no language model.
    """

    proposals: int = 0
    overlap: bool = False
    fallbacks: Sequence["Mentor"] = ()
    sample: int = 0
    soft: bool = False
    interactive: bool = False
    strategy: Any = None

    @abstractmethod
    def propose(self, context: MentorContext) -> Advice:
        """Proposals for the next stage, the best guess first; without any, training continues where it is."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @property
    def needs_model(self) -> bool:
        """Whether it calls `MentorContext.attempt` or `MentorContext.hints`, so that no stage may train meanwhile."""
        return False

    def preflight(self) -> None:
        """Raise ConfigurationError if it is bound to fail. Called before training; uses no network."""

    def check_reachable(self) -> Sequence[str]:
        """What a user must know before training, one sentence each: a model's shutdown, another model in its place.

        Raises ConfigurationError if a provider is not there, refuses the key or the model, or has shut the model down.
        """
        return ()

    def terms_of_use(self) -> Sequence[str]:
        """The terms of its models that a user must have read before their first use on this machine."""
        return ()

    def check_overlap(self) -> None:
        """Raise ConfigurationError if it cannot answer while the model trains (mentor.overlap=true)."""
        if self.needs_model:
            refuse_overlap(self.label)

    def unpriced_models(self) -> list[str]:
        """The models, those of fallbacks included, whose responses cost an unknown sum."""
        paid = [model.client for model in self.language_models() if model.client.paid]
        unknown = [client.model for client in paid if not has_price(client.model, client.base_url or "")]
        return [*dict.fromkeys(unknown)]

    def language_models(self) -> "Sequence[Any]":
        """The LanguageModels that it asks: itself, if it is one, and those among its fallbacks."""
        return ()

    def propose_alone(self, context: MentorContext, shown: MentorContext, requests: RequestRunner) -> Advice:
        """The advice of this mentor without its fallbacks; `Advice.fallback` says why the next one is asked.

        Args:
            context: The context; its random stream is a copy of its own.
            shown: The same with the pool that a language model is shown.
            requests: Sends the requests of all mentors of this context.
        """
        advice = self.propose(context)
        return advice if advice.proposals else replace(advice, fallback=advice.fallback or "no proposal")


def refuse_overlap(name: str) -> NoReturn:
    """Raise ConfigurationError for a mentor or strategy that uses the model, although another stage trains it."""
    raise ConfigurationError(
        f"mentor.overlap=true: {name} tries prompts on the model, or takes its gradients, while the model trains; "
        "choose a strategy that only asks (strategy=opro), set show_gradient=false where it has that, leave such "
        "a mentor out of mentor.fallbacks, or set mentor.overlap=false"
    )
