"""Strategies: how a mentor is asked. Pure text in, pure text out; each is the `strategy` configuration node."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from llm_catalyst.mentors.consultation import Consultation
from llm_catalyst.records import Advice, Message, Proposal, Rejected


@dataclass(frozen=True)
class Question:
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
class Reply:
    """What an answer brought: new prompts, or the texts that were read where no prompts were asked for.

    Both are empty where no attempt brought anything usable.
    """

    proposals: tuple[Proposal, ...] = ()
    texts: tuple[str, ...] = ()


# Asks one question after the other, and ends with the advice.
Dialogue = Generator[Question, Reply, Advice]


class Strategy(Protocol):
    """How a language model is asked for `proposals` new prompts.

    `needs_pool` says that there is nothing to ask about where the pool is empty: `propose` is not called then.
    """

    needs_pool: ClassVar[bool]

    @property
    def proposals(self) -> int:
        """How many new prompts one consultation is to bring."""
        ...

    def propose(self, consultation: Consultation) -> Dialogue:
        """The questions of one consultation, each with the replies before it in mind; at last the advice.

        A function of the consultation and the replies alone: the same ones bring the same questions, so that a run
        that was cut off within a consultation goes the same way again. It neither asks nor writes anything itself.
        """
        ...


def asked_alike(question: Question, times: int) -> Dialogue:
    """The same question so many times, all of whose prompts are proposed: sampling makes the answers differ."""
    proposals: list[Proposal] = []
    for _ in range(times):
        reply = yield question
        proposals += reply.proposals
    return Advice(tuple(proposals))
