"""Which loaded models can be served: those that compute from embedded tokens what they compute from the tokens' ids.

Every model is tried on a few tokens before it is used, so that one of a family that was never tried gives no wrong
numbers. Here `backbone` is a FrozenText, whose file imports this one. tests/models/test_all_families.py tries the
families of transformers, and docs/guide.md lists them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.attention_by_length import find_longest_full
from llm_catalyst.models.backbones.config import Kind
from llm_catalyst.models.soft_prompt import special_ids
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.memory import out_of_memory
from llm_catalyst.utils.terminal import list_names
from llm_catalyst.utils.validation import ConfigurationError

POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe", "positions_embed", "position_embed")
CLIPS = ("clip", "clip_text_model", "chinese_clip", "siglip", "siglip_text_model", "siglip2", "siglip2_text_model")
PROMPT, TEXT = 3, 6  # tokens that a model is tried on
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # relative to the largest value
PADDING = (
    "the states that backbone.name={name} gives a text depend on the padding behind it, and so scores depend a little "
    "on the texts of a batch; with protocol.pad_to_max_length=true all texts are padded alike"
)
BY_LENGTH = (
    "backbone.name={name} attends in sparse blocks where the prompt and the longest text of a batch have more than "
    "{most} tokens, else to all tokens: so the scores of a shorter text depend on whether it is padded beyond that"
)
REPLACE = "use another backbone.dtype, or if the file holds them, a state of the model from before they came up"
SERVED = "docs/guide.md lists the families that can be used"


def find_base(model: Any) -> Any:
    """The part of a Hugging Face model that gives hidden states: the model itself where it has no head."""
    if isinstance(model.base_model, nn.Module) and model.base_model is not model:
        return model.base_model
    for name in ("model", "language_model"):  # Llama 4 gives another name for its base than it has
        if hasattr(model, name) and model.get_output_embeddings() is not None:
            return find_base(getattr(model, name))
    return model


def find_positions(base: Any) -> int | None:
    """The tokens that a sequence may have: the rows of a table of positions behind the first that is used.

    Position i takes row padding_idx + 1 + i in RoBERTa's family, and row offset + i in OPT's. Also at most the number
    in the configuration, which is that of relative or rotary positions.
    """
    limits = []
    text = base.get_decoder() if hasattr(base, "get_decoder") else base  # not the part for images
    for path, module in text.named_modules():
        name = path.rpartition(".")[2]
        if name in POSITION_TABLES and isinstance(rows := getattr(module, "num_embeddings", None), int):
            padding = getattr(module, "padding_idx", None)
            limits.append(rows - getattr(module, "offset", 0 if padding is None else padding + 1))
    with suppress(NotImplementedError):  # XLNet's configuration refuses to name a number
        limits.append(getattr(base.config.get_text_config(), "max_position_embeddings", None) or 0)
    return min((limit for limit in limits if limit > 0), default=None)


def refuse_family(name: str, config: Any, head: Kind | None = None) -> None:
    """Raise ConfigurationError for an encoder-decoder, or its encoder alone, a CLIP, or a family without that head.

    `head` is the kind of the language-model head that is needed. Of an encoder alone transformers would draw a decoder.
    """
    from transformers.models.auto import modeling_auto as auto

    if config.is_encoder_decoder:
        raise refuse_model(name, config, "is an encoder-decoder, which is not supported")
    if config.model_type in CLIPS:
        problem = "is a CLIP, whose text model is of use beside its image model only"
        raise refuse_model(
            name, config, f"{problem}: for tasks of pictures, such as task=shapes, use backbone=clip_vit_b16"
        )
    if hasattr(config, "auto_map"):  # of a class of its own
        return
    families = {*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    if config.model_type in {*auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES} - families:
        saved = ", ".join(config.architectures or ["unknown class"])
        raise refuse_model(name, config, f"holds the encoder of an encoder-decoder ({saved}), which is not supported")
    if head is None:
        return
    names = {"masked_lm": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "causal_lm": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    if config.model_type not in names[head]:
        raise refuse_model(name, config, f"has no head of a {head} in transformers; head=classifier needs none")


def refuse_model(name: str, config: Any, problem: str) -> ConfigurationError:
    """The error for a model that cannot be served."""
    return ConfigurationError(f"backbone.name={name} ({config.model_type}) {problem}; {SERVED}")


def refuse_missing_rows(backbone: Any, ids: Iterable[int], where: str) -> None:
    """Raise ConfigurationError where one of these token ids has no row in the model's embedding."""
    rows, largest = len(backbone.vocabulary), max(ids, default=0)
    if largest >= rows:
        tokenizer = backbone.tokenizer
        raise ConfigurationError(
            f"{where} holds {tokenizer.convert_ids_to_tokens(largest)!r}, token {largest} of {len(tokenizer)} of the "
            f"tokenizer of backbone.name={backbone.settings.name}, and the model embeds {rows}; put the model's own "
            f"tokenizer there, or give it rows: model.resize_token_embeddings({len(tokenizer)}), and train these"
        )


