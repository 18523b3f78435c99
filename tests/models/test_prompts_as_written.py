"""prompt.fill=none: a text of n < m tokens is a prompt of n rows, scored and shown as it is written."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tiny_models import FAMILIES, backbone, choice_data, toy_data, toy_problem

from llm_catalyst.models.base import example_losses, group_by_length, map_alike
from llm_catalyst.models.heads.text import Similarity, Verbalizer
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.optimizers.base import Member, NoTraining
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.records import Prompt
from llm_catalyst.training.mentor_queries import PromptProbe
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.state import State

TEXTS = ("film", "a very good film", "bad bad actor", "slow")
M = 12
KINDS: list[tuple[str, Any]] = [(name, Verbalizer()) for name in FAMILIES] + [("bert", Similarity())]


def written(name: str = "bert", head: Any = None, length: int = M, **more: Any) -> Problem:
    prompt = PromptSettings(length=length, start="vocabulary", fill="none")
    return toy_problem(name, head or Verbalizer(), prompt=prompt, **more)


def fitted(problem: Problem) -> list[Prompt]:
    return [problem.space.fit(text)[0] for text in TEXTS]


@pytest.mark.parametrize(("name", "head"), KINDS, ids=lambda value: str(value).partition("(")[0])
def test_a_text_of_n_tokens_scores_as_in_a_space_of_prompts_of_n_tokens(name: str, head: Any) -> None:
    problem = written(name, head)
    prompts = fitted(problem)
    assert len({len(prompt.tokens) for prompt in prompts}) > 1
    assert all(len(prompt.tokens) < M for prompt in prompts)
    for prompt, found in zip(prompts, problem.score_prompts(prompts, {}), strict=True):
        n = len(prompt.tokens)
        exact = toy_problem(name, head, prompt=PromptSettings(length=n, start="vocabulary"))
        assert exact.space.fit(prompt.text)[0] == prompt
        (alone,) = exact.score_prompts([prompt], {})
        assert found is not None
        assert alone is not None
        assert found.losses is not None
        torch.testing.assert_close(found.losses, alone.losses, rtol=1e-5, atol=1e-6)
        assert found.answers == alone.answers


@pytest.mark.parametrize("data", [toy_data(), choice_data()], ids=["texts", "choices"])
@pytest.mark.parametrize("twice", [False, True])
def test_it_does_so_for_choices_and_for_positions_that_are_applied_twice(data: Any, twice: bool) -> None:
    problem = written(data=data, twice=twice)
    for prompt, found in zip(fitted(problem), problem.score_prompts(fitted(problem), {}), strict=True):
        short = PromptSettings(length=len(prompt.tokens), start="vocabulary")
        (alone,) = toy_problem("bert", Verbalizer(), data, twice, prompt=short).score_prompts([prompt], {})
        assert found is not None
        assert alone is not None
        assert found.score.loss == pytest.approx(alone.score.loss, abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_given_the_tokens_and_the_text_and_nothing_else(name: str) -> None:
    problem = written(name)
    frozen, words = backbone(name, words=True), problem.model.constants["words"]
    prompts, dev = fitted(problem), problem.splits["dev"]
    found = problem.score_prompts(prompts, {})
    embed = frozen.model.get_input_embeddings()
    for prompt, result in zip(prompts, found, strict=True):
        losses = []
        for i in range(len(dev)):
            batch = dev.batch([[i]], "cpu")
            assert batch.mask.all()
            text = batch.tokens[0, 0]
            whole = torch.cat([embed.weight[list(prompt.tokens)], embed(text)])[None]
            types = {}
            if frozen.reads_types and batch.types is not None:  # a BERT's cloze is the second segment
                zeros = torch.zeros(len(prompt.tokens), dtype=torch.long)
                types["token_type_ids"] = torch.cat([zeros, batch.types[0, 0]])[None]
            with torch.no_grad():
                logits = frozen.model(inputs_embeds=whole, **types).logits[0]
            mask = frozen.tokenizer.mask_token_id
            place = -1 if frozen.causal else len(prompt.tokens) + text.tolist().index(mask)
            losses.append(example_losses(logits[place, words][None, None], batch.labels)[0, 0])
        assert result is not None
        torch.testing.assert_close(result.losses, torch.stack(losses), rtol=1e-4, atol=1e-5)


def test_a_text_is_shown_as_it_is_written_and_a_longer_one_is_cut() -> None:
    space = written(length=4).space
    assert space.fit("good film") == (space.prompt(space.tokenize("good film")), "")
    assert space.fit("good film")[0].text == "good film"
    assert replace(space, settings=replace(space.settings, fill=None)).fit("good film") == space.fit("good film")
    cut, lost = space.fit("a very good film bad actor")
    assert (cut.text, lost) == ("a very good film", "bad actor")


def test_a_prompt_of_its_own_length_is_its_own_projection() -> None:
    problem = written()
    prompts = fitted(problem)
    members = [{"prompt": rows} for rows in problem.space.embed_each(prompts)]
    assert [tuple(rows["prompt"].shape) for rows in members] == [(len(p.tokens), 32) for p in prompts]
    found, similarities = problem.project(members)
    assert found == prompts
    assert similarities == pytest.approx([1.0] * len(prompts))


def test_prompts_of_several_lengths_keep_their_order() -> None:
    members = [{"prompt": torch.zeros(n, 2)} for n in (3, 1, 3, 2, 1)]
    assert group_by_length(members) == [[0, 2], [1, 4], [3]]
    assert map_alike(members, lambda alike: [len(one["prompt"]) for one in alike]) == [3, 1, 3, 2, 1]


def test_a_step_without_training_measures_prompts_of_several_lengths_as_one_by_one() -> None:
    problem = written()
    members = [Member.of({"prompt": rows}) for rows in problem.space.embed_each(fitted(problem))]

    def losses(members: list[Member]) -> tuple[float, ...]:
        steps = NoTraining().train(problem.model, members, problem.batches(len(members), 0), StepRange(0, 1, 1, 0))
        return next(steps).losses

    assert losses(members) == pytest.approx([losses([member])[0] for member in members], abs=1e-5)


def test_trials_and_hints_of_prompts_of_several_lengths_are_those_of_each_alone() -> None:
    problem = written()
    prompts = fitted(problem)
    probe = PromptProbe(problem, State((Member.of(problem.start()),)))
    rows = [3, 0, 7]
    together = probe.attempt(prompts, rows)
    for prompt, trials in zip(prompts, together, strict=True):
        (alone,) = probe.attempt([prompt], rows)
        assert [t.loss for t in trials] == pytest.approx([t.loss for t in alone], abs=1e-5)
    hints = probe.hints(prompts)
    assert [len(each) for each in hints] == [len(prompt.tokens) for prompt in prompts]
    assert hints == [probe.hints([prompt])[0] for prompt in prompts]
