"""Chat completions of OpenAI, and of every server that speaks its format (vLLM, Ollama, llama.cpp, …)."""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from llm_catalyst.mentors.clients.answers import (
    describe_thinking,
    get_field,
    model_response,
    read_count,
    read_message,
    read_name,
)
from llm_catalyst.mentors.clients.base import ClientResponse
from llm_catalyst.mentors.clients.http import (
    HTTPClient,
    read_secret,
    refuse_secret_headers,
)
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass

TOKEN_NAMES = ("max_completion_tokens", "max_tokens")


@config_dataclass("mentor.client")
class OpenAIChat(HTTPClient):
    """The `mentor.client` node of an OpenAI-compatible mentor. Fields: conf/mentor/openai_compatible.yaml.

    With provider=azure the SDK's AzureOpenAI asks the deployment `model` at `base_url` (without /openai/v1), by the key
    or, without `key_variable`, by the Entra token in AZURE_OPENAI_AD_TOKEN.
    """

    package = "openai"
    connection_class = "OpenAI"
    optional = ("seed", "temperature", "presence_penalty", *TOKEN_NAMES)

    base_url: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"
    presence_penalty: float | None = None
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    send_seed: bool = True
    reasoning_effort: str | None = None
    extra_body: dict[str, Any] | None = None
    default_headers: dict[str, str] | None = None
    provider: Literal["openai", "azure"] | None = None
    api_version: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_secret_headers(self.default_headers or {})
        if self.provider == "azure" and self.api_version is None:
            raise ConfigurationError(
                "mentor.client.provider=azure needs mentor.client.api_version (2024-10-21 or later); an address that "
                "ends in /openai/v1 needs neither"
            )

    def suggest_url(self) -> str:
        path = urlsplit(self.base_url).path
        if path.rstrip("/").endswith("/chat/completions"):
            return self.base_url.rstrip("/").removesuffix("/chat/completions")
        return "" if self.provider == "azure" or re.search(r"/v\d", path) else f"{self.base_url.rstrip('/')}/v1"

    def connect(self, timeout_s: float) -> Any:
        """A connection of the SDK; that of Azure takes an Entra token as well."""
        settings: dict[str, Any] = {"base_url": self.base_url, "timeout": timeout_s, "max_retries": 0}
        settings |= {"default_headers": self.default_headers} if self.default_headers else {}
        key = self.read_key()
        if self.provider != "azure":
            return self.sdk.OpenAI(api_key=key or "none", **settings)
        name = "azure_ad_token" if self.key_variable is None else "api_key"
        return self.sdk.AzureOpenAI(**{name: key}, api_version=self.api_version, **settings)

    def read_key(self) -> str:
        """The key; of Azure without `key_variable` the Entra token, which appears in no record either."""
        if self.provider == "azure" and self.key_variable is None:
            return read_secret("AZURE_OPENAI_AD_TOKEN")
        return super().read_key()

    @property
    def sdk(self) -> Any:
        import openai

        return openai

    @property
    def unsent(self) -> tuple[str, ...]:
        return (*(() if self.send_seed else ("seed",)), *super().unsent)

    def wanted(self, seed: int) -> dict[str, Any]:
        given: dict[str, Any] = {self.max_tokens_name: self.max_tokens, "temperature": self.temperature}
        given |= {"presence_penalty": self.presence_penalty, "seed": seed if self.send_seed else None}
        given |= {"reasoning_effort": self.reasoning_effort}
        given |= {"extra_body": json.dumps(self.extra_body, sort_keys=True) if self.extra_body else None}
        return {name: value for name, value in given.items() if value is not None}

    def parameters(self, seed: int) -> dict[str, Any]:
        """Those wanted and not refused; the limit of tokens under its other name where the first is refused."""
        given, refused = super().parameters(seed), self.refused
        (other,) = {*TOKEN_NAMES} - {self.max_tokens_name}
        renamed = self.max_tokens is not None and self.max_tokens_name in refused and other not in refused
        return given | ({other: self.max_tokens} if renamed else {})

    def send(self, connection: Any, messages: Sequence[Message], seed: int) -> Any:
        request = [vars(message) for message in messages]
        given = self.parameters(seed) | ({"extra_body": self.extra_body} if self.extra_body else {})
        return connection.chat.completions.create(model=self.model, messages=request, **given)

    def read_response(self, response: Any) -> ClientResponse:
        """The text of a chat completion's first choice."""
        choice = response.choices[0]
        message = get_field(choice, "message") or get_field(choice, "delta")
        if message is None and get_field(choice, "text") is None:
            raise TypeError("a choice without a message")
        text, thought = read_message(message) if message else (str(get_field(choice, "text")), "")
        refusal = get_field(message, "refusal")
        stop_reason = read_name(getattr(choice, "finish_reason", None))
        error = "the provider's content filter stopped the answer" if stop_reason == "content_filter" else None
        if refusal:
            text, error = str(refusal), "the model refused"
        elif error is None and not text.strip():
            details = get_field(get_field(response, "usage"), "completion_tokens_details")
            error = describe_thinking(thought, read_count(get_field(details, "reasoning_tokens"))) or None
        tokens = "prompt_tokens", "completion_tokens"
        details = getattr(getattr(response, "usage", None), "prompt_tokens_details", None)
        names = "cached_tokens", "cache_write_tokens"
        read, written = (read_count(getattr(details, name, None)) or 0 for name in names)
        return model_response(response, text, stop_reason, error, tokens, "length", (read, written))