def check_backbone(backbone: Any, words: bool) -> tuple[str, ...]:
    """Raise ConfigurationError unless states, and with `words` logits, are those of the model's own forward pass.

    A prompt of tokens, embedded, and a text are compared with the same ids; the family is named where they differ.
    Returns what a user is to know of the model.
    """
    name, config = backbone.settings.name, backbone.base.config
    try:
        device = backbone.vocabulary.device
        devices = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices), unchanged(backbone.model):
            refuse_infinite_weights(backbone)
            compare_states(backbone, choose_tokens(backbone))
            if words:
                compare_logits(backbone)
            notes = [] if is_padding_ignored(backbone) else [PADDING.format(name=name)]
            most = find_longest_full(backbone.base)
            if most and most < (backbone.positions or most + 1):
                compare_states(backbone, choose_tokens(backbone, most + 1))
                notes.append(BY_LENGTH.format(name=name, most=most))
            return tuple(notes)
    except Exception as error:  # whatever a family's own code raises
        if isinstance(error, ConfigurationError) or out_of_memory(error):
            raise
        why = " ".join(str(error).split())[:300]
        raise refuse_model(name, config, f"cannot be given embedded tokens ({type(error).__name__}: {why})") from error


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Afterwards a model has the modules, attributes and buffers of before: some change with the texts they read."""
    before = [(part, {**vars(part)}, {**part._modules}, {**part._buffers}) for part in model.modules()]
    values = [(buffer, buffer.clone()) for *_, buffers in before for buffer in buffers.values() if buffer is not None]
    try:
        yield
    finally:
        for part, attributes, modules, buffers in before:
            vars(part).clear()
            vars(part).update(attributes)
            part._modules.clear()
            part._modules.update(modules)
            part._buffers.clear()
            part._buffers.update(buffers)
        for buffer, value in values:
            buffer.copy_(value)


def refuse_infinite_weights(backbone: Any) -> None:
    """Raise ConfigurationError where a weight is not finite; of the vocabulary's, the rows are named."""
    refuse_infinite_rows(backbone)
    weights = [(name, each) for name, each in backbone.model.named_parameters() if each.is_floating_point()]
    # A sum is faster, and not finite where any weight is not; where it is too large itself, each weight is looked at.
    sums = [(name, each) for name, each in weights if not each.is_meta and not each.sum(dtype=torch.float32).isfinite()]
    if found := [name for name, each in sums if not each.isfinite().all()]:
        raise ConfigurationError(
            f"backbone.name={backbone.settings.name}: {len(found)} of its weights hold numbers that are not finite in "
            f"backbone.dtype={backbone.settings.dtype} ({list_names(found, 3)}); {REPLACE}"
        )


def refuse_infinite_rows(backbone: Any) -> None:
    """Raise ConfigurationError where a row of the vocabulary holds a number that is not finite."""
    if (found := (~backbone.vocabulary.isfinite().all(1)).nonzero().flatten().tolist()) == []:
        return
    size = len(backbone.tokenizer)
    rows = [f"{i} ({backbone.tokenizer.convert_ids_to_tokens(i)!r})" if i < size else f"{i} (no token)" for i in found]
    raise ConfigurationError(
        f"backbone.name={backbone.settings.name}: the embedding has numbers that are not finite in "
        f"backbone.dtype={backbone.settings.dtype}, in {len(found)} of its {len(backbone.vocabulary)} rows: "
        f"{list_names(rows, 5)}; {REPLACE}"
    )


