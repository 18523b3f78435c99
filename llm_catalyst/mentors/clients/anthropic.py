"""Messages of Anthropic's Claude models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_catalyst.checks import at_least
from llm_catalyst.mentors.clients import calls
from llm_catalyst.mentors.clients.calls import Answer
from llm_catalyst.records import Exchange, Message


@dataclass(frozen=True)
class Claude:
    """The `mentor.client` node of a Claude mentor. Fields are explained in conf/mentor/claude_sonnet.yaml.

    The SDK (2.x) takes neither a temperature nor a seed: both are recorded as not sent.
    """

    model: str
    base_url: str = "https://api.anthropic.com"
    key_variable: str = "ANTHROPIC_API_KEY"
    temperature: float | None = None
    max_tokens: int = 4000
    timeout_s: float = 120.0
    retry_s: float = 300.0

    def __post_init__(self) -> None:
        at_least("mentor.client.temperature", self.temperature, 0)
        at_least("mentor.client.max_tokens", self.max_tokens, 1)
        at_least("mentor.client.timeout_s", self.timeout_s, 0.001)
        at_least("mentor.client.retry_s", self.retry_s, 0)
        calls.check_key_variable(self.key_variable)
        calls.check_url(self.base_url)

    def preflight(self) -> None:
        """Raise ConfigurationError where the SDK or the key is missing."""
        calls.need_package("anthropic")
        calls.read_key(self.key_variable)

    def complete(self, messages: Sequence[Message], stage: int, seed: int) -> Exchange:
        """The model's answer as an exchange; what fails for good is its `error`."""
        import anthropic

        key = calls.read_key(self.key_variable)
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [vars(message) for message in messages if message.role != "system"],
            **({"system": system} if system else {}),
        }
        parameters: dict[str, Any] = {"max_tokens": self.max_tokens}

        def ask() -> Answer:
            with anthropic.Anthropic(api_key=key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0) as sdk:

                def send() -> Any:
                    return sdk.messages.create(**request, **parameters)

                return calls.attempt(anthropic, send, read, self.timeout_s, self.base_url)

        return calls.exchange(
            ask,
            messages=messages,
            stage=stage,
            model=self.model,
            parameters=parameters,
            not_sent=("seed",) if self.temperature is None else ("temperature", "seed"),
            key=key,
            retry_s=self.retry_s,
        )


def read(response: Any) -> Answer:
    """The Answer in a message. The SDK checks nothing: an HTML page arrives as a str, null as None."""
    blocks, usage = getattr(response, "content", None), getattr(response, "usage", None)
    if not isinstance(blocks, list):
        shown = " ".join(str(response).split())[:200]
        return Answer(error=f"no message came back ({shown}); check mentor.client.base_url")
    texts = [getattr(block, "text", None) for block in blocks if getattr(block, "type", None) == "text"]
    text = "".join(part for part in texts if isinstance(part, str))
    stop_reason = calls.name(response.stop_reason)
    error = None
    if stop_reason == "refusal":
        error = "the model refused"
    elif stop_reason is None:
        error = "the answer broke off"
    elif not text.strip():
        error = "the answer is empty"
        error += "; raise mentor.client.max_tokens" if stop_reason == "max_tokens" else ""
    return Answer(
        reply=text,
        answered=calls.name(response.model) or "unnamed",
        input_tokens=calls.count(getattr(usage, "input_tokens", None)),
        output_tokens=calls.count(getattr(usage, "output_tokens", None)),
        request_id=calls.name(getattr(response, "_request_id", None)) or calls.name(response.id),
        stop_reason=stop_reason,
        error=error,
    )
