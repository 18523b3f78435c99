"""Messages of Anthropic's Claude models."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llm_catalyst.mentors.clients.base import ClientResponse
from llm_catalyst.mentors.clients.http import HTTPClient, model_response, read_count, read_name
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import PositiveInt, config_dataclass


@config_dataclass("mentor.client")
class Claude(HTTPClient):
    """The `mentor.client` node of a Claude mentor. Fields are explained in conf/mentor/_claude.yaml.

    The SDK (2.x) takes neither a temperature nor a seed: both are recorded as not sent.
    """

    package = "anthropic"
    connection_class = "Anthropic"

    base_url: str = "https://api.anthropic.com"
    key_variable: str = "ANTHROPIC_API_KEY"
    max_tokens: PositiveInt = 4000

    @property
    def sdk(self) -> Any:
        import anthropic

        return anthropic

    @property
    def unsent(self) -> tuple[str, ...]:
        return ("seed",) if self.temperature is None else ("temperature", "seed")

    def parameters(self, seed: int) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens}

    def send(self, connection: Any, messages: Sequence[Message], seed: int) -> Any:
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        return connection.messages.create(
            model=self.model,
            messages=[vars(message) for message in messages if message.role != "system"],
            **({"system": system} if system else {}),
            **self.parameters(seed),
        )

    def read_response(self, response: Any) -> ClientResponse:
        """The text of a message; blocks of thinking are left out."""
        text = "".join(block.text for block in response.content if block.type == "text")
        stop_reason = read_name(response.stop_reason)
        error = {"refusal": "the model refused", None: "the answer broke off"}.get(stop_reason)
        tokens = "input_tokens", "output_tokens"
        usage = getattr(response, "usage", None)
        names = "cache_read_input_tokens", "cache_creation_input_tokens"
        read, written = (read_count(getattr(usage, name, None)) or 0 for name in names)
        answer = model_response(response, text, stop_reason, error, tokens, "max_tokens", (read, written))
        # Anthropic counts the cached tokens apart from `input_tokens`.
        sent = answer.input_tokens
        return answer if sent is None else replace(answer, input_tokens=sent + read + written)

    def suggest_url(self) -> str:
        return self.base_url.rstrip("/").removesuffix("/v1") if self.base_url.rstrip("/").endswith("/v1") else ""
