"""How a frozen text model is loaded and run: attention kernels, TF32, checkpointing, compilation, and what fits."""

import importlib.util
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from helpers.tiny_models import CPU, FAMILIES, backbone, folder
from torch import Tensor
from transformers.models.gemma3 import Gemma3TextConfig

from llm_catalyst.models.backbones import loading
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.loading import (
    compile_base,
    compile_seconds,
    free_memory,
    refuse_too_large,
    resolve_attention,
    resolve_dtype,
    set_tf32,
    weight_bytes,
    weight_shapes,
)
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.utils.validation import ConfigurationError

CUDA = torch.device("cuda")
TEXTS = ("the film was good", "slow", "it was a very long and bad movie scene")


def batch_of(model: FrozenText, texts: tuple[str, ...] = TEXTS, pad_to: int | None = None) -> TextBatch:
    data = encode_examples(model.tokenizer, [Example(((text, None),), 0) for text in texts], 40)
    return data.batch([range(len(texts))], CPU, pad_to)


def loss_and_gradient(model: FrozenText, batch: TextBatch, read: str = "mean") -> tuple[Tensor, Tensor]:
    """A loss on every mean (or pooled) state, and its gradient with respect to a prompt of three rows."""
    prompts = torch.randn(1, 3, model.vocabulary.shape[1], generator=torch.Generator().manual_seed(5)).requires_grad_()
    loss = getattr(model, read)(prompts, batch).sin().sum()
    (gradient,) = torch.autograd.grad(loss, prompts)
    return loss.detach(), gradient


# Attention and precision


@pytest.mark.parametrize(
    ("name", "dtype", "kernel"),
    [
        ("bert", "float32", "sdpa"),
        ("bert", "bfloat16", "eager"),
        ("llama", "float32", "sdpa"),
        ("llama", "bfloat16", "eager"),
        ("deberta", "float32", "eager"),  # it has no other
    ],
)
def test_attention_auto_takes_the_kernel_that_is_fastest_here_and_the_facts_name_it(
    name: str, dtype: str, kernel: str
) -> None:
    assert TextBackbone("x").attention == "auto"
    assert backbone(name, dtype=dtype, attention="auto").facts()["attention"] == kernel


def test_attention_auto_leaves_a_gpu_to_transformers_and_a_named_kernel_is_taken_as_it_is() -> None:
    assert resolve_attention("auto", "bfloat16", CUDA) is None
    assert resolve_attention("sdpa", "bfloat16", CPU) == "sdpa"
    assert resolve_attention("eager", "float32", CUDA) == "eager"


