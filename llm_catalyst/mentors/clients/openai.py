"""Chat completions of OpenAI, and of every server that speaks its format (vLLM, Ollama, llama.cpp, …)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llm_catalyst.mentors.clients import http
from llm_catalyst.mentors.clients.http import Answer
from llm_catalyst.mentors.clients.rate_limit import limit_rate
from llm_catalyst.runs.records import LLMCall, Message
from llm_catalyst.utils.validation import check_choice


@dataclass(frozen=True)
class OpenAIChat:
    """The `mentor.client` node of an OpenAI-compatible mentor. Fields are explained in conf/mentor/gpt4.yaml."""

    paid: ClassVar[bool] = True
    background: ClassVar[bool] = True

    model: str
    base_url: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"
    temperature: float | None = None
    presence_penalty: float | None = None
    max_tokens: int = 1200
    max_tokens_name: str = "max_completion_tokens"
    send_seed: bool = True
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
        check_choice("mentor.client.max_tokens_name", self.max_tokens_name, ("max_completion_tokens", "max_tokens"))

    def preflight(self) -> None:
        """Raise ConfigurationError where the SDK or the key is missing."""
        http.check_package_and_key("openai", self.key_variable)

    def reach(self) -> None:
        """Raise ConfigurationError where the server is not there, refuses the key or does not know the model."""
        import openai

        if self.check_model:
            key = http.read_key(self.key_variable)
            http.check_server(openai, openai.OpenAI, key or "none", self.base_url, self.model)

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """The model's answer as an exchange; what fails for good is its `error`."""
        import openai

        key = http.read_key(self.key_variable)
        parameters = self.parameters(seed)
        request: dict[str, Any] = {"model": self.model, "messages": [vars(message) for message in messages]}

        def send(connection: Any) -> Any:
            return connection.chat.completions.create(**request, **parameters)

        def ask() -> Answer:
            return http.send_request(
                openai, openai.OpenAI, key or "none", self.base_url, self.timeout_s, send, read_response
            )

        return http.make_call(
            ask,
            messages=messages,
            stage=stage,
            model=self.model,
            parameters=parameters,
            not_sent=() if self.send_seed else ("seed",),
            key=key,
            retry_s=self.retry_s,
            turn=limit_rate(self.base_url, self.model, self.per_minute),
        )

    def parameters(self, seed: int) -> dict[str, Any]:
        """The sampling settings that go with each request."""
        sent: dict[str, Any] = {self.max_tokens_name: self.max_tokens}
        for setting in ("temperature", "presence_penalty"):
            if getattr(self, setting) is not None:
                sent[setting] = getattr(self, setting)
        if self.send_seed:
            sent["seed"] = seed
        return sent


def read_response(response: Any) -> Answer:
    """The Answer in a chat completion."""
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list) or not choices:
        return http.unreadable_response(response)
    message, usage = getattr(choices[0], "message", None), getattr(response, "usage", None)
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    stop_reason = http.read_name(getattr(choices[0], "finish_reason", None))
    text = text if isinstance(text, str) else ""
    error = None
    if refusal:
        text, error = str(refusal), "the model refused"
    elif stop_reason == "content_filter":
        error = "the provider's content filter stopped the answer"
    tokens = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return http.model_answer(response, text, stop_reason, tokens, error, cut_off="length")
