"""Scores of many prompts on one split: mean loss and metrics, without gradients."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from llm_catalyst.models.base import Parameters, PromptedModel, example_losses, stack_members
from llm_catalyst.runs.records import Score
from llm_catalyst.tasks.batching import Examples, scoring_rows

T = TypeVar("T")


@dataclass(frozen=True)
class ScoringResult:
    """A member's score on a split, all its metrics, and the label id that it always answers, if it does."""

    score: Score
    metrics: Mapping[str, float]
    constant: int | None


@torch.inference_mode()
def score_members(
    model: PromptedModel, members: Sequence[Parameters], data: Examples, metric: str, pad_to: int | None = None
) -> list[ScoringResult | None]:
    """The result of each member on `data`, or None where its loss is not finite.

    All members are scored together, in forward passes of at most `model.limits.tokens` tokens, prompts included.
    """
    losses, answers, truth = run_within_limits(score_passes, model, members, data, pad_to)
    means = losses.double().sum(0) / len(data)
    return [make_result(mean, row, truth, metric) for mean, row in zip(means.tolist(), answers, strict=True)]


def score_passes(
    model: PromptedModel, parameters: Parameters, data: Examples, budget: int, pad_to: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed losses (passes, k), answers (k, n) and true labels (n,) of all examples, shortest first, on the CPU."""
    losses, answers, truth = [], [], []
    for _, labels, logits in forward_passes(model, parameters, data, budget, pad_to):
        losses.append(example_losses(logits, labels).sum(1))
        answers.append(logits.argmax(-1))
        truth.append(labels[0])
    return torch.stack(losses).cpu(), torch.cat(answers, dim=1).cpu(), torch.cat(truth).cpu()


def forward_passes(
    model: PromptedModel, parameters: Parameters, data: Examples, budget: int, pad_to: int | None
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Rows, their labels (k, b) and class logits (k, b, c), pass by pass, shortest first."""
    k, m = parameters["prompt"].shape[:2]
    parameters = model.prepare(parameters)
    for rows in scoring_rows(data, max(1, budget // k), m, pad_to):
        batch = data.batch([rows], model.backbone.device, pad_to).expand(k)
        yield rows, batch.labels, model.logits(parameters, batch)


@torch.inference_mode()
def score_examples(
    model: PromptedModel, members: Sequence[Parameters], data: Examples, pad_to: int | None = None
) -> tuple[Tensor, Tensor]:
    """Each member's loss in nats and answered label id on each example of `data`, (k, n) both, on the CPU."""
    return run_within_limits(each_example, model, members, data, pad_to)


def each_example(
    model: PromptedModel, parameters: Parameters, data: Examples, budget: int, pad_to: int | None
) -> tuple[Tensor, Tensor]:
    """Losses and answers (k, n) in the order of `data`, on the CPU."""
    k, n = len(parameters["prompt"]), len(data)
    losses, answers = torch.empty(k, n), torch.empty(k, n, dtype=torch.long)
    for rows, labels, logits in forward_passes(model, parameters, data, budget, pad_to):
        losses[:, rows] = example_losses(logits, labels).cpu()
        answers[:, rows] = logits.argmax(-1).cpu()
    return losses, answers


def run_within_limits(
    work: Callable[..., T], model: PromptedModel, members: Sequence[Parameters], data: Examples, pad_to: int | None
) -> T:
    """The result of `work`, with the backbone in evaluation mode and as many tokens in one pass as fit into memory."""
    training = model.backbone.training
    model.backbone.train(False)
    parameters = stack_members(members)
    least = len(members) * padded_tokens(data, parameters["prompt"].shape[1], pad_to)
    done = model.limits.fit(
        "tokens", least, least * len(data), lambda budget: work(model, parameters, data, budget, pad_to)
    )
    model.backbone.train(training)
    return done


def padded_tokens(data: Examples, prompt_length: int, pad_to: int | None) -> int:
    """Tokens of the longest example, all its choices, padding and prompts included."""
    return ((pad_to or max(map(data.length, range(len(data))))) + prompt_length) * data.choices


def make_result(loss: float, answers: Tensor, truth: Tensor, metric: str) -> ScoringResult | None:
    if not math.isfinite(loss):
        return None
    metrics = classification_metrics(answers, truth)
    constant = int(answers[0]) if bool((answers == answers[0]).all()) else None
    return ScoringResult(Score(loss, metrics[metric], len(truth)), metrics, constant)


def classification_metrics(answers: Tensor, truth: Tensor) -> dict[str, float]:
    """Accuracy and macro-averaged F1 over the classes that occur in `truth`, each in [0, 1]."""
    f1 = []
    for label in truth.unique():
        hits = int(((answers == label) & (truth == label)).sum())
        f1.append(2 * hits / max(1, int((answers == label).sum()) + int((truth == label).sum())))
    return {"accuracy": float((answers == truth).double().mean()), "macro_f1": sum(f1) / len(f1)}
