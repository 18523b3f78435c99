"""One model's side of a consultation: its answers, read and fitted into prompts of m tokens."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.clients.base import NotRecordedError
from llm_catalyst.mentors.requests import ClientRequest, RequestRunner, has_no_response
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Response
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Advice, LLMCall, Message, Proposal, Rejected

CUT_OFF = ("length", "max_tokens", "model_context_window_exceeded")  # stop reasons of a truncated answer


class NoResponseError(Exception):
    """A question was not answered at all: the next one would not be either."""


class Conversation:
    """One model's questions in one consultation; `alone` says that no other mentor could stand in for it.

    `proposals` are the new prompts that the answers brought so far; `understood` says whether any answer was usable.
    """

    def __init__(
        self,
        client: Any,
        attempts: int,
        cache: bool,
        alone: bool,
        context: MentorContext,
        questions: RequestRunner,
    ) -> None:
        self._client, self._attempts, self._cache, self._alone = client, attempts, cache, alone
        self._context, self._questions = context, questions
        self._tried = {entry.prompt.tokens for entry in (*context.pool, *context.scored)}
        self.proposals: list[Proposal] = []
        self.rejected: list[Rejected] = []
        self.understood = False
        self.why = ""

    def ask(self, questions: tuple[Request, ...]) -> tuple[Response, ...]:
        """What the answers to these questions bring: all are asked, then those again of which nothing was usable.

        Each is asked up to `attempts` times. Answers are read in the order of the questions, whenever they came. Raises
        NobodyAnswered where a question was not answered at all, after what the others brought was read, and NotRecorded
        where a replay does not fit and no other mentor could stand in.
        """
        replies = [Response()] * len(questions)
        conversations = [question.messages for question in questions]
        for _ in range(self._attempts):
            unanswered = [i for i, reply in enumerate(replies) if not (reply.proposals or reply.texts)]
            if not unanswered:
                break
            requests = [self._request(questions[i], conversations[i]) for i in unanswered]
            answers = self._questions.ask(requests, self._cache)
            for i, answer in zip(unanswered, answers, strict=True):
                if isinstance(answer, LLMCall):
                    replies[i] = self._heard(questions[i], answer)
                    conversations[i] = (*conversations[i], *questions[i].remind(answer.reply))
            self._refuse_silence(answers)
        return tuple(replies)

    def _request(self, question: Request, messages: tuple[Message, ...]) -> ClientRequest:
        client = self._client
        # Null at the client: the model takes none, or is to be left alone.
        if question.temperature is not None and getattr(client, "temperature", None) is not None:
            client = replace(client, temperature=question.temperature)
        return ClientRequest(client, messages, self._context.rng.getrandbits(31))

    def _heard(self, question: Request, exchange: LLMCall) -> Response:
        texts, dropped = read_response(question, exchange)
        self.rejected += dropped
        reply = self._taken(texts, question) if question.prompts else Response(texts=tuple(texts))
        if reply.proposals or reply.texts:
            self.understood = True
        else:
            self.why = exchange.error or "no usable proposal in the answer"
        return reply

    def _refuse_silence(self, answers: Sequence[LLMCall | NotRecordedError | None]) -> None:
        for answer in answers:
            if isinstance(answer, NotRecordedError):
                if self._alone:
                    raise answer
                raise NoResponseError(str(answer))
            if answer and has_no_response(answer):
                raise NoResponseError(answer.error)

    def _taken(self, texts: list[str], question: Request) -> Response:
        proposals, unfit = fit_prompts(texts, self._context.space, self._tried, question.prompts)
        self.rejected += unfit
        proposals = [replace(proposal, rationale=question.rationale) for proposal in proposals]
        self.proposals += proposals
        return Response(tuple(proposals))


def run_dialogue(dialogue: Dialogue, ask: Callable[[tuple[Request, ...]], tuple[Response, ...]]) -> Advice:
    """The advice at the end of a strategy's dialogue, its questions answered by `ask`."""
    try:
        questions = next(dialogue)
        while True:
            questions = dialogue.send(ask(questions))
    except StopIteration as end:
        advice: Advice = end.value
        return advice


def read_response(question: Request, exchange: LLMCall) -> tuple[list[str], list[Rejected]]:
    """The texts in an exchange; the last prompt of a truncated answer is rejected, as it is likely half a one."""
    if exchange.error:
        return [], []
    texts, rejected = question.parse(exchange.reply)
    if question.prompts and texts and exchange.stop_reason in CUT_OFF:
        rejected = [*rejected, Rejected(texts[-1], f"cut off: the answer ended by {exchange.stop_reason}")]
        texts = texts[:-1]
    return texts, rejected


def fit_prompts(
    texts: list[str], space: PromptSpace, tried: set[tuple[int, ...]], most: int
) -> tuple[list[Proposal], list[Rejected]]:
    """At most `most` texts as prompts of m tokens that are not in `tried`, to which they are added, and the others."""
    proposals: list[Proposal] = []
    rejected: list[Rejected] = []
    for text in texts:
        try:
            prompt, lost = space.fit(text)
        except ValueError as error:
            rejected.append(Rejected(text, str(error)))
            continue
        if prompt.tokens in tried:
            rejected.append(Rejected(text, "the same tokens as a prompt that was scored, or as another proposal"))
        elif len(proposals) == most:
            rejected.append(Rejected(text, "more than asked for"))
        else:
            proposals.append(Proposal(prompt, lost=lost))
            tried.add(prompt.tokens)
    return proposals, rejected
