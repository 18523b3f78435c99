"""Frozen Hugging Face text models behind a soft prompt: encoders, masked and causal language models.

Shapes: k members, r rows (sequences) of each, m virtual tokens, l text tokens, d embedding width, h hidden
width, v vocabulary size. In the last layer at one position: n = k * r sequences of s = m + l rows, a attention heads of
width h / a.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones import loading
from llm_catalyst.models.backbones.base import FrozenBackbone
from llm_catalyst.models.backbones.config import DTYPES, TextBackbone, explained_load_errors, refuse_pickle
from llm_catalyst.models.backbones.model_config import infer_kind, read_model_config
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.validation import ConfigurationError


class FrozenText(FrozenBackbone):
    """A loaded, frozen text model.

    With `narrow` its last layer can compute one state of each sequence alone (see `restrict_last_layer`).
    """

    def __init__(
        self, settings: TextBackbone, model: Any, tokenizer: Any, twice: bool = False, narrow: bool = False
    ) -> None:
        super().__init__(settings, model, tokenizer, getattr(model.config, "_commit_hash", None))
        self.twice = twice
        self.narrow = narrow
        self.compiled = settings.compile
        self.causal = settings.kind == "causal_lm"
        self.base: Any = model.base_model if isinstance(model.base_model, nn.Module) else model
        self.train(False)

    @property
    def width(self) -> int:
        """The hidden width h, which the configuration of a composite checkpoint (text and images) does not name."""
        return getattr(self.base.config, "word_embed_proj_dim", None) or self.base.config.hidden_size

    @cached_property
    def vocabulary(self) -> Tensor:
        """Input embeddings (v, d) of the vocabulary, as the model computes them: some families scale or normalize rows.

        Sources: Gemma's, BioGPT's and XGLM's scaled word embeddings in transformers.
        """
        table = self.base.get_input_embeddings()
        if type(table) is nn.Embedding:
            return table.weight
        with torch.no_grad():
            return table(torch.arange(len(table.weight), device=table.weight.device))

    def facts(self) -> dict[str, Any]:
        """The weights' name, location, commit and number, with the settings that they are computed with."""
        return super().facts() | {
            "parameters": self.model.num_parameters(),  # of quantized ones as if they were not
            "trust_remote_code": self.settings.trust_remote_code,
            "dtype": self.settings.dtype,
            "attention": getattr(self.base.config, "_attn_implementation", None),
        }

    def longest_text(self, prompt_length: int) -> int:
        """The number of text tokens that fit beside m virtual ones: `backbone.max_length`, or the positions left."""
        positions = getattr(self.base.config, "max_position_embeddings", None) or 10**9
        # RoBERTa's positions begin behind its padding id.
        offset = (self.base.config.pad_token_id or 0) + 1 if "roberta" in self.base.config.model_type else 0
        left = positions - offset - prompt_length
        if left < 4:
            problem = f"prompt.length={prompt_length} leaves {left} of {positions} positions for the text"
            raise ConfigurationError(f"{problem}; make it smaller")
        return min(self.settings.max_length, left)

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
        """The state (k, r, h) that represents a sequence, as `backbone.pooling` says."""
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
        state = self.state(prompts, batch, prompts.shape[1] + text)
        logits = apply_language_model_head(self.model, self.base, state.flatten(0, 1))
        return logits[:, words].unflatten(0, state.shape[:2])


class BaseOutput(tuple[Tensor]):
    """Hidden states as a base model returns them; whatever else a language model looks for is None."""

    def __getattr__(self, name: str) -> Tensor | None:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None


def apply_language_model_head(model: Any, base: Any, states: Tensor) -> Tensor:
    """Logits (n, v) that a Hugging Face language model makes of its base model's hidden states (n, h).

    The model's own forward pass runs with a base model that returns these states, so that whatever the family does to
    them is done (activations, norms, scales, soft caps), at one position of each sequence instead of all.
    """

    def return_states(*_: Any, **__: Any) -> BaseOutput:
        return BaseOutput((states[:, None],))

    # Some causal models (OPT) call the decoder of their base model themselves.
    with replace_forward(base, return_states), replace_forward(getattr(base, "decoder", base), return_states):
        return model(inputs_embeds=states.new_zeros(len(states), 1, 1)).logits[:, 0]


