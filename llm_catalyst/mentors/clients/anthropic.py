"""Messages of Anthropic's Claude models."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Ge

from llm_catalyst.mentors.clients.answers import describe_thinking, model_response, read_content, read_count, read_name
from llm_catalyst.mentors.clients.base import ClientResponse
from llm_catalyst.mentors.clients.http import HTTPClient, require_package
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import PositiveInt, config_dataclass

# The SDK's class for each provider, and what those of clouds need beside it: a module, and the extra that brings it.
CLASSES = {
    None: "Anthropic",
    "bedrock": "AnthropicBedrock",
    "vertex": "AnthropicVertex",
    "foundry": "AnthropicFoundry",
}
EXTRAS = {"bedrock": ("boto3", "anthropic[bedrock]"), "vertex": ("google.auth", "anthropic[vertex]")}


@config_dataclass("mentor.client")
class Claude(HTTPClient):
    """The `mentor.client` node of a Claude mentor. Fields are explained in conf/mentor/_claude.yaml.

    The SDK (2.x) takes neither a temperature nor a seed: both are recorded as not sent. `provider` names the SDK's own
    class for a cloud, whose credentials and region come from where that class looks for them, unless `key_variable`
    names a token. `thinking` is a number of tokens, which are added to `max_tokens`, or one of the SDK's types.
    """

    package = "anthropic"
    connection_class = "Anthropic"

    base_url: str | None = "https://api.anthropic.com"  # type: ignore[assignment]
    key_variable: str | None = "ANTHROPIC_API_KEY"
    max_tokens: PositiveInt = 4000
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    thinking: Literal["adaptive", "disabled"] | Annotated[int, Ge(1024)] | None = None
    provider: Literal["bedrock", "vertex", "foundry"] | None = None

    def __post_init__(self) -> None:
        if self.base_url is not None or self.provider is None:
            super().__post_init__()

    @property
    def sdk(self) -> Any:
        import anthropic

        return anthropic

    @property
    def unsent(self) -> tuple[str, ...]:
        return ("seed",) if self.temperature is None else ("temperature", "seed")

    @property
    def place(self) -> str:
        return self.base_url or str(self.provider)

    def suggest_url(self) -> str:
        url = self.place.rstrip("/").removesuffix("/messages")
        return url.removesuffix("/v1") if url.endswith("/v1") else ""

    def preflight(self) -> None:
        """Raise ConfigurationError if the SDK, what its class for the provider needs, or the key is missing."""
        super().preflight()
        if self.provider in EXTRAS:
            require_package(*EXTRAS[self.provider])

    def check_reachable(self) -> list[str]:
        """As HTTPClient; clouds have no list of models."""
        return super().check_reachable() if self.provider is None else []

    def connect(self, timeout_s: float) -> Any:
        """A connection of the SDK's class for the provider."""
        settings: dict[str, Any] = {"timeout": timeout_s, "max_retries": 0}
        settings |= {"base_url": self.base_url} if self.base_url else {}
        key = self.read_key()
        if key or self.provider is None:
            settings["access_token" if self.provider == "vertex" else "api_key"] = key or "none"
        return getattr(self.sdk, CLASSES[self.provider])(**settings)

    def wanted(self, seed: int) -> dict[str, Any]:
        budget = self.thinking if isinstance(self.thinking, int) else 0
        given: dict[str, Any] = {"max_tokens": self.max_tokens + budget}
        given |= {"effort": self.effort} if self.effort else {}
        return given | ({"thinking": self.thinking} if self.thinking else {})

    def send(self, connection: Any, messages: Sequence[Message], seed: int) -> Any:
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        return connection.messages.create(
            model=self.model,
            messages=[vars(message) for message in messages if message.role != "system"],
            **({"system": system} if system else {}),
            max_tokens=self.wanted(seed)["max_tokens"],
            **({"output_config": {"effort": self.effort}} if self.effort else {}),
            **({"thinking": describe_type(self.thinking)} if self.thinking else {}),
        )

    def read_response(self, response: Any) -> ClientResponse:
        """The text of a message; blocks of thinking are left out."""
        if response.content is None and response.stop_reason is None:
            raise TypeError("no message")
        text, thought = read_content(response.content)
        stop_reason = read_name(response.stop_reason)
        error = {"refusal": "the model refused", None: "the answer broke off"}.get(stop_reason)
        if error is None and not text.strip():
            error = describe_thinking(thought) or None
        tokens = "input_tokens", "output_tokens"
        usage = getattr(response, "usage", None)
        names = "cache_read_input_tokens", "cache_creation_input_tokens"
        read, written = (read_count(getattr(usage, name, None)) or 0 for name in names)
        answer = model_response(response, text, stop_reason, error, tokens, "max_tokens", (read, written))
        # Anthropic counts the cached tokens apart from `input_tokens`.
        sent = answer.input_tokens
        return answer if sent is None else replace(answer, input_tokens=sent + read + written)


def describe_type(thinking: str | int) -> dict[str, Any]:
    """The SDK's form of `thinking`."""
    return {"type": "enabled", "budget_tokens": thinking} if isinstance(thinking, int) else {"type": thinking}
