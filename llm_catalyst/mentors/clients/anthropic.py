"""Messages of Anthropic's Claude models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llm_catalyst.mentors.clients import http
from llm_catalyst.mentors.clients.http import Answer
from llm_catalyst.mentors.clients.rate_limit import limit_rate
from llm_catalyst.runs.records import LLMCall, Message


@dataclass(frozen=True)
class Claude:
    """The `mentor.client` node of a Claude mentor. Fields are explained in conf/mentor/claude_sonnet.yaml.

    The SDK (2.x) takes neither a temperature nor a seed: both are recorded as not sent.
    """

    paid: ClassVar[bool] = True
    background: ClassVar[bool] = True

    model: str
    base_url: str = "https://api.anthropic.com"
    key_variable: str = "ANTHROPIC_API_KEY"
    temperature: float | None = None
    max_tokens: int = 4000
    timeout_s: float = 120.0
    retry_s: float = 300.0
    at_once: int = 4
    per_minute: int | None = None
    check_model: bool = True

    def __post_init__(self) -> None:
        http.check_settings(
            self.temperature, self.max_tokens, self.timeout_s, self.retry_s, self.key_variable, self.base_url
        )
        http.check_rate(self.at_once, self.per_minute)

    def preflight(self) -> None:
        """Raise ConfigurationError where the SDK or the key is missing."""
        http.check_package_and_key("anthropic", self.key_variable)

    def reach(self) -> None:
        """Raise ConfigurationError where the server is not there, refuses the key or does not know the model."""
        import anthropic

        if self.check_model:
            key = http.read_key(self.key_variable)
            http.check_server(anthropic, anthropic.Anthropic, key, self.base_url, self.model)

    def parameters(self, seed: int) -> dict[str, Any]:
        """The sampling settings that go with each request."""
        return {"max_tokens": self.max_tokens}

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """The model's answer as an exchange; what fails for good is its `error`."""
        import anthropic

        key = http.read_key(self.key_variable)
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [vars(message) for message in messages if message.role != "system"],
            **({"system": system} if system else {}),
        }
        parameters = self.parameters(seed)

        def send(connection: Any) -> Any:
            return connection.messages.create(**request, **parameters)

        def ask() -> Answer:
            return http.send_request(
                anthropic, anthropic.Anthropic, key, self.base_url, self.timeout_s, send, read_response
            )

        return http.make_call(
            ask,
            messages=messages,
            stage=stage,
            model=self.model,
            parameters=parameters,
            not_sent=("seed",) if self.temperature is None else ("temperature", "seed"),
            key=key,
            retry_s=self.retry_s,
            turn=limit_rate(self.base_url, self.model, self.per_minute),
        )


def read_response(response: Any) -> Answer:
    """The Answer in a message; blocks of thinking are left out."""
    blocks, usage = getattr(response, "content", None), getattr(response, "usage", None)
    if not isinstance(blocks, list):
        return http.unreadable_response(response)
    texts = [getattr(block, "text", None) for block in blocks if getattr(block, "type", None) == "text"]
    text = "".join(part for part in texts if isinstance(part, str))
    stop_reason = http.read_name(response.stop_reason)
    broken = {"refusal": "the model refused", None: "the answer broke off"}
    tokens = getattr(usage, "input_tokens", None), getattr(usage, "output_tokens", None)
    return http.model_answer(response, text, stop_reason, tokens, broken.get(stop_reason), cut_off="max_tokens")