@contextmanager
def replace_forward(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """While entered, the module computes `forward`, also if it is compiled."""
    before, compiled = vars(module).get("forward"), module._compiled_call_impl
    module.forward, module._compiled_call_impl = forward, None
    try:
        yield
    finally:
        module.forward, module._compiled_call_impl = before, compiled
        if before is None:
            del module.forward


def load_text_backbone(settings: TextBackbone, words: bool, device: torch.device, twice: bool = False) -> FrozenText:
    """The frozen model on `device`; with `words` its language-model head too.

    Weights that a checkpoint lacks (RoBERTa's pooler) are drawn from torch's global generator: seed it.
    Raises ConfigurationError where the model cannot be loaded.
    """
    settings = replace(settings, dtype=loading.resolve_dtype(settings.dtype, device))
    settings.check(device)
    refuse_pickle("backbone.name", settings.location())
    loading.refuse_too_large(settings, words, device)
    if settings.kind is None:
        settings = replace(settings, kind=infer_kind(read_model_config(settings.location(), settings.revision)))
    loading.set_tf32(settings.tf32, device)
    placed = loading.placement_arguments(settings, device)
    attention = loading.resolve_attention(settings.attention, settings.dtype, device)
    tokenizer, model = read_checkpoint(settings, words, {"attn_implementation": attention, **placed})
    with explained_load_errors(settings.name):
        model = model if placed else model.to(device)
    if settings.pooling == "pooler" and getattr(model, "pooler", None) is None:
        raise ConfigurationError(f"{settings.name} has no pooling layer of its own; use backbone.pooling=first or mean")
    if twice and not hasattr(model.base_model, "embeddings"):
        raise ConfigurationError(f"protocol=official needs a BERT-like encoder; {settings.name} has no such embeddings")
    # accelerate moves the inputs of a layer that it placed, which `restrict_last_layer` would bypass. It was not tried
    # with flash attention.
    narrowed = not placed and attention != "flash_attention_2" and restrict_last_layer(model.base_model)
    if settings.checkpointing:
        loading.checkpoint_layers(settings.name, model)
    if settings.compile:
        loading.compile_base(model, device)
    return FrozenText(settings, model, tokenizer, twice, narrowed)


def read_checkpoint(settings: TextBackbone, words: bool, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """Tokenizer and model; `words` with the language-model head, `arguments` for transformers."""
    import transformers

    classes = {"masked_lm": transformers.AutoModelForMaskedLM, "causal_lm": transformers.AutoModelForCausalLM}
    loader: Any = classes[str(settings.kind)] if words else transformers.AutoModel
    where = settings.location()
    common: Any = {"trust_remote_code": settings.trust_remote_code, "revision": settings.revision or "main"}
    with explained_load_errors(settings.name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **common)
        dtype = DTYPES[settings.dtype]
        return tokenizer, loader.from_pretrained(where, dtype=dtype, use_safetensors=True, **arguments, **common)


# Those of transformers' modules whose layers have the parts of BERT's, and in its order.
LIKE_BERT = re.compile(
    r"transformers\.models\.(bert|camembert|data2vec|electra|ernie|roberta|roc_bert|xlm_roberta)\.modeling_\1(_text)?"
)


def at_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden (…, s, h) at positions (…) -> (…, h)."""
    index = positions[..., None, None].expand(*positions.shape, 1, hidden.shape[-1])
    return hidden.gather(-2, index).squeeze(-2)


def restrict_last_layer(base: nn.Module) -> bool:
    """Let the base model take `places` (n,) and `real` (n, s), and then give those states alone (n, 1, h).

    They reach the last layer through the keyword arguments that transformers hands on from layer to layer. Without them
    nothing changes. False where the last layer is not like that of BERT: then the model stays as it is.
    """
    layers = getattr(getattr(base, "encoder", None), "layer", None)
    if not layers or not LIKE_BERT.fullmatch(type(layers[-1]).__module__) or layers[-1].is_decoder:
        return False
    layers[-1].forward = partial(forward_layer, layers[-1], layers[-1].forward)
    return True


def forward_layer(
    layer: Any, whole: Any, hidden: Tensor, *rest: Any, places: Tensor | None = None, real: Any = None, **named: Any
) -> Tensor:
    """The layer's states at `places`, or without them what its own forward pass gives."""
    if places is None:
        return whole(hidden, *rest, **named)
    return state_at(layer, hidden, places, real)[:, None]


def state_at(layer: Any, hidden: Tensor, places: Tensor, real: Tensor) -> Tensor:
    """The layer's output (n, h) at `places` (n,), for its input (n, s, h) whose rows are `real` (n, s) or padding.

    One query of each sequence needs neither keys nor values of all rows: with a row's key k = K x + c and value
    v = V x + b, q·k = (K^T q)·x + q·c, whose second term is the same for all rows and so leaves the softmax as it is,
    and sum_i p_i v_i = V (sum_i p_i x_i) + b sum_i p_i. So two products with K and V for each sequence take the place
    of two for each row. The same up to rounding.
    """
    attention = layer.attention.self
    here = at_positions(hidden, places)
    split = (attention.num_attention_heads, attention.attention_head_size)
    key, value = (projection.weight.unflatten(0, split) for projection in (attention.key, attention.value))
    query = attention.query(here).unflatten(-1, split) * split[1] ** -0.5
    fits = torch.einsum("nad,adh->nah", query, key) @ hidden.mT
    shares = attention.dropout(fits.masked_fill(~real[:, None], -torch.inf).softmax(-1))
    read = torch.einsum("nah,adh->nad", shares @ hidden, value)
    read = read + shares.sum(-1, keepdim=True) * attention.value.bias.unflatten(0, split)
    return layer.feed_forward_chunk(layer.attention.output(read.flatten(1), here))