def compare_states(backbone: Any, ids: Tensor) -> None:
    """Compare the states of an embedded prompt and a text with those of the same ids (s,)."""
    whole = backbone.base(**make_inputs(backbone, ids)).last_hidden_state[0]
    prompt, batch = backbone.vocabulary[ids[:PROMPT]][None], make_batch(ids[PROMPT:])
    states = backbone.hidden(prompt, batch)[0, 0]
    require_equal(backbone, whole, states, "hidden states")
    backbone.hidden(1.1 * prompt, batch)  # Gemma 4 looks for the ids of embedded tokens, and a soft prompt has none
    if states.shape[-1] != backbone.width:
        problem = f"has states of width {states.shape[-1]}, and its configuration says {backbone.width}"
        raise refuse_model(backbone.settings.name, backbone.base.config, problem)


def compare_logits(backbone: Any) -> None:
    """Compare the logits at the end of an embedded prompt and a text with those of the same ids."""
    ids = choose_tokens(backbone)
    if not backbone.causal:
        refuse_missing_rows(backbone, [backbone.tokenizer.mask_token_id], "task.cloze")
        ids[-1] = backbone.tokenizer.mask_token_id
    whole = backbone.model(**make_inputs(backbone, ids)).logits[0, -1]
    prompt, batch = backbone.vocabulary[ids[:PROMPT]][None], make_batch(ids[PROMPT:])
    logits = backbone.word_logits(prompt, batch, torch.arange(len(whole), device=ids.device))[0, 0]
    require_equal(backbone, whole, logits, "logits of its language-model head")


def is_padding_ignored(backbone: Any) -> bool:
    """Whether a text has the same states whatever stands behind it to fill a batch up."""
    ids = choose_tokens(backbone)[:-1]  # 8 tokens: Funnel, which joins neighbours, ignores padding behind 9
    prompt, alone = backbone.vocabulary[ids[:PROMPT]][None], make_batch(ids[PROMPT:])
    padded = replace(alone, tokens=alone.tokens.repeat(1, 1, 2), mask=nn.functional.pad(alone.mask, (0, TEXT - 1)))
    expected = backbone.hidden(prompt, alone)[0, 0]
    return is_close(backbone.hidden(prompt, padded)[0, 0, : len(ids)], expected)


def choose_tokens(backbone: Any, count: int = PROMPT + TEXT) -> Tensor:
    """Ids (count,) of plain tokens, the first of them different and spread over the vocabulary."""
    special = special_ids(backbone.tokenizer)
    size = min(len(backbone.vocabulary), len(backbone.tokenizer))
    plain = [i for i in range(size) if i not in special]
    chosen = plain[:: max(1, len(plain) // (PROMPT + TEXT))][: PROMPT + TEXT]
    return torch.tensor(list(islice(cycle(chosen), count)), device=backbone.device)


def make_inputs(backbone: Any, ids: Tensor) -> dict[str, Any]:
    """The arguments of a model's own forward pass for one sequence."""
    plain = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    return {**plain, "use_cache": False} if backbone.causal else plain


def make_batch(ids: Tensor) -> TextBatch:
    """A batch of one text."""
    tokens = ids[None, None]
    return TextBatch(tokens, torch.ones_like(tokens), None, torch.zeros_like(tokens[..., 0]), 1)


def require_equal(backbone: Any, whole: Tensor, found: Tensor, what: str) -> None:
    """Raise ConfigurationError unless what was found is what the model gives for the ids."""
    if is_close(found, whole):
        return
    problem = f"computes other {what} from embedded tokens than from their ids"
    if not whole.isfinite().all():
        problem = f"computes {what} that are not finite in backbone.dtype={backbone.settings.dtype}"
    raise refuse_model(backbone.settings.name, backbone.base.config, problem)


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to the rounding of their type."""
    limit = TOLERANCE.get(expected.dtype, 1e-3) * expected.float().abs().max().clamp_min(1e-6)
    return found.shape == expected.shape and bool(((found.float() - expected.float()).abs() <= limit).all())
