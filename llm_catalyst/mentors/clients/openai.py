"""Chat completions of OpenAI, and of every server that speaks its format (vLLM, Ollama, llama.cpp, …)."""

import re
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from llm_catalyst.mentors.clients.base import ClientResponse
from llm_catalyst.mentors.clients.http import HTTPClient, model_response, read_count, read_name
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import config_dataclass


@config_dataclass("mentor.client")
class OpenAIChat(HTTPClient):
    """The `mentor.client` node of an OpenAI-compatible mentor. Fields: conf/mentor/openai_compatible.yaml."""

    package = "openai"
    connection_class = "OpenAI"

    base_url: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"
    presence_penalty: float | None = None
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    send_seed: bool = True

    @property
    def sdk(self) -> Any:
        import openai

        return openai

    @property
    def unsent(self) -> tuple[str, ...]:
        return () if self.send_seed else ("seed",)

    def parameters(self, seed: int) -> dict[str, Any]:
        given: dict[str, Any] = {self.max_tokens_name: self.max_tokens, "temperature": self.temperature}
        given |= {"presence_penalty": self.presence_penalty, "seed": seed if self.send_seed else None}
        return {name: value for name, value in given.items() if value is not None}

    def send(self, connection: Any, messages: Sequence[Message], seed: int) -> Any:
        request = [vars(message) for message in messages]
        return connection.chat.completions.create(model=self.model, messages=request, **self.parameters(seed))

    def read_response(self, response: Any) -> ClientResponse:
        """The text of a chat completion's first choice."""
        choice = response.choices[0]
        text, refusal = read_name(choice.message.content) or "", getattr(choice.message, "refusal", None)
        stop_reason = read_name(getattr(choice, "finish_reason", None))
        error = "the provider's content filter stopped the answer" if stop_reason == "content_filter" else None
        if refusal:
            text, error = str(refusal), "the model refused"
        tokens = "prompt_tokens", "completion_tokens"
        details = getattr(getattr(response, "usage", None), "prompt_tokens_details", None)
        names = "cached_tokens", "cache_write_tokens"
        read, written = (read_count(getattr(details, name, None)) or 0 for name in names)
        return model_response(response, text, stop_reason, error, tokens, "length", (read, written))

    def suggest_url(self) -> str:
        return "" if re.search(r"/v\d", urlsplit(self.base_url).path) else f"{self.base_url.rstrip('/')}/v1"
