"""The conversation with one language model: its responses, read and fitted into prompts of m tokens."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.clients.answers import THINKING_ONLY
from llm_catalyst.mentors.clients.base import Client, NoResponseError
from llm_catalyst.mentors.requests import ClientRequest, RequestRunner, has_no_response
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Response
from llm_catalyst.runs.records import Advice, LLMCall, Message, Proposal, Rejected

CUT_OFF = ("length", "max_tokens", "model_context_window_exceeded")  # stop reasons of a truncated response


@dataclass
class Conversation:
    """The requests of one model in one context, and its responses read and fitted into prompts of m tokens.

    Attributes:
        proposals: The new prompts in the responses so far.
        rejected: The lines of the responses that are no new prompts, with the reason.
        understood: Whether any response was usable.
        why: Why the last unusable response was not.
    """

    client: Client
    attempts: int
    cache: bool
    context: MentorContext
    runner: RequestRunner
    proposals: list[Proposal] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    understood: bool = False
    why: str = ""

    @cached_property
    def _tried(self) -> set[tuple[int, ...]]:
        return {entry.prompt.tokens for entry in (*self.context.pool, *self.context.scored)}

    def send(self, requests: tuple[Request, ...]) -> tuple[Response, ...]:
        """The responses to these requests: each is sent up to `attempts` times, until its response is usable.

        Responses are read in the order of the requests, whenever they came.

        Raises:
            NoResponseError: A request got no response at all; what the others brought was read before.
        """
        responses = [Response()] * len(requests)
        messages = [request.messages for request in requests]
        thought, asked_anew = set[int](), set[int]()  # requests with an answer of thinking only, and those sent again
        for attempt in range(self.attempts + 1):
            unusable = [i for i, response in enumerate(responses) if not (response.proposals or response.texts)]
            if attempt == self.attempts:  # beyond these only a request that had no space for its text, once
                unusable = [i for i in unusable if i in thought - asked_anew]
            if not unusable:
                break
            addressed = [self._address(requests[i], messages[i], i in thought) for i in unusable]
            asked_anew |= thought & {*unusable}
            calls, failure = self.runner.send(addressed, self.cache)
            for i, call in zip(unusable, calls, strict=True):
                if call:
                    responses[i] = self._read(requests[i], call)
                    if (call.error or "").startswith(THINKING_ONLY):
                        thought.add(i)  # nothing was said that a reminder could be about
                    else:
                        messages[i] = (*messages[i], *requests[i].remind(call.reply))
                    if has_no_response(call):
                        failure = failure or NoResponseError(call.error)
            if failure:
                raise failure
        return tuple(responses)

    def _address(self, request: Request, messages: tuple[Message, ...], more_space: bool) -> ClientRequest:
        client: Any = self.client
        withheld: tuple[str, ...] = ()
        # Null at the client: the model takes none, or is to be left alone.
        if request.temperature is not None and client.temperature is not None:
            client = replace(client, temperature=request.temperature)
        elif request.temperature is not None and client.paid:
            withheld = ("temperature",)
        if more_space and client.max_tokens is not None:
            client = replace(client, max_tokens=2 * client.max_tokens)
        return ClientRequest(client, messages, self.context.rng.getrandbits(31), withheld)

    def _read(self, request: Request, call: LLMCall) -> Response:
        texts, rejected = ([], []) if call.error else request.parse(call.reply)
        if request.prompts and texts and call.stop_reason in CUT_OFF:  # half of the last prompt may be missing
            rejected = [*rejected, Rejected(texts[-1], f"cut off: the answer ended by {call.stop_reason}")]
            texts = texts[:-1]
        self.rejected += rejected
        response = Response(self._fit(request, texts)) if request.prompts else Response(texts=tuple(texts))
        self.proposals += response.proposals
        if response.proposals or response.texts:
            self.understood = True
        else:
            self.why = call.error or "no usable proposal in the answer"
        return response

    def _fit(self, request: Request, texts: list[str]) -> tuple[Proposal, ...]:
        """The texts as prompts of m tokens, as many as asked for; the others, and such as were tried, are rejected."""
        proposals: list[Proposal] = []
        for text in texts:
            try:
                prompt, lost = self.context.space.fit(text)
            except ValueError as error:
                self.rejected.append(Rejected(text, str(error)))
                continue
            if prompt.tokens in self._tried and not request.repeats:
                reason = "the same tokens as a prompt that was scored, or as another proposal"
                self.rejected.append(Rejected(text, reason))
            elif len(proposals) == request.prompts:
                self.rejected.append(Rejected(text, "more than asked for"))
            else:
                proposals.append(Proposal(prompt, request.rationale, lost))
                self._tried.add(prompt.tokens)
        return tuple(proposals)


def run_dialogue(dialogue: Dialogue, send: Callable[[tuple[Request, ...]], tuple[Response, ...]]) -> Advice:
    """The advice at the end of a strategy's dialogue, whose requests go to `send`."""
    try:
        requests = next(dialogue)
        while True:
            requests = dialogue.send(send(requests))
    except StopIteration as end:
        advice: Advice = end.value
        return advice
