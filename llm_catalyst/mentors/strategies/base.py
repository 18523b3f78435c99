"""Strategies: how a mentor is asked. Pure text in, pure text out; each is the `strategy` configuration node."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.runs.records import Advice, Message, Proposal, Rejected


@dataclass(frozen=True)
class Request:
    """One request to a language model, and how its answer is read.

    `read` gives the texts in an answer and the lines that are none. They are prompts, of which at most `prompts` are
    taken: those that are new to the run; with `prompts` = 0 they are words for the strategy itself.
    `remind` gives what to append to the conversation after an answer in which nothing usable was found.
    `temperature` stands for the client's own, where the model takes one. `rationale` says of the prompts in the answer
    where they come from.
    """

    messages: tuple[Message, ...]
    read: Callable[[str], tuple[list[str], list[Rejected]]]
    remind: Callable[[str], list[Message]]
    prompts: int
    temperature: float | None = None
    rationale: str = ""


@dataclass(frozen=True)
class Response:
    """What an answer brought: new prompts, or the texts that were read where no prompts were asked for.

    Both are empty where no attempt brought anything usable.
    """

    proposals: tuple[Proposal, ...] = ()
    texts: tuple[str, ...] = ()


# Asks questions whose answers do not hang on each other, is sent their replies in the same order, asks others, and ends
# with the advice.
Dialogue = Generator[tuple[Request, ...], tuple[Response, ...], Advice]


class Strategy(Protocol):
    """How a language model is asked for `proposals` new prompts.

    `needs_pool` says that there is nothing to ask about where the pool is empty: `propose` is not called then.
    """

    needs_pool: ClassVar[bool]

    @property
    def needs_model(self) -> bool:
        """Whether it tries prompts or takes gradients while it asks (`Consultation.attempt` and `hints`)."""
        ...

    @property
    def proposals(self) -> int:
        """How many new prompts one consultation is to bring."""
        ...

    def propose(self, context: MentorContext) -> Dialogue:
        """The questions of one consultation, those that follow with the replies before them in mind; then the advice.

        A function of the consultation and the replies alone: the same ones bring the same questions, so that a run
        that was cut off within a consultation goes the same way again. It neither asks nor writes anything itself.
        """
        ...


def repeat_request(question: Request, times: int) -> Dialogue:
    """The same question so many times, all of whose prompts are proposed: sampling makes the answers differ."""
    replies = yield (question,) * times
    return Advice(collect_proposals(replies))


def collect_proposals(replies: Sequence[Response]) -> tuple[Proposal, ...]:
    """The prompts of all these replies, in their order."""
    return tuple(proposal for reply in replies for proposal in reply.proposals)
