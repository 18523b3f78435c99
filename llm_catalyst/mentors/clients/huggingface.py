"""Any causal language model of the transformers library, on this machine."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from llm_catalyst.mentors.clients.base import Client, ClientResponse
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.paths import expand_path
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

        from llm_catalyst.models.backbones.local_files import refuse_files

        path = expand_path(self.model)
        is_path = self.model.startswith((".", "~", "/")) or (os.sep != "/" and os.sep in self.model)
        if (is_path or path.exists()) and not (path / "config.json").is_file():
            raise ConfigurationError(
                f"mentor.client.model={self.model} is no folder with a config.json; give the folder of a "
                "transformers model or a name on the Hugging Face hub, such as meta-llama/Llama-2-7b-chat-hf"
            )
        refuse_files("mentor.client.model", self.model)
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
            tokenizer, model = load_model(self.model, self.revision, self.dtype, pick_device(self.device))
            inputs = encode_messages(tokenizer, messages).to(model.device)
            new, cut_off = self._generate(tokenizer, model, inputs, seed)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            return ClientResponse(error=f"{self.model} could not answer: {type(error).__name__}: {error}")
        reply = tokenizer.decode(new, skip_special_tokens=True)
        return ClientResponse(
            reply,
            answered=f"{self.model}@{getattr(model.config, '_commit_hash', None) or 'local'}",
            input_tokens=int(inputs["input_ids"].shape[1]),
            output_tokens=len(new),
            stop_reason="length" if cut_off else "stop",
            error=None if reply.strip() else "the answer is empty",
        )

    def _generate(self, tokenizer: Any, model: Any, inputs: Any, seed: int) -> tuple[list[int], bool]:
        """New tokens, and whether their limit cut them off. A temperature of 0 is greedy.

        They are sampled from a seed of their own: the streams of the run outside do not move.
        """
        import torch

        length = int(inputs["input_ids"].shape[1])
        longest = getattr(model.config, "max_position_embeddings", None) or 1_000_000
        limit = min(self.max_tokens, longest - length)
        if limit < 1:
            raise ValueError(f"the request has {length} tokens, the model reads {longest}")
        heat, pad = self.temperature, tokenizer.pad_token_id
        sampling = {} if heat is None else {"do_sample": heat > 0, "temperature": heat or None}
        sampling["pad_token_id"] = tokenizer.eos_token_id if pad is None else pad
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))), torch.no_grad():
            torch.manual_seed(seed)
            new = model.generate(**inputs, max_new_tokens=limit, **sampling)[0, length:].tolist()
        ends = model.generation_config.eos_token_id
        return new, len(new) == limit and new[-1] not in (ends if isinstance(ends, list) else [ends])


def pick_device(device: str) -> str:
    """The device itself, or the GPU where there is one and the CPU elsewhere, for 'auto'."""
    import torch

    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=1)
def load_model(name: str, revision: str | None, dtype: str, device: str) -> tuple[Any, Any]:
    """The tokenizer and the model, in evaluation mode, kept for later calls."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"revision": revision or "main", "trust_remote_code": False}
    path = str(expand_path(name))
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
