"""Scores of many prompts on one split: mean loss and metrics, without gradients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llm_catalyst.models.base import Parameters, PromptedModel, example_losses, map_alike, stack_members
from llm_catalyst.runs.records import Score
from llm_catalyst.tasks.batching import Examples, count_padded_tokens, scoring_rows


@dataclass(frozen=True)
class ScoringResult:
    """A member's score on a split, all its metrics, its answer if it always gives the same one, and all answers.

    `answers` are label ids, or generated texts, of which `marks` are the metric in [0, 1]; `losses` (n,) are nats,
    float32 on the CPU; all in the order of the split's examples.
    """

    score: Score
    metrics: Mapping[str, float]
    constant: int | str | None
    answers: tuple[int, ...] | tuple[str, ...] = field(default=(), compare=False)
    losses: Tensor | None = field(default=None, compare=False)
    marks: tuple[float, ...] = field(default=(), compare=False)


Results = list[ScoringResult | None]  # None where a member's loss is not finite


@dataclass(frozen=True)
class ForwardPass:
    """A pass of k members over b examples, `rows` of a split, with losses in nats and answers (k, b)."""

    rows: Sequence[int]
    losses: Tensor
    answers: Tensor


def score_members(
    model: PromptedModel, members: Sequence[Parameters], data: Examples, metric: str, pad_to: int | None = None
) -> Results:
    """The result of each member on `data`, or None where its loss is not finite.

    Members whose prompts have equally many rows are scored together, in forward passes of at most
    `model.limits.tokens` tokens, prompts included.
    """
    return map_alike(members, lambda alike: score_alike(model, alike, data, metric, pad_to))


def score_alike(
    model: PromptedModel, members: Sequence[Parameters], data: Examples, metric: str, pad_to: int | None
) -> Results:
    """The results of members whose prompts have equally many rows (see `score_members`)."""
    passes = forward_passes(model, members, data, pad_to)
    means = torch.stack([one.losses.sum(1) for one in passes]).cpu().double().sum(0) / len(data)
    losses, answers = gather_passes(passes)
    truth = torch.tensor(data.labels)
    return [make_result(*found, truth, metric) for found in zip(means.tolist(), losses, answers, strict=True)]


def score_examples(
    model: PromptedModel, members: Sequence[Parameters], data: Examples, pad_to: int | None = None
) -> tuple[Tensor, Tensor]:
    """Each member's loss in nats and answered label id on each example of `data`, (k, n) both, on the CPU."""

    def work(alike: Sequence[Parameters]) -> list[tuple[Tensor, Tensor]]:
        return list(zip(*gather_passes(forward_passes(model, alike, data, pad_to)), strict=True))

    losses, answers = zip(*map_alike(members, work), strict=True)
    return torch.stack(losses), torch.stack(answers)


def gather_passes(passes: Sequence[ForwardPass]) -> tuple[Tensor, Tensor]:
    """The losses and the answers of all passes over a split, (k, n) both, in the order of its examples, on the CPU."""
    order = torch.tensor([i for one in passes for i in one.rows]).argsort()
    losses = torch.cat([one.losses for one in passes], dim=1).float().cpu()
    answers = torch.cat([one.answers for one in passes], dim=1).cpu()
    return losses[:, order], answers[:, order]


@torch.inference_mode()
def forward_passes(
    model: PromptedModel, members: Sequence[Parameters], data: Examples, pad_to: int | None
) -> list[ForwardPass]:
    """All passes over `data`, shortest examples first, each with as many tokens as fit into memory.

    The backbone is in evaluation mode meanwhile.
    """
    stacked, k = stack_members(members), len(members)
    m = stacked["prompt"].shape[1]

    def work(budget: int) -> list[ForwardPass]:
        parameters, passes = model.prepare(stacked), []
        for rows in scoring_rows(data, max(1, budget // k), m, pad_to):
            batch = data.batch([rows], model.backbone.device, pad_to).expand(k)
            logits = model.logits(parameters, batch)
            passes.append(ForwardPass(rows, example_losses(logits, batch.labels), logits.argmax(-1)))
        return passes

    training = model.backbone.training
    model.backbone.train(False)
    least = k * count_padded_tokens(data, range(len(data)), m, pad_to)
    passes = model.limits.fit("tokens", least, least * len(data), work)
    model.backbone.train(training)
    return passes


def make_result(loss: float, losses: Tensor, answers: Tensor, truth: Tensor, metric: str) -> ScoringResult | None:
    if not math.isfinite(loss):
        return None
    metrics = classification_metrics(answers, truth)
    constant = int(answers[0]) if bool((answers == answers[0]).all()) else None
    return ScoringResult(Score(loss, metrics[metric], len(truth)), metrics, constant, tuple(answers.tolist()), losses)


def classification_metrics(answers: Tensor, truth: Tensor) -> dict[str, float]:
    """Accuracy and macro-averaged F1, each in [0, 1].

    As in scikit-learn's f1_score, F1 is averaged over the classes that occur in `truth` or among the answers.
    """
    f1 = []
    for label in torch.cat([truth, answers]).unique():
        hits = int(((answers == label) & (truth == label)).sum())
        f1.append(2 * hits / max(1, int((answers == label).sum()) + int((truth == label).sum())))
    return {"accuracy": float((answers == truth).double().mean()), "macro_f1": sum(f1) / len(f1)}
