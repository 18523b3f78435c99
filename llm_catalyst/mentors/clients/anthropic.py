"""Messages of Anthropic's Claude models."""

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge

from llm_catalyst.mentors.clients.base import ClientResponse
from llm_catalyst.mentors.clients.http import HTTPClient, model_response, read_name, unreadable_response
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import config_dataclass


@config_dataclass("mentor.client")
class Claude(HTTPClient):
    """The `mentor.client` node of a Claude mentor. Fields are explained in conf/mentor/_claude.yaml.

    The SDK (2.x) takes neither a temperature nor a seed: both are recorded as not sent.
    """

    package = "anthropic"

    base_url: str = "https://api.anthropic.com"
    key_variable: str = "ANTHROPIC_API_KEY"
    max_tokens: Annotated[int, Ge(1)] = 4000

    @property
    def sdk(self) -> Any:
        import anthropic

        return anthropic

    @property
    def connection_class(self) -> Any:
        return self.sdk.Anthropic

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
        blocks, usage = getattr(response, "content", None), getattr(response, "usage", None)
        if not isinstance(blocks, list):
            return unreadable_response(response)
        texts = [getattr(block, "text", None) for block in blocks if getattr(block, "type", None) == "text"]
        text = "".join(part for part in texts if isinstance(part, str))
        stop_reason = read_name(response.stop_reason)
        broken = {"refusal": "the model refused", None: "the answer broke off"}
        tokens = getattr(usage, "input_tokens", None), getattr(usage, "output_tokens", None)
        return model_response(response, text, stop_reason, tokens, broken.get(stop_reason), cut_off="max_tokens")
