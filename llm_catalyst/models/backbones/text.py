"""Frozen Hugging Face text models behind a soft prompt: encoders, masked and causal language models.

Shapes: k members, r rows (sequences) of each, m virtual tokens, l text tokens, d embedding width, h hidden
width, v vocabulary size. In the last layer at one position: n = k * r sequences of s = m + l rows, a attention heads of
width h / a.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones import loading
from llm_catalyst.models.backbones.attention_by_length import choose_attention_by_length
from llm_catalyst.models.backbones.base import FrozenBackbone
from llm_catalyst.models.backbones.checkpoint import read_checkpoint, refuse_drawn_pooler
from llm_catalyst.models.backbones.compatibility import check_backbone, find_base, find_positions
from llm_catalyst.models.backbones.config import Pooling, TextBackbone, explained_load_errors
from llm_catalyst.models.backbones.local_files import refuse_place
from llm_catalyst.models.backbones.model_config import infer_kind, read_model_config
from llm_catalyst.models.backbones.sentence_pooling import read_pooling
from llm_catalyst.models.backbones.single_position import at_positions, restrict_last_layer
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.validation import ConfigurationError


class FrozenText(FrozenBackbone):
    """A loaded, frozen text model.

    With `narrow` its last layer can compute one state of each sequence alone (see `restrict_last_layer`).
    With `official_states` token types and multiple choice are those of the method's published code (see `_states`,
    `represent`). `sentence_pooling` is that of a sentence encoder's own files, `drawn_pooler` whether its pooler was
    drawn at random.
    """

    sentence_pooling: Pooling | None = None
    drawn_pooler = False

    def __init__(
        self,
        settings: TextBackbone,
        model: Any,
        tokenizer: Any,
        twice: bool = False,
        narrow: bool = False,
        official_states: bool = False,
    ) -> None:
        super().__init__(settings, model, tokenizer, getattr(model.config, "_commit_hash", None))
        self.twice = twice
        self.narrow = narrow
        self.official_states = official_states
        self.compiled = settings.compile
        self.causal = settings.kind == "causal_lm"
        self.base: Any = find_base(model)
        self.train(False)

    @property
    def chat(self) -> bool:
        """Whether requests are turns of a chat. Raises ConfigurationError where there is no template for them."""
        there = bool(self.tokenizer.chat_template)
        if self.settings.chat and not there:
            fix = "backbone.chat=false writes requests as plain text"
            raise ConfigurationError(f"backbone.chat=true: {self.settings.name} has no chat template; {fix}")
        return there if self.settings.chat is None else self.settings.chat

    @property
    def width(self) -> int:
        """The hidden width h; in a composite checkpoint (text and images) that of the text model."""
        config = self.base.config.get_text_config()
        return getattr(config, "word_embed_proj_dim", None) or config.hidden_size

    @cached_property
    def vocabulary(self) -> Tensor:
        """Input embeddings (v, d) of the vocabulary, as the model computes them: some families scale or normalize rows.

        Sources: Gemma's, BioGPT's and XGLM's scaled word embeddings in transformers.
        """
        table = self.base.get_input_embeddings()
        if type(table) is nn.Embedding:
            return table.weight
        if not isinstance(getattr(table, "weight", None), Tensor):
            raise TypeError(f"{type(table).__name__} is no table of word embeddings")
        with torch.no_grad():
            rows = table(torch.arange(len(table.weight), device=table.weight.device))
        if not isinstance(rows, Tensor):
            raise TypeError(f"{type(table).__name__} gives more than rows")
        return rows

    def facts(self) -> dict[str, Any]:
        """The weights' name, location, commit and number, with the settings that they are computed with."""
        return super().facts() | {
            "parameters": self.model.num_parameters(),  # of quantized ones as if they were not
            "trust_remote_code": self.settings.trust_remote_code,
            "dtype": self.settings.dtype,
            "attention": getattr(self.base.config, "_attn_implementation", None),
            "pooling": self.pooling,
            "drawn_pooler": self.drawn_pooler,
        }

    @cached_property
    def lacks_padding(self) -> bool:
        """Whether the model has no row for the tokenizer's padding token; it is never read, and any row will do."""
        padding = self.tokenizer.pad_token_id
        return padding is not None and padding >= len(self.vocabulary)

    @cached_property
    def reads_types(self) -> bool:
        """Whether the model has an embedding for each segment that its tokenizer distinguishes.

        Others must not be given any: GPT-2 and CTRL add that of the token with the segment's number. XLNet compares
        segments, and numbers none.
        """
        if "token_type_ids" not in inspect.signature(self.base.forward).parameters:
            return False
        known = getattr(self.base.config, "type_vocab_size", None) or 0
        found = max(self.tokenizer("a", "a").get("token_type_ids") or [0])
        return known > found or self.base.config.model_type == "xlnet"

    @cached_property
    def positions(self) -> int | None:
        """The tokens that a sequence may have, virtual ones included; None: any number."""
        return find_positions(self.base)

    def longest_text(self, prompt_length: int) -> int | None:
        """The text tokens that fit beside m virtual ones: `backbone.max_length`, or the positions left; None: any."""
        left = None if self.positions is None else self.positions - prompt_length
        if left is not None and left < 4:
            problem = f"prompt.length={prompt_length} leaves {left} of {self.positions} positions for the text"
            raise ConfigurationError(f"{problem}; make it smaller")
        return min((limit for limit in (self.settings.max_length, left) if limit is not None), default=None)

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
        layer's whole output goes in instead, as in the method's published code. There the text's token types go into
        the embedding layer, and zeros into the model; with `official_states` here, too.
        """
        k, r, length = batch.tokens.shape
        tokens = batch.tokens.reshape(k * r, length)
        if self.lacks_padding:
            tokens = tokens.masked_fill(batch.mask.reshape(k * r, length) == 0, 0)
        types = batch.types.reshape(k * r, length) if batch.types is not None and self.reads_types else None
        first = {"token_type_ids": types} if self.twice and self.official_states and types is not None else {}
        embed = self.base.embeddings if self.twice else self.base.get_input_embeddings()
        words = embed(input_ids=tokens, **first) if self.twice else embed(tokens)
        m = prompts.shape[1]
        rows = prompts.to(words.dtype)[:, None].expand(k, r, *prompts.shape[1:]).reshape(k * r, *prompts.shape[1:])
        mask = torch.cat([batch.mask.new_ones(k * r, m), batch.mask.reshape(k * r, length)], dim=1)
        extra: dict[str, Any] = {}
        if types is not None and not first:
            extra["token_type_ids"] = torch.cat([types.new_zeros(k * r, m), types], dim=1)
        if self.causal:
            extra["use_cache"] = False
        if places is not None:
            extra |= {"places": places, "real": mask.bool()}
        return self.base(inputs_embeds=torch.cat([rows, words], dim=1), attention_mask=mask, **extra).last_hidden_state

    def pooled(self, prompts: Tensor, batch: TextBatch) -> Tensor:
        """The state (k, r, h) that represents a sequence, as `backbone.pooling` says."""
        return self.represent(prompts, batch, self.pooling)

    @property
    def pooling(self) -> Pooling:
        """The state that the classifier reads: as the settings say, or the model's own files, or by its kind."""
        return self.settings.pooling or self.sentence_pooling or ("last" if self.causal else "first")

    def represent(self, prompts: Tensor, batch: TextBatch, pooling: Pooling) -> Tensor:
        """The state (k, r, h) that represents a sequence by this pooling.

        With `official_states` the pooler reads the prompt's first row where choices are scored, as the published code.
        """
        if pooling == "mean":
            return self.mean(prompts, batch)
        places = prompts.shape[1] + torch.zeros_like(batch.mask[..., 0])
        if pooling == "last":
            places = places + batch.mask.sum(-1) - 1
        elif pooling == "pooler" and self.official_states and batch.choices > 1:
            places = torch.zeros_like(places)
        state = self.state(prompts, batch, places)
        return self.base.pooler(state.flatten(0, 1)[:, None]).view_as(state) if pooling == "pooler" else state

    def mean(self, prompts: Tensor, batch: TextBatch) -> Tensor:
        """The mean state (k, r, h) over the prompt's rows and the real tokens, in float32."""
        hidden = self.hidden(prompts, batch)
        mask = torch.cat([batch.mask.new_ones(*batch.mask.shape[:2], prompts.shape[1]), batch.mask], dim=-1)[..., None]
        return ((hidden * mask).sum(2) / mask.sum(2)).float()

    def sentence(self, prompts: Tensor, batch: TextBatch) -> Tensor:
        """Unit-length sentence embeddings (k, r, h), float32: the mean state, or that of a sentence encoder's files."""
        state = self.represent(prompts, batch, self.sentence_pooling or "mean")
        return nn.functional.normalize(state.float(), dim=-1)

    def word_logits(self, prompts: Tensor, batch: TextBatch, words: Tensor) -> Tensor:
        """Language-model logits (k, r, c) of the vocabulary ids `words` (c,), at the mask or after the last token.

        The mask is the last one: that of the cloze, which stands behind the text.
        """
        if self.causal:
            text = batch.mask.sum(-1) - 1
        else:
            masks = batch.tokens == self.tokenizer.mask_token_id
            text = masks.shape[-1] - 1 - masks.flip(-1).long().argmax(-1)
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


