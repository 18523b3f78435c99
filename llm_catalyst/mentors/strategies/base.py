"""Strategies: how a language model is asked for prompts. Text in, text out; each is one choice of `strategy`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge
from typing_extensions import Self

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import ParsedTexts, parse_proposals
from llm_catalyst.runs.records import Advice, Message, Proposal
from llm_catalyst.utils.validation import config_dataclass

if TYPE_CHECKING:
    from llm_catalyst.models.soft_prompt import PromptSpace

LONGEST_ECHO = 2000  # characters of an unusable response that are sent back to the model


@dataclass(frozen=True)
class Request:
    """One request to a language model, and how its response is read.

    Attributes:
        messages: The conversation that is sent.
        prompts: How many new prompts are taken from the response at most; 0 if its texts are for the strategy itself.
        reminder: What the model is asked for after an unusable response; empty: the same messages are sent again.
        parse: Returns the texts in a response, and the lines that are none with the reason.
        temperature: Replaces the client's own, if it has one.
        rationale: Where the prompts in the response come from, for the record.
        repeats: Whether a prompt that was tried before is taken, too.
    """

    messages: tuple[Message, ...]
    prompts: int
    reminder: str = ""
    parse: Callable[[str], ParsedTexts] = parse_proposals
    temperature: float | None = None
    rationale: str = ""
    repeats: bool = False

    def remind(self, response: str) -> tuple[Message, ...]:
        """The messages to append after an unusable response: its first characters, and the reminder."""
        if not self.reminder:
            return ()
        echo = response.strip()[:LONGEST_ECHO] or "(no answer)"  # providers refuse an empty message
        return Message("assistant", echo), Message("user", self.reminder)


@dataclass(frozen=True)
class Response:
    """The new prompts in the response to a request, or its texts if no prompts were asked for.

    Both are empty if no attempt gave anything usable.
    """

    proposals: tuple[Proposal, ...] = ()
    texts: tuple[str, ...] = ()


# Yields requests that do not depend on each other, is sent their responses in the same order, and returns the advice.
Dialogue = Generator[tuple[Request, ...], tuple[Response, ...], Advice]


@config_dataclass("strategy")
class Strategy(ABC):
    """How a language model is asked for new prompts: the base of every strategy.

    A subclass is a `config_dataclass("strategy")`. It declares `proposals` (a field with a default, or a property) and
    `propose`, and, where it has them, the fields `temperature` and `show_gradient`.

    Attributes:
        form: "chat" sends a system and a user message, "plain" one text, "list" one that ends in the number of the
            next entry of a list, which a model that only continues texts can do, too; "auto" is "chat" where the client
            knows roles, and else "list".
        words: A prompt must have fewer words; the requests say so. None: as many as m tokens hold.
        needs_pool: Whether there is nothing to ask about while the pool is empty: `propose` is not called then.
    """

    needs_pool: ClassVar[bool] = False

    form: Literal["auto", "chat", "plain", "list"] = "auto"
    words: Annotated[int, Ge(2)] | None = None

    @property
    @abstractmethod
    def proposals(self) -> int:
        """How many new prompts one consultation asks for."""

    def limits(self, space: "PromptSpace") -> tuple[int, int]:
        """The number of words that a prompt must stay below, and the tokens m that are used of it.

        Without `words` the tokens decide: at most 8 words, as in the paper, or where that is more three words for four
        tokens; never more words than tokens.
        """
        m = space.length
        return self.words or 1 + min(m, max(8, 3 * m // 4)), m

    @property
    def temperature(self) -> float | None:
        """The temperature of its requests; None: the client's own."""
        return None

    @property
    def show_gradient(self) -> bool:
        """Whether its requests show for each token of a prompt where the gradient would move it."""
        return False

    @property
    def needs_model(self) -> bool:
        """Whether it calls `MentorContext.attempt` or `MentorContext.hints`, so that no stage may train meanwhile."""
        return self.show_gradient

    @abstractmethod
    def propose(self, context: MentorContext) -> Dialogue:
        """Yield the requests of one consultation, later ones in view of earlier responses, and return the advice.

        A function of the context and the responses alone: a run that was cut off within a consultation sends the same
        requests again. It neither sends nor writes anything itself.
        """

    def in_form(self, has_roles: bool) -> Self:
        """The strategy with the form that "auto" means for a client that knows roles, or does not."""
        return replace(self, form="chat" if has_roles else "list") if self.form == "auto" else self

    def make_request(
        self,
        role: str,
        paragraphs: Sequence[str],
        lead: str,
        reminder: str,
        prompts: int = 1,
        rationale: str = "",
        parse: Callable[[str], ParsedTexts] = parse_proposals,
    ) -> Request:
        """A request of this form and temperature.

        Args:
            role: The system message, or the first paragraph of the plain form.
            paragraphs: The user message.
            lead: The last line of the plain form, which the response continues.
            reminder: Sent after an unusable response; a plain text is sent again as it is.
            prompts, rationale, parse: As in `Request`.
        """
        messages = [Message("system", role), Message("user", "\n\n".join(paragraphs))]
        if self.form == "list":
            return self.make_list("\n\n".join([role, *paragraphs, lead]), (), prompts, rationale, parse)
        if self.form == "plain":
            messages, reminder = [Message("user", "\n\n".join([role, *paragraphs, lead]) + "\n")], ""
        return Request(tuple(messages), prompts, reminder, parse, self.temperature, rationale)

    def make_list(
        self,
        heading: str,
        entries: Sequence[str],
        prompts: int,
        rationale: str = "",
        parse: Callable[[str], ParsedTexts] = parse_proposals,
    ) -> Request:
        """A request whose text is a numbered list of `entries` below a heading; the response goes on with the next."""
        lines = [heading, *(f"{i}. {entry}" for i, entry in enumerate(entries, start=1)), f"{len(entries) + 1}."]
        messages = (Message("user", "\n".join(lines)),)
        return Request(messages, prompts, "", lambda reply: parse(lines[-1] + reply), self.temperature, rationale)


def repeat_request(request: Request, times: int) -> Dialogue:
    """Send the same request several times and propose all prompts: sampling makes the responses differ."""
    return Advice(collect_proposals((yield (request,) * times)))


def collect_proposals(responses: Sequence[Response]) -> tuple[Proposal, ...]:
    """The prompts of all responses, in their order."""
    return tuple(proposal for response in responses for proposal in response.proposals)
