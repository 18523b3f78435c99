"""Any causal language model of the transformers library, on this machine."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from llm_catalyst.mentors.clients.base import Client, ClientResponse
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import ConfigurationError, NonNegative, PositiveInt, config_dataclass


@config_dataclass("mentor.client")
class LocalModel(Client):
    """The `mentor.client` node of a local mentor. Fields are explained in conf/mentor/local.yaml.

    The model is loaded at the first request, from safetensors only and without code of its repository.
    """

    model: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    temperature: NonNegative | None = None
    max_tokens: PositiveInt = 200

    def preflight(self) -> None:
        """Raise ConfigurationError where the folder or the device does not exist."""
        import torch

        from llm_catalyst.models.backbones.config import refuse_pickle

        path = Path(self.model).expanduser()
        is_path = self.model.startswith((".", "~", "/")) or (os.sep != "/" and os.sep in self.model)
        if (is_path or path.exists()) and not (path / "config.json").is_file():
            raise ConfigurationError(
                f"mentor.client.model={self.model} is no folder with a config.json; give the folder of a "
                "transformers model or a name on the Hugging Face hub, such as meta-llama/Llama-2-7b-chat-hf"
            )
        refuse_pickle("mentor.client.model", self.model)
        try:
            torch.empty(0, device=pick_device(self.device))
        except (RuntimeError, AssertionError) as error:
            first_line = str(error).partition("\n")[0]
            raise ConfigurationError(f"mentor.client.device={self.device} cannot be used: {first_line}") from None

    def parameters(self, seed: int) -> dict[str, Any]:
        given = {"temperature": self.temperature, "revision": self.revision}
        return {"max_tokens": self.max_tokens, "seed": seed} | {n: v for n, v in given.items() if v is not None}

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        """The model's continuation."""
        try:
            return self._generate(messages, seed)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            return ClientResponse(error=f"{self.model} could not answer: {type(error).__name__}: {error}")

    def _generate(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        tokenizer, model = load_model(self.model, self.revision, self.dtype, pick_device(self.device))
        inputs = encode_messages(tokenizer, messages).to(model.device)
        length = int(inputs["input_ids"].shape[1])
        longest = getattr(model.config, "max_position_embeddings", None) or 1_000_000
        limit = min(self.max_tokens, longest - length)
        if limit < 1:
            raise ValueError(f"the request has {length} tokens, the model reads {longest}")
        new = generate_tokens(model, tokenizer, inputs, limit, self.temperature, seed)
        reply, ends = tokenizer.decode(new, skip_special_tokens=True), model.generation_config.eos_token_id
        cut_off = len(new) == limit and new[-1] not in (ends if isinstance(ends, list) else [ends])
        return ClientResponse(
            reply,
            answered=f"{self.model}@{getattr(model.config, '_commit_hash', None) or 'local'}",
            input_tokens=length,
            output_tokens=len(new),
            stop_reason="length" if cut_off else "stop",
            error=None if reply.strip() else "the answer is empty",
        )


def pick_device(device: str) -> str:
    """The device itself, or the GPU where there is one and the CPU elsewhere, for 'auto'."""
    import torch

    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=1)
def load_model(name: str, revision: str | None, dtype: str, device: str) -> tuple[Any, Any]:
    """The tokenizer and the model, in evaluation mode, kept for later calls."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"revision": revision or "main", "trust_remote_code": False}
    path = str(Path(name).expanduser())
    tokenizer = AutoTokenizer.from_pretrained(path, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, dtype=dtype, **options)
    return tokenizer, model.to(device).eval()


def encode_messages(tokenizer: Any, messages: Sequence[Message]) -> Any:
    """Input tensors: by the tokenizer's chat template where it has one, else the texts as plain paragraphs."""
    if not tokenizer.chat_template:
        return tokenizer("\n\n".join(message.content for message in messages), return_tensors="pt")
    options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    chat = [vars(message) for message in messages]
    try:
        return tokenizer.apply_chat_template(chat, **options)
    except Exception:  # jinja2.TemplateError: some templates (Gemma's, Mistral's) know no system message
        system = "".join(message["content"] + "\n\n" for message in chat if message["role"] == "system")
        first, *rest = [message for message in chat if message["role"] != "system"]
        return tokenizer.apply_chat_template([first | {"content": system + first["content"]}, *rest], **options)


def generate_tokens(
    model: Any, tokenizer: Any, inputs: Any, limit: int, temperature: float | None, seed: int
) -> list[int]:
    """New tokens. Sampled from a seed of their own: the streams of the run outside do not move.

    A temperature of 0 is greedy; none leaves the model's own generation settings.
    """
    import torch

    sampling = {} if temperature is None else {"do_sample": temperature > 0, "temperature": temperature or None}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))), torch.no_grad():
        torch.manual_seed(seed)
        output: Any = model.generate(**inputs, max_new_tokens=limit, pad_token_id=pad, **sampling)
    return list(output[0, inputs["input_ids"].shape[1] :].tolist())