def load_text_backbone(
    settings: TextBackbone, words: bool, device: torch.device, twice: bool = False, official_states: bool = False
) -> FrozenText:
    """The frozen model on `device`; with `words` its language-model head too.

    Weights that a checkpoint lacks (RoBERTa's pooler) are drawn from torch's global generator: seed it.
    Raises ConfigurationError where the model cannot be loaded.
    """
    settings = replace(settings, dtype=loading.resolve_dtype(settings.dtype, device))
    settings.check(device)
    refuse_place("backbone.name", settings.location())
    loading.refuse_too_large(settings, words, device)
    config = read_model_config(settings.location(), settings.revision)
    settings = replace(settings, kind=settings.kind or infer_kind(config))
    loading.set_tf32(settings.tf32, device)
    placed = loading.placement_arguments(settings, device)
    attention = loading.resolve_attention(settings.attention, settings.dtype, device)
    found = read_checkpoint(settings, words, {"attn_implementation": attention, **placed})
    tokenizer, model = found.tokenizer, found.model
    with explained_load_errors(settings.name):
        model = model if placed else model.to(device)
    drawn = refuse_drawn_pooler(settings, found.drawn, twice)
    pooling, unread = read_pooling(settings)
    choose_attention_by_length(find_base(model))
    warnings = (*check_backbone(FrozenText(settings, model, tokenizer), words), *drawn, *unread)
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
    frozen = FrozenText(settings, model, tokenizer, twice, narrowed, official_states)
    frozen.warnings, frozen.sentence_pooling, frozen.drawn_pooler = warnings, pooling, bool(drawn)
    with explained_load_errors(settings.name):
        frozen.record_files(settings.location(), settings.revision)
    return frozen