def test_dtype_auto_is_bfloat16_on_a_gpu_that_has_it_else_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, expected in (((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert resolve_dtype("auto", CUDA) == expected
    assert resolve_dtype("float16", CUDA) == "float16"
    assert resolve_dtype("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("fpu avx512f amx_bf16 amx_tile", "bfloat16"), ("avx512_bf16", "bfloat16"), ("fpu avx2 avx512f", "float32")],
)
def test_dtype_auto_follows_what_the_processor_can_do_and_the_facts_name_it(
    flags: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"processor\t: 0\nmodel name\t: some\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: amx_bf16\n"
    (tmp_path / "cpuinfo").write_text(lines)
    monkeypatch.setattr(loading, "PROCESSOR", tmp_path / "cpuinfo")
    model = load_text_backbone(TextBackbone(folder("bert"), dtype="auto"), False, CPU)
    assert model.facts()["dtype"] == dtype
    assert model.vocabulary.dtype == getattr(torch, dtype)
    assert model.facts()["attention"] == ("eager" if dtype == "bfloat16" else "sdpa")
    monkeypatch.setattr(loading, "PROCESSOR", tmp_path / "nowhere")
    assert resolve_dtype("auto", CPU) == "float32"


@pytest.fixture
def products() -> Iterator[Any]:
    """torch's own setting for CUDA's matrix products."""
    before = torch.backends.cuda.matmul.fp32_precision
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.fp32_precision = before


def test_tf32_is_set_and_unset_for_cuda_only(products: Any) -> None:
    set_tf32(True, CUDA)
    assert products.fp32_precision == "tf32"
    set_tf32(False, CPU)
    assert products.fp32_precision == "tf32"
    set_tf32(False, CUDA)
    assert products.fp32_precision == "ieee"
    set_tf32(True, CPU)
    assert products.fp32_precision == "ieee"


# Checkpointing and compilation


def saved_bytes(model: FrozenText, batch: TextBatch) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights left out."""
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    prompts = torch.zeros(1, 3, model.vocabulary.shape[1], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = model.hidden(prompts, batch)  # held, so that no address is used twice
    assert states.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_gives_the_same_gradient_and_keeps_less(name: str) -> None:
    plain, thrifty = backbone(name), backbone(name, checkpointing=True)
    batch = batch_of(plain)
    for expected, found in zip(loss_and_gradient(plain, batch), loss_and_gradient(thrifty, batch), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert saved_bytes(thrifty, batch) < 0.5 * saved_bytes(plain, batch)


def test_checkpointing_repeats_the_dropout_of_the_first_pass() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load_text_backbone(TextBackbone(folder("bert"), checkpointing=checkpointing), False, CPU)
        model.train(True)
        torch.manual_seed(3)
        gradients.append(loss_and_gradient(model, batch_of(model))[1])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-6)
    assert (gradients[0] - loss_and_gradient(backbone("bert"), batch_of(backbone("bert")))[1]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's compiler warns of itself (2.13)
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here")
@pytest.mark.parametrize("read", ["mean", "pooled"])  # of all states, and of the last layer at one position
def test_a_compiled_model_gives_the_same_loss_and_gradient_and_no_length_compiles_anew(read: str) -> None:
    plain, before = backbone("bert"), compile_seconds()
    compiled = load_text_backbone(TextBackbone(folder("bert"), compile=True), False, CPU)
    loss_and_gradient(compiled, batch_of(compiled), read)
    spent = compile_seconds()
    assert spent > before
    with torch._dynamo.config.patch(error_on_recompile=True):
        for texts, pad_to in ((TEXTS, 12), (TEXTS, 33), (TEXTS[:2], 20), (TEXTS * 3, 41)):
            batch = batch_of(plain, texts, pad_to)
            for expected, found in zip(
                loss_and_gradient(plain, batch, read), loss_and_gradient(compiled, batch, read), strict=True
            ):
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert compile_seconds() == spent


def test_compilation_without_a_compiler_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "not-there")
    with pytest.raises(ConfigurationError, match=r"needs a C\+\+ compiler on a CPU, and none of not-there, clang\+\+"):
        compile_base(torch.nn.Linear(1, 1), CPU)


def test_checkpointing_and_compilation_together_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"set backbone\.checkpointing or compile to false"):
        TextBackbone("x", checkpointing=True, compile=True)


# Fewer bits, several devices


def missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantization_on_a_cpu_is_refused_before_anything_is_read(bits: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"quantization={bits} needs a CUDA device.*is on cpu; use null"):
        load_text_backbone(TextBackbone(str(tmp_path), quantization=bits), False, CPU)


@pytest.mark.skipif(not (missing("bitsandbytes") and missing("accelerate")), reason="the packages are installed")
def test_packages_that_quantization_and_device_map_lack_are_named_with_the_command_that_installs_them() -> None:
    with pytest.raises(ConfigurationError, match=r"=4bit needs bitsandbytes and accelerate: pip install 'llm-catalyst"):
        TextBackbone("x", quantization="4bit").check(CUDA)
    with pytest.raises(ConfigurationError, match=r"device_map=auto needs accelerate: pip install .*device_map=null"):
        load_text_backbone(TextBackbone(folder("bert"), device_map="auto"), False, CPU)


@pytest.mark.skipif(missing("accelerate"), reason="accelerate is not installed")
def test_a_model_that_accelerate_places_gives_the_states_of_one_that_is_moved() -> None:
    plain, placed = backbone("bert"), backbone("bert", device_map="auto")
    for expected, found in zip(
        loss_and_gradient(plain, batch_of(plain)), loss_and_gradient(placed, batch_of(plain)), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("key", "value"), [("quantization", "2bit"), ("device_map", "balanced")])
def test_an_unknown_way_to_load_is_refused_by_name(key: str, value: str) -> None:
    changes: dict[str, Any] = {key: value}
    with pytest.raises(ConfigurationError, match=f"backbone.{key}={value} is not known"):
        TextBackbone("x", **changes)


# Does it fit?


def sparse(path: Path, **tensors: tuple[int, ...]) -> None:
    """A safetensors file of float32 tensors with a true header, whose data are a hole that takes no room on disk."""
    header, end = {}, 0
    for name, sizes in tensors.items():
        begin, end = end, end + 4 * math.prod(sizes)
        header[name] = {"dtype": "F32", "shape": list(sizes), "data_offsets": [begin, end]}
    written = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(8 + len(written) + end)


def test_a_model_that_does_not_fit_is_refused_with_the_numbers_before_anything_is_loaded(tmp_path: Path) -> None:
    sparse(tmp_path / "model.safetensors", weight=(2**20, 2**18))  # and no configuration, no tokenizer
    numbers = r"take 1,024\.0 GiB in float32, and [\d,]+\.\d GiB are free on cpu; try backbone\.dtype=bfloat16, or a sm"
    with pytest.raises(ConfigurationError, match=numbers):
        load_text_backbone(TextBackbone(str(tmp_path)), False, CPU)
    with pytest.raises(ConfigurationError, match=r"take 512\.0 GiB in bfloat16.*; try a smaller backbone"):
        load_text_backbone(TextBackbone(str(tmp_path), dtype="bfloat16"), False, CPU)


def test_a_family_that_scales_its_embeddings_needs_memory_for_a_second_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 8}
    Gemma3TextConfig(vocab_size=2**18, intermediate_size=8, **sizes).save_pretrained(tmp_path)
    sparse(tmp_path / "model.safetensors", embed=(2**18, 2**10))
    monkeypatch.setattr(loading, "free_memory", lambda device: 1.5 * 2**30)
    numbers = r"its weights and the rows of its vocabulary take 2\.0 GiB in float32, and 1\.5 GiB are free"
    with pytest.raises(ConfigurationError, match=numbers):
        refuse_too_large(TextBackbone(str(tmp_path)), False, CPU)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 262144, "hidden_size": 1024}')
    refuse_too_large(TextBackbone(str(tmp_path)), False, CPU)  # one table


def test_a_model_that_does_not_fit_a_gpu_is_told_what_helps_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    sparse(tmp_path / "model.safetensors", weight=(2**20, 2**16))
    helps = r"take 128\.0 GiB in bfloat16, and 80\.0 GiB are free on cuda; try backbone\.quantization=8bit or 4bit, or"
    with pytest.raises(ConfigurationError, match=helps):
        load_text_backbone(TextBackbone(str(tmp_path), dtype="bfloat16"), False, CUDA)


def test_the_parts_of_a_model_are_added_up_and_other_files_are_not(tmp_path: Path) -> None:
    sparse(tmp_path / "one.safetensors", a=(10, 10))
    sparse(tmp_path / "two.safetensors", b=(7,))
    sparse(tmp_path / "consolidated.safetensors", c=(1000,))
    weights = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(weights))
    assert weight_shapes(str(tmp_path), None) == {"a": ("F32", [10, 10]), "b": ("F32", [7])}
    (tmp_path / "two.safetensors").unlink()
    assert weight_shapes(str(tmp_path), None) == {}


@pytest.mark.parametrize("name", ["bert", "gpt2", "opt", "qwen"])
@pytest.mark.parametrize("words", [False, True])
def test_the_bytes_that_are_foreseen_are_those_of_the_loaded_model(name: str, words: bool) -> None:
    shapes = weight_shapes(folder(name), None)
    loaded = sum(weight.nbytes for weight in backbone(name, words, dtype="bfloat16").parameters())
    drawn = 0 if words or name != "bert" else 2 * (32 * 32 + 32)  # its pooler is not in the checkpoint
    assert weight_bytes(shapes, words, "bfloat16", None) == loaded - drawn
    assert weight_bytes(shapes, words, "float32", None) == 2 * (loaded - drawn)


def test_quantized_matrices_count_by_their_bits_and_whole_numbers_stay_as_they_are() -> None:
    shapes: Any = {"matrix": ("BF16", [10, 10]), "vector": ("F32", [10]), "positions": ("I64", [1, 6])}
    assert weight_bytes(shapes, True, "bfloat16", None) == 200 + 20 + 48
    assert weight_bytes(shapes, True, "bfloat16", "8bit") == 100 + 20 + 48
    assert weight_bytes(shapes, True, "bfloat16", "4bit") == 50 + 20 + 48


def test_a_model_in_the_hubs_cache_is_measured_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    sparse(snapshot / "model.safetensors", weight=(3,))
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("abc")
    assert weight_shapes("some/model", None) == {"weight": ("F32", [3])}


def test_a_model_on_the_hub_is_not_measured_offline_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert weight_shapes("some/model", None) == {}
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="free memory is known on Linux only")
def test_free_memory_is_some_of_what_there_is() -> None:
    free = free_memory(CPU)
    assert free is not None
    assert 2**20 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free_memory(torch.device("mps")) is None
