"""Load a frozen model and run it on a device: attention, precision, memory, compilation.

Everything here is off unless a configuration asks for it, but for the choice of an attention kernel and the question
whether a model fits.
"""

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from llm_catalyst.models.backbones.base import BFLOAT16_SINCE
from llm_catalyst.models.backbones.config import DTYPES, QUANTIZED, Dtype, TextBackbone
from llm_catalyst.utils.validation import ConfigurationError

GIBIBYTE = 2**30
CPU = torch.device("cpu")
PROCESSOR = Path("/proc/cpuinfo")
CAST = ("F64", "F32", "F16", "BF16")  # what safetensors calls the types that become backbone.dtype
OTHER = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}  # bytes; any other type takes one
HEADS = ("lm_head", "cls", "lm_predictions", "mask_predictions")  # not read where the base model is enough

Shapes = dict[str, tuple[str, Sequence[int]]]  # of each tensor: its type as safetensors calls it, and its sizes


def resolve_dtype(dtype: Dtype, device: torch.device) -> Dtype:
    """The key of `DTYPES` that `backbone.dtype` means on this device.

    `auto` is bfloat16 on a GPU that computes in it (see `Backbone.check`), and on a CPU with an instruction for its
    products, of matrices (AMX) or of vectors (AVX-512); elsewhere float32: there it is emulated, or was not tried.
    """
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        there = torch.cuda.get_device_capability(device) >= BFLOAT16_SINCE
    else:
        there = device.type == "cpu" and not processor_flags().isdisjoint(("amx_bf16", "avx512_bf16"))
    return "bfloat16" if there else "float32"


def processor_flags() -> set[str]:
    """The processor's features as Linux lists them; an empty set on another system."""
    with suppress(OSError), PROCESSOR.open() as lines:
        return set(next((line for line in lines if line.startswith("flags")), "").split())
    return set()


def resolve_attention(attention: str, dtype: str, device: torch.device) -> str | None:
    """The attention kernel that `backbone.attention` means on this device; None leaves it to transformers.

    `auto` is what a training step was measured to be fastest with: `eager` in bfloat16 on a CPU, where the backward
    pass of torch's fused kernel (2.13) takes over half of a step, and otherwise that fused kernel, `sdpa`, which
    transformers takes by itself for every model that has it.
    """
    if attention != "auto":
        return attention
    return "eager" if device.type == "cpu" and dtype == "bfloat16" else None


def set_tf32(wanted: bool, device: torch.device) -> None:
    """Let CUDA multiply float32 matrices in TensorFloat-32, whose mantissa has 10 bits, or in float32 (IEEE).

    Holds for the whole process, and so is set anew by each run. On another device nothing changes. Raises
    ConfigurationError where torch is older than this setting (2.9).
    """
    if device.type != "cuda":
        return
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        torch.backends.cuda.matmul.fp32_precision = "tf32" if wanted else "ieee"
    elif wanted:
        raise ConfigurationError(f"backbone.tf32=true needs torch 2.9, and here is {torch.__version__}; use false")


