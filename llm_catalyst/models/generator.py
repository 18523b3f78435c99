"""A frozen language model that continues a request with a soft prompt in it: losses of answers, and generated text.

Shapes: k members, b requests of each, n = k * b rows, m virtual tokens, l tokens of a row, d embedding width, h hidden
width, v vocabulary size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.text import FrozenText, apply_language_model_head
from llm_catalyst.models.base import Parameters, PromptedModel
from llm_catalyst.tasks.generation_task import GenerationTask
from llm_catalyst.tasks.request_batching import RequestBatch

IGNORED = -100  # the label of a position that no loss is taken at, as in torch and transformers


@dataclass(frozen=True)
class AssembledRows:
    """Rows of embeddings, each one request with its prompt.

    embeddings (n, l, d); mask (n, l) bool, true on real positions; labels (n, l) vocabulary ids of the answer at its
    positions, IGNORED elsewhere.
    """

    embeddings: Tensor
    mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class PromptedGenerator(PromptedModel):
    """A frozen causal language model whose requests, those of `task`, hold a soft prompt (see `PromptedModel`).

    The prompt's rows stand where the instruction stands in the request, next to its text, and never before padding.
    """

    backbone: FrozenText
    task: GenerationTask

    def logits(self, parameters: Parameters, batch: Any) -> Tensor:
        """Not defined: a generation task has no classes."""
        raise NotImplementedError("a generation task has no class logits")

    def losses(self, parameters: Parameters, batch: RequestBatch) -> Tensor:
        """The mean negative log-likelihood in nats (k, b) of the tokens of each answer, its end included."""
        rows = assemble_rows(self.backbone, parameters["prompt"], batch, with_answers=True)
        base = self.backbone.base
        hidden = base(inputs_embeds=rows.embeddings, attention_mask=rows.mask.long(), use_cache=False).last_hidden_state
        following = rows.labels[:, 1:]
        taken = following != IGNORED  # the positions before those of the answer: all others need no logits
        logits = apply_language_model_head(self.backbone.model, base, hidden[:, :-1][taken]).float()
        each = nn.functional.cross_entropy(logits, following[taken], reduction="none")
        sums = each.new_zeros(len(taken)).index_add(0, taken.nonzero()[:, 0], each)
        return (sums / taken.sum(1)).view(batch.labels.shape)

    @torch.inference_mode()
    def generate(self, parameters: Parameters, batch: RequestBatch) -> list[list[str]]:
        """The text that the model continues each request with, greedily: b texts for each of k members.

        A text ends before the first of `task.stop`, at the model's own end, or after `task.max_new_tokens`.
        """
        from transformers import GenerationConfig, StoppingCriteriaList

        rows = assemble_rows(self.backbone, parameters["prompt"], batch, with_answers=False)
        tokenizer, model = self.backbone.tokenizer, self.backbone.model
        ends = list_ends(model, tokenizer)
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
        # The checkpoint's own generation settings (sampling, a repetition penalty) are no part of a comparison.
        stop, new = self.task.stop, self.task.max_new_tokens
        settings = GenerationConfig(
            max_new_tokens=new, do_sample=False, eos_token_id=ends or None, pad_token_id=padding
        )
        criteria = StoppingCriteriaList([StopAtTexts(tokenizer, stop)] if stop else [])
        with torch.no_grad():
            found = model.generate(
                inputs_embeds=rows.embeddings,
                attention_mask=rows.mask.long(),
                generation_config=settings,
                stopping_criteria=criteria,
            )
        texts = [cut_text(text, stop) for text in tokenizer.batch_decode(found, skip_special_tokens=True)]
        b = batch.labels.shape[1]
        return [texts[i : i + b] for i in range(0, len(texts), b)]


def assemble_rows(backbone: FrozenText, prompts: Tensor, batch: RequestBatch, with_answers: bool) -> AssembledRows:
    """The requests of a batch with the members' prompts (k, m, d) in their places.

    With answers the rows are padded on the right, as for a loss; without them on the left, so that text can follow.
    """
    k, b, width = batch.tokens.shape
    m, device = prompts.shape[1], batch.tokens.device
    tokens = batch.tokens.reshape(k * b, width)
    at = batch.prompt_at.reshape(-1, 1)
    answer = batch.answer_at.reshape(-1, 1) + m
    length = batch.end.reshape(-1, 1) + m if with_answers else answer
    widest = int(length.max())
    columns = torch.arange(widest, device=device).expand(k * b, -1)
    if not with_answers:
        columns = columns - (widest - length)  # negative on the padding
    real = (columns >= 0) & (columns < length)
    inside = (columns >= at) & (columns < at + m)
    source = torch.where(columns < at, columns, columns - m).clamp(0, width - 1)
    ids = tokens.gather(1, source)
    if backbone.lacks_padding:
        ids = ids.masked_fill(~real, 0)
    words = backbone.base.get_input_embeddings()(ids)
    own = prompts.to(words.dtype).repeat_interleave(b, dim=0)
    chosen = (columns - at).clamp(0, m - 1)[..., None].expand(-1, -1, words.shape[-1])
    embeddings = torch.where(inside[..., None], own.gather(1, chosen), words)
    labels = torch.where((columns >= answer) & real, ids, IGNORED)
    return AssembledRows(embeddings, real, labels)


def list_ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text: the tokenizer's, and those that the checkpoint's generation settings name."""
    named = model.generation_config.eos_token_id
    several = named if isinstance(named, list) else [named]
    return sorted({i for i in (tokenizer.eos_token_id, *several) if i is not None})


def cut_text(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the `stop` texts."""
    return text[: min((at for each in stop if (at := text.find(each)) >= 0), default=len(text))]


class StopAtTexts:
    """A stopping criterion of transformers: a row is done once the text that was generated holds one of `stop`."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self.tokenizer, self.stop = tokenizer, stop

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        texts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        return torch.tensor([any(each in text for each in self.stop) for text in texts], device=input_ids.device)
