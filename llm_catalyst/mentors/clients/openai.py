"""Chat completions of OpenAI, and of every server that speaks its format (vLLM, Ollama, llama.cpp, …)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_catalyst.checks import at_least, one_of
from llm_catalyst.mentors.clients import calls
from llm_catalyst.mentors.clients.calls import Answer
from llm_catalyst.records import Exchange, Message


@dataclass(frozen=True)
class OpenAIChat:
    """The `mentor.client` node of an OpenAI-compatible mentor. Fields are explained in conf/mentor/gpt4.yaml."""

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

    def __post_init__(self) -> None:
        at_least("mentor.client.temperature", self.temperature, 0)
        at_least("mentor.client.max_tokens", self.max_tokens, 1)
        at_least("mentor.client.timeout_s", self.timeout_s, 0.001)
        at_least("mentor.client.retry_s", self.retry_s, 0)
        one_of("mentor.client.max_tokens_name", self.max_tokens_name, ("max_completion_tokens", "max_tokens"))
        calls.check_key_variable(self.key_variable)
        calls.check_url(self.base_url)

    def preflight(self) -> None:
        """Raise ConfigurationError where the SDK or the key is missing."""
        calls.need_package("openai")
        calls.read_key(self.key_variable)

    def complete(self, messages: Sequence[Message], stage: int, seed: int) -> Exchange:
        """The model's answer as an exchange; what fails for good is its `error`."""
        import openai

        key = calls.read_key(self.key_variable)
        parameters = self._parameters(seed)
        request: dict[str, Any] = {"model": self.model, "messages": [vars(message) for message in messages]}

        def ask() -> Answer:
            with openai.OpenAI(
                api_key=key or "none", base_url=self.base_url, timeout=self.timeout_s, max_retries=0
            ) as sdk:

                def send() -> Any:
                    return sdk.chat.completions.create(**request, **parameters)

                return calls.attempt(openai, send, read, self.timeout_s, self.base_url)

        return calls.exchange(
            ask,
            messages=messages,
            stage=stage,
            model=self.model,
            parameters=parameters,
            not_sent=() if self.send_seed else ("seed",),
            key=key,
            retry_s=self.retry_s,
        )

    def _parameters(self, seed: int) -> dict[str, Any]:
        sent: dict[str, Any] = {self.max_tokens_name: self.max_tokens}
        for setting in ("temperature", "presence_penalty"):
            if getattr(self, setting) is not None:
                sent[setting] = getattr(self, setting)
        if self.send_seed:
            sent["seed"] = seed
        return sent


def read(response: Any) -> Answer:
    """The Answer in a chat completion. The SDK checks nothing: an HTML page arrives as a str, null as None."""
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list) or not choices:
        shown = " ".join(str(response).split())[:200]
        return Answer(error=f"no chat completion came back ({shown}); check mentor.client.base_url")
    message, usage = getattr(choices[0], "message", None), getattr(response, "usage", None)
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    stop_reason = calls.name(getattr(choices[0], "finish_reason", None))
    text = text if isinstance(text, str) else ""
    error = None
    if refusal:
        text, error = str(refusal), "the model refused"
    elif stop_reason == "content_filter":
        error = "the provider's content filter stopped the answer"
    elif not text.strip():
        error = "the answer is empty"
        error += "; raise mentor.client.max_tokens" if stop_reason == "length" else ""
    return Answer(
        reply=text,
        answered=calls.name(response.model) or "unnamed",
        input_tokens=calls.count(getattr(usage, "prompt_tokens", None)),
        output_tokens=calls.count(getattr(usage, "completion_tokens", None)),
        request_id=calls.name(getattr(response, "_request_id", None)) or calls.name(response.id),
        stop_reason=stop_reason,
        error=error,
    )
