"""Scores of many prompts on a generation task: the likelihood of the references, and the answers that are generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from llm_catalyst.models.base import Parameters, map_alike, stack_members
from llm_catalyst.models.generator import PromptedGenerator
from llm_catalyst.runs.records import Score
from llm_catalyst.tasks.answers import score_answer
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import count_padded_tokens, scoring_rows
from llm_catalyst.tasks.generation_task import GenerationTask, read_reference
from llm_catalyst.tasks.request_batching import EncodedRequests
from llm_catalyst.training.scoring import Results, ScoringResult


@dataclass(frozen=True)
class GeneratedAnswer:
    """A response to one request.

    `loss` is the mean negative log-likelihood of the reference's tokens in nats, `answer` what was read from the
    response (None where nothing could be), `score` the task's metric of it in [0, 1].
    """

    loss: float
    response: str
    answer: str | None
    score: float


def score_generations(model: PromptedGenerator, members: Sequence[Parameters], data: EncodedRequests) -> Results:
    """The result of each member on `data`, or None where its loss is not finite."""
    return [summarize_answers(each, model.task) for each in generate_answers(model, members, data)]


def generate_answers(
    model: PromptedGenerator, members: Sequence[Parameters], data: EncodedRequests
) -> list[list[GeneratedAnswer]]:
    """Each member's answers to all requests of `data`, in their order.

    The passes have at most `model.limits.tokens` tokens, prompts and new tokens included. The backbone is in evaluation
    mode meanwhile.
    """
    training = model.backbone.training
    model.backbone.train(False)
    found = map_alike(members, lambda alike: answer_alike(model, alike, data))
    model.backbone.train(training)
    return found


@torch.inference_mode()
def answer_alike(
    model: PromptedGenerator, members: Sequence[Parameters], data: EncodedRequests
) -> list[list[GeneratedAnswer]]:
    """The answers of members whose prompts have equally many rows (see `generate_answers`)."""
    stacked, k = stack_members(members), len(members)
    m = stacked["prompt"].shape[1] + model.task.max_new_tokens

    def work(budget: int) -> list[list[GeneratedAnswer]]:
        found: dict[int, list[GeneratedAnswer]] = {}
        for rows in scoring_rows(data, max(1, budget // k), m):
            batch = data.batch([rows], model.backbone.device).expand(k)
            losses, responses = (
                model.losses(stacked, batch).T.tolist(),
                zip(*model.generate(stacked, batch), strict=True),
            )
            for row, of_members, texts in zip(rows, losses, responses, strict=True):
                pairs = zip(of_members, texts, strict=True)
                found[row] = [grade_response(loss, text, data.examples[row], model.task) for loss, text in pairs]
        return [[found[row][member] for row in range(len(data))] for member in range(k)]

    least = k * count_padded_tokens(data, range(len(data)), m)
    return model.limits.fit("tokens", least, least * len(data), work)


def grade_response(loss: float, response: str, example: Example, task: GenerationTask) -> GeneratedAnswer:
    """The answer that is read from a response, and its score."""
    answer = task.read_answer(response)
    references = [read_reference(task, target) for target in example.targets]
    return GeneratedAnswer(loss, response, answer, score_answer(answer, references, task.metric))


def summarize_answers(answers: Sequence[GeneratedAnswer], task: GenerationTask) -> ScoringResult | None:
    """The result of one member: its metrics are the task's, and the share of responses with an answer."""
    losses = torch.tensor([each.loss for each in answers])
    loss = float(losses.double().mean())
    if not torch.isfinite(losses).all():
        return None
    marks = tuple(each.score for each in answers)
    metric = fmean(marks)
    given = {each.answer for each in answers}
    constant = given.pop() if len(given) == 1 else None
    metrics = {task.metric: metric, "answered": fmean(each.answer is not None for each in answers)}
    responses = tuple(each.response for each in answers)
    return ScoringResult(Score(loss, metric, len(answers)), metrics, constant, responses, losses, marks)
