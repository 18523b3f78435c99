"""Any causal language model of the transformers library, on this machine."""

import importlib.util
import io
import os
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from llm_catalyst.mentors.clients import gguf
from llm_catalyst.mentors.clients.base import Client, ClientResponse
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.validation import ConfigurationError, NonNegative, PositiveInt, config_dataclass


@config_dataclass("mentor.client")
class LocalModel(Client):
    """The `mentor.client` node of a local mentor. Fields are explained in conf/mentor/local.yaml.

    The model is loaded at the first request, from safetensors or a GGUF file and without code of its repository. With
    `package` the GGUF file comes in parts, as data of packages of PyPI, whose `sha256` is checked at every load; its
    `terms` are told before its first use on a machine.
    """

    model: str
    package: str | None = None
    sha256: str | None = None
    terms: str | None = None
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
        if self.package is not None or path.suffix.lower() == ".gguf":
            self._check_gguf(path)
            return
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

    def _check_gguf(self, path: Path) -> None:
        """Raise ConfigurationError where a GGUF file, its parts, or the packages that read it are missing."""
        lacking = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
        if lacking:
            raise ConfigurationError(
                f"mentor.client.model={self.model}: a GGUF file is read by the packages gguf and accelerate, and "
                f"{' and '.join(lacking)} is missing: pip install 'llm-catalyst[llm]'"
            )
        if self.package is not None:
            gguf.find_file(self.package)
        elif not path.is_file() or not gguf.is_gguf(path):
            raise ConfigurationError(f"mentor.client.model={self.model} is no GGUF file; name one, or a model's folder")

    def terms_of_use(self) -> list[str]:
        """The model's terms, until its parts have been joined on this machine."""
        if self.terms is None or self.package is None or gguf.find_file(self.package)[0].exists():
            return []
        return [self.terms]

    def has_roles(self) -> bool:
        """Whether the tokenizer has a chat template; of one that cannot be loaded, `respond` says why."""
        with suppress(Exception):
            return bool(load_tokenizer(*self._locate(), self.revision).chat_template)
        return True

    def _locate(self) -> tuple[str, str | None]:
        """The folder or the name on the hub, and the GGUF file in that folder, where it is one."""
        path = expand_path(self.model)
        if self.package is not None:
            path = join_once(self.package, self.sha256 or "")
        return (str(path.parent), path.name) if path.suffix.lower() == ".gguf" else (str(path), None)

    def parameters(self, seed: int) -> dict[str, Any]:
        given = {"temperature": self.temperature, "revision": self.revision}
        return {"max_tokens": self.max_tokens, "seed": seed} | {n: v for n, v in given.items() if v is not None}

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        """The model's continuation."""
        try:
            place = self._locate()
            tokenizer = load_tokenizer(*place, self.revision)
            model = load_model(*place, self.revision, self.dtype, pick_device(self.device))
            inputs = encode_messages(tokenizer, messages).to(model.device)
            new, cut_off = self._generate(tokenizer, model, inputs, seed)
        except Exception as error:  # of a damaged file each library raises what it likes
            return ClientResponse(error=f"{self.model} could not answer: {type(error).__name__}: {error}")
        reply = tokenizer.decode(new, skip_special_tokens=True)
        return ClientResponse(
            reply,
            answered=f"{self.model}@{self._name_version(model)}",
            input_tokens=int(inputs["input_ids"].shape[1]),
            output_tokens=len(new),
            stop_reason="length" if cut_off else "stop",
            error=None if reply.strip() else "the answer is empty",
        )

    def _name_version(self, model: Any) -> str:
        """What tells the weights from others of that name: the beginning of their hash, or the commit on the hub."""
        return self.sha256[:12] if self.sha256 else str(getattr(model.config, "_commit_hash", None) or "local")

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
def join_once(package: str, sha256: str) -> Path:
    """The GGUF file of packages, which is checked as often as it is loaded: once in a process."""
    return gguf.join_parts(package, sha256)


@lru_cache(maxsize=1)
def load_tokenizer(place: str, file: str | None, revision: str | None) -> Any:
    """The tokenizer of a folder, a name on the hub, or a GGUF file in a folder, kept for later calls."""
    from transformers import AutoTokenizer

    options = {"gguf_file": file} if file else {"revision": revision or "main"}
    return AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)


@lru_cache(maxsize=1)
def load_model(place: str, file: str | None, revision: str | None, dtype: str, device: str) -> Any:
    """The model there, in evaluation mode, kept for later calls. The weights of a GGUF file are used in float32."""
    import transformers
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"revision": revision or "main", "use_safetensors": True, "dtype": dtype}
    if file:
        options = {"gguf_file": file, "dtype": "float32" if dtype == "auto" else dtype}
        # Earlier versions always unpack the weights. Packed ones take 5 times as long for a token on a CPU (5.23).
        if hasattr(transformers, "GgufConfig"):
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    # The reader of GGUF draws a progress bar that no setting of transformers turns off.
    with redirect_stderr(io.StringIO()) if file else nullcontext():
        model: Any = AutoModelForCausalLM.from_pretrained(place, trust_remote_code=False, **options)
    return model.to(device).eval()


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
