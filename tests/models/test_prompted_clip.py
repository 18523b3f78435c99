"""A whole run on pictures: a tiny CLIP with random weights, drawn shapes, a mentor between the stages."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import pytest
from helpers import tiny_clip
from helpers.tiny_models import StoppingView, Stops, adamw, run_in, toy_settings

from llm_catalyst.config.build import build_components, check_modalities
from llm_catalyst.config.settings import Checkpoints
from llm_catalyst.mentors.clients.mock import MockModel
from llm_catalyst.mentors.controls import Evolution, Perturb
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.models.heads.clip import Coop, Tcp, ZeroShot
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import NoTraining
from llm_catalyst.optimizers.zeroth_order import ZerothOrderSGD
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import Outcome
from llm_catalyst.tasks.image_task import ImageTask
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.training.run import load_problem
from llm_catalyst.utils.validation import ConfigurationError

PLAN = (2, 2, 2)
SHAPES = ImageTask("shapes", layout="shapes", shots=2, description="Say which shape it is.")
START = PromptSettings(length=4, start="text", text="a photo of a")


def problem_of(head: Any, classes: str = "all", **changes: Any) -> Problem:
    task, settings = replace(SHAPES, classes=classes), toy_settings(prompt=START, **changes)
    data, unseen = task.load(1), task.load_unseen(1)
    return assemble_problem(data, tiny_clip.backbone(views=2), head, settings, unseen=unseen)


def carry_out(
    path: Path, head: Any, mentor: Any = None, optimizer: Any = None, view: Any = None, **changes: Any
) -> Outcome:
    problem = problem_of(head, **changes)
    experiment = Experiment(problem, optimizer or Backprop(adamw), mentor or Evolution(), PLAN)
    return run_in(path, experiment, view)


@pytest.mark.parametrize(
    "head",
    [Coop(4), Coop(4, "middle"), Coop(4, class_specific=True), Tcp(4, layer=1), ZeroShot()],
    ids=["end", "middle", "class-specific", "tcp", "zero-shot"],
)
@pytest.mark.parametrize("optimizer", [Backprop(adamw), ZerothOrderSGD(0.01, seed=1)], ids=["gradient", "zeroth-order"])
def test_a_run_trains_restarts_and_reports(tmp_path: Path, head: Any, optimizer: Any) -> None:
    if isinstance(head, ZeroShot) and isinstance(optimizer, Backprop):
        optimizer = NoTraining()  # there is nothing to differentiate
    outcome = carry_out(tmp_path, head, optimizer=optimizer)
    run = read_run(tmp_path)
    assert outcome.status == "done"
    assert outcome.test is not None
    assert outcome.test.examples == 300
    assert outcome.majority == pytest.approx(1 / 12)
    assert all("[CLASS]" in entry.prompt.text for entry in run.pool)
    assert len(run.restarts) == 2


def test_a_context_that_was_learned_on_some_classes_is_reported_on_the_others(tmp_path: Path) -> None:
    outcome = carry_out(tmp_path, Coop(4), classes="base")
    metrics = outcome.test_metrics
    assert metrics["base_accuracy"] == metrics["accuracy"]
    problem = problem_of(Coop(4), "base")
    assert problem.unseen is not None
    assert not {*problem.data.labels} & {*problem.unseen.data.labels}
    assert len(problem.data.labels) == len(problem.unseen.data.labels) == 6
    assert metrics["harmonic_mean"] == pytest.approx(harmonic_mean([metrics["base_accuracy"], metrics["new_accuracy"]]))


def test_a_mentor_is_shown_the_place_of_the_class_and_its_template_becomes_the_context(tmp_path: Path) -> None:
    mentor = LanguageModel(MockModel(), Paper())
    carry_out(tmp_path, Coop(4, "middle"), mentor, NoTraining())
    asked = read_run(tmp_path).exchanges[0].messages[1].content
    assert 'Prompt: "a photo [CLASS] of a"' in asked
    assert "Say which shape it is. [CLASS] in a prompt stands for the name of a class." in asked
    assert "blue circle" in asked
    space = problem_of(Coop(4, "middle")).space
    assert space.fit("a photo [CLASS] of a")[0] == space.fit("a photo of a")[0]


def test_prompts_follow_the_gradient_of_their_context(tmp_path: Path) -> None:
    outcome = carry_out(tmp_path, Coop(4), Perturb(toward="gradient"))
    assert outcome.ledger.train_examples > 6 * 8  # the hints' examples among them


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_that_was_cut_off_goes_on_to_the_same_end(tmp_path: Path, step: int) -> None:
    whole = carry_out(tmp_path / "whole", Tcp(4, layer=1), checkpoint=Checkpoints(1))
    with pytest.raises(Stops):
        carry_out(tmp_path / "cut", Tcp(4, layer=1), view=StoppingView(step), checkpoint=Checkpoints(1))
    resumed = carry_out(tmp_path / "cut", Tcp(4, layer=1), checkpoint=Checkpoints(1))
    assert resumed.test == whole.test
    for name in ("trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_starts_from_the_words_of_the_template_in_front_of_the_name(tmp_path: Path) -> None:
    assert replace(SHAPES, template="a drawing of the {}, a type of shape.").start_text() == "a drawing of the"
    assert replace(SHAPES, template="{}.").start_text() == SHAPES.description
    data, settings = SHAPES.load(1), toy_settings(prompt=PromptSettings(length=6, start="task", fill="none"))
    problem = assemble_problem(data, tiny_clip.backbone(views=2), Coop(6), settings)
    run_in(tmp_path, Experiment(problem, NoTraining(), Evolution(), PLAN))
    first, *_ = read_run(tmp_path).pool
    assert (first.prompt.text, first.origin) == ("a photo of a [CLASS]", "user")
    assert len(read_run(tmp_path).restarts) == 2


def test_what_is_for_texts_and_what_is_for_pictures_do_not_mix(composed: Callable[..., dict[str, Any]]) -> None:
    for words, why in {
        ("task=shapes", "head=classifier"): "shapes is one of pictures, and backbone and head is for texts",
        ("task=shapes", "backbone=clip_vit_b16", "head=classifier"): "and head is for texts",
        ("task=sst2", "head=coop"): "sst2 is one of texts, and head is for pictures",
    }.items():
        with pytest.raises(ConfigurationError, match=why):
            build_components(composed(*words))
    check_modalities(SHAPES, tiny_clip.backbone().settings, Coop())


def test_contexts_of_single_classes_are_refused_where_others_are_to_be_reported(
    composed: Callable[..., dict[str, Any]],
) -> None:
    words = ("task=shapes", "task.classes=base", "backbone=clip_vit_b16", "head=coop", "head.class_specific=true")
    with pytest.raises(ConfigurationError, match=r"classes=base reports on classes that were not.*set it to false"):
        load_problem(build_components(composed(*words)))


@pytest.mark.slow
def test_a_context_learned_on_drawn_shapes_beats_the_hand_made_prompt_clearly(
    tmp_path: Path, composed: Callable[..., dict[str, Any]]
) -> None:
    """The tiny CLIP, trained as a user's machine trains it, and CoOp from the hand-made prompt's own words."""
    results = {}
    for name, words in {"CoOp": (), "zero-shot": ("head=zero_shot", "optimizer=none", "stages=1")}.items():
        parts = build_components(composed("experiment=shapes", "mentor=none", "view=none", *words))
        problem = load_problem(parts)
        plan = parts.settings.plan(problem.examples)
        outcome = run_in(tmp_path / name, Experiment(problem, parts.optimizer, parts.mentor, plan))
        assert outcome.test is not None
        results[name] = outcome.test.metric
    assert 0.3 < results["zero-shot"] < 0.65
    assert results["CoOp"] > results["zero-shot"] + 0.1