def checkpoint_layers(name: str, model: nn.Module) -> None:
    """Let each layer keep nothing but its input for the backward pass, which computes the rest of it again.

    transformers' own switch works only in its training mode, and a frozen model is in evaluation mode, without
    dropout. Raises ConfigurationError where the model has no such layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigurationError(f"backbone.checkpointing=true: {name} has no layers made for it; use false")
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def compile_base(model: nn.Module, device: torch.device) -> None:
    """Have torch compile the base model when it is first called; see `compile_seconds`.

    One program serves every number of rows and tokens, so that batches of different lengths do not compile anew.
    A run has two, for training and for scoring, and each once more for a single row. Raises ConfigurationError where
    a CPU has no C++ compiler.
    """
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        problem = f"backbone.compile=true needs a C++ compiler on a CPU, and none of {', '.join(compilers)} is here"
        fix = "install one, name it in the environment variable CXX, or use backbone.compile=false"
        raise ConfigurationError(f"{problem}; {fix}")
    base = model.base_model if isinstance(model.base_model, nn.Module) else model
    base.compile(dynamic=True)


def compile_seconds() -> float:
    """Seconds that this process has spent on compiling so far: what the first steps took longer for."""
    from torch._dynamo.utils import calculate_time_spent

    return calculate_time_spent()["total_wall_time"]


# Weights of fewer bits, and over several devices


def placement_arguments(settings: TextBackbone, device: torch.device) -> dict[str, Any]:
    """Arguments of quantization and devices for transformers; {} for a model that is moved to `device` as it is.

    With 8 bits, bitsandbytes multiplies in float16, whatever `backbone.dtype` is; 4 bits are NF4 (Dettmers et al. 2023,
    arXiv 2305.14314), without the second quantization of their scales.
    """
    if not settings.quantization and not settings.device_map:
        return {}
    found: dict[str, Any] = {"device_map": settings.device_map or {"": device}}
    if settings.quantization:
        from transformers import BitsAndBytesConfig

        found["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=settings.quantization == "8bit",
            load_in_4bit=settings.quantization == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=DTYPES[settings.dtype],
            # A pooler may have to be drawn, which bitsandbytes cannot do (0.50).
            llm_int8_skip_modules=[*HEADS, "pooler"],
        )
    return found


# Does it fit?


def refuse_too_large(settings: TextBackbone, words: bool, device: torch.device) -> None:
    """Raise ConfigurationError where the weights alone exceed the memory that is free, before any is read.

    Where the sizes of the weights or the free memory are not known, nothing is refused.
    """
    bits, spread, on_gpu = settings.quantization, settings.device_map, device.type == "cuda"
    weights = weight_bytes(weight_shapes(settings.location(), settings.revision), words, settings.dtype, bits)
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    # A model that is moved to a GPU is read into main memory first.
    staged = [[CPU]] if on_gpu and not bits and not spread else []
    for places in [[*gpus, CPU] if spread else [device], *staged]:
        free = [free_memory(place) for place in places]
        known = [size for size in free if size is not None]
        if len(known) < len(free) or 2 * weights <= sum(known):  # a second table is no larger than the weights
            continue
        table = 0 if places in staged else derived_table_bytes(settings)
        need, what = weights + table, "weights and the rows of its vocabulary" if table else "weights alone"
        if need <= sum(known):
            continue
        fixes = {
            "backbone.dtype=bfloat16": settings.dtype == "float32" and not bits,
            "backbone.quantization=8bit or 4bit": on_gpu and bits != "4bit",
            "backbone.device_map=auto": on_gpu and not spread,
            "a smaller backbone": True,
        }
        raise ConfigurationError(
            f"backbone.name={settings.name} does not fit: its {what} take {need / GIBIBYTE:,.1f} GiB in "
            f"{bits or settings.dtype}, and {sum(known) / GIBIBYTE:,.1f} GiB are free on "
            f"{' and '.join(map(str, places))}; try {', or '.join(fix for fix, helps in fixes.items() if helps)}"
        )


def derived_table_bytes(settings: TextBackbone) -> int:
    """Bytes of the vocabulary's rows, where the family computes them from its table and they are kept beside it.

    From a model without weights; 0 where it cannot be made, as loading reports that better.
    """
    import transformers

    with suppress(Exception), torch.device("meta"):
        common: Any = {"revision": settings.revision or "main", "trust_remote_code": settings.trust_remote_code}
        config = transformers.AutoConfig.from_pretrained(settings.location(), **common)
        table = transformers.AutoModel.from_config(config, trust_remote_code=settings.trust_remote_code)
        rows = table.get_input_embeddings()
        return 0 if type(rows) is nn.Embedding else rows.weight.numel() * DTYPES[settings.dtype].itemsize
    return 0


def weight_bytes(shapes: Shapes, words: bool, dtype: str, quantization: str | None) -> int:
    """Bytes of the tensors once they are loaded: a lower bound, of a quantized model's most of all.

    Without `words` the language-model head is left out, as it is not loaded.
    """

    def entry(name: str, stored: str, sizes: Sequence[int]) -> float:
        if stored not in CAST:
            return OTHER.get(stored, 1)
        matrix = len(sizes) == 2 and "embed" not in name
        return QUANTIZED[quantization] if quantization and matrix else DTYPES[dtype].itemsize

    kept = {name: shape for name, shape in shapes.items() if words or name.split(".")[0] not in HEADS}
    return int(sum(math.prod(sizes) * entry(name, stored, sizes) for name, (stored, sizes) in kept.items()))


def weight_shapes(where: str, revision: str | None) -> Shapes:
    """Type and sizes of each tensor of a checkpoint, from the headers of its files; none where they cannot be had.

    Read in a local folder or the hub's cache, or else asked of the hub, which takes a second.
    """
    import huggingface_hub as hub

    local = Path(where).is_dir()

    def read_local() -> Any:
        folder = where if local else hub.snapshot_download(where, revision=revision, local_files_only=True)
        return hub.get_local_safetensors_metadata(folder)

    ask_hub: Any = partial(hub.get_safetensors_metadata, where, revision=revision)
    for read in (read_local,) if local else (read_local, ask_hub):
        with suppress(Exception):  # loading reports an error of a file, a name or the network better
            files = read().files_metadata.values()
            return {name: (info.dtype, info.shape) for file in files for name, info in file.tensors.items()}
    return {}


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a GPU or, on Linux, in main memory; None where this is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.is_file():
        return None
    return int(meminfo.read_text().split("MemAvailable:")[1].split()[0]) * 1024
