"""A language model (or a person) as the mentor: asks, records, reads, fits."""

from dataclasses import dataclass
from typing import Any

from llm_catalyst.checks import at_least, one_of
from llm_catalyst.mentors.clients import Client
from llm_catalyst.mentors.consultation import Consultation
from llm_catalyst.mentors.strategies import Strategy
from llm_catalyst.records import Advice, Exchange, Proposal, Rejected

CUT_OFF = ("length", "max_tokens", "model_context_window_exceeded")  # stop reasons of a truncated answer


class MentorFailed(RuntimeError):  # noqa: N818 - reads as a sentence where it is caught
    """The mentor gave no usable proposal, and on_failure=stop asks to stop then."""


@dataclass(frozen=True)
class LanguageModel:
    """The `mentor` node. `client` is a Client and `strategy` a Strategy (OmegaConf takes no protocols).

    `attempts` counts the questions of one consultation: after an unusable answer it is asked again with a
    reminder. Retries of single requests are the client's.
    """

    client: Any
    strategy: Any
    proposals: int = 3
    attempts: int = 2
    on_failure: str = "fallback"

    def __post_init__(self) -> None:
        at_least("mentor.proposals", self.proposals, 1)
        at_least("mentor.attempts", self.attempts, 1)
        one_of("mentor.on_failure", self.on_failure, ("fallback", "stop"))

    def preflight(self) -> None:
        """Raise ConfigurationError where the client is bound to fail (no key, no terminal, no recorded run)."""
        self.client.preflight()

    def propose(self, consultation: Consultation) -> Advice:
        """At most `proposals` new prompts, the lines that were rejected, or why there is none.

        Raises MentorFailed instead of the latter with on_failure=stop.
        """
        client: Client = self.client
        strategy: Strategy = self.strategy
        messages = strategy.messages(consultation, self.proposals)
        rejected: list[Rejected] = []
        why = ""
        answered = iter(consultation.answered)
        for _ in range(self.attempts):
            seed, exchange = consultation.rng.getrandbits(31), next(answered, None)
            if exchange is None or exchange.messages != tuple(messages):
                exchange = client.complete(messages, consultation.stage, seed)
                consultation.record(exchange)  # before anything else: it is paid for
            texts, dropped = read(strategy, exchange)
            proposals, unfit = fit(texts, consultation, self.proposals)
            rejected += dropped + unfit
            if proposals:
                return Advice(tuple(proposals), tuple(rejected))
            why = exchange.error or "no usable proposal in the answer"
            if exchange.error and exchange.answered is None:
                break  # nobody answered: the same question would fail the same way
            messages = [*messages, *strategy.reminder(exchange.reply, self.proposals)]
        if self.on_failure == "stop":
            raise MentorFailed(
                f"the mentor failed after stage {consultation.stage}: {why}; "
                "mend it and resume the run, or set mentor.on_failure=fallback to carry on without its advice"
            )
        return Advice(rejected=tuple(rejected), fallback=why)


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
