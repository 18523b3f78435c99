"""The restart model: a denoising diffusion model of earlier runs' prompts."""

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from helpers.recorded import CONFIG, manifest
from helpers.tiny import prompt_space
from helpers.tiny_models import adamw, run_in, toy_problem
from torch import Tensor

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.build import build_node
from llm_catalyst.config.settings import Evaluations
from llm_catalyst.mentors.base import Mentor, MentorContext, TaskDescription
from llm_catalyst.mentors.controls import NoMentor, RandomTokens
from llm_catalyst.mentors.diffusion import Denoiser, Diffusion, Plane, Points, prompts_of, train_denoiser
from llm_catalyst.models.heads.text import Similarity
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.schedule import Schedule
from llm_catalyst.runs.reader import read_json, read_lines
from llm_catalyst.runs.records import Advice, Outcome, Restart, ScoredPrompt
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.training.loop import Experiment, run_experiment
from llm_catalyst.utils.validation import ConfigurationError

TASK = TaskDescription("sst2", "Say how the film was.", ("bad", "good"))
MINILM, HEAD = "sentence-transformers/all-MiniLM-L6-v2", "llm_catalyst.models.heads.text.Similarity"


def mentor(runs: Path, **changes: Any) -> Diffusion:
    """The mentor of a run that `CONFIG` describes, its model small."""
    return Diffusion(**{"runs": str(runs), "task": "sst2", "backbone": MINILM, "head": HEAD, "steps": 60, **changes})


def experiment(seed: int, mentor: Any, **changes: Any) -> Experiment:
    """Two stages of three steps on the toy task, under a head without weights."""
    fixed = {"seed": seed, "stages": 2, "evaluate": Evaluations(steps=1), "bucket_batches": 50}
    problem = toy_problem(head=Similarity(), **fixed, **changes)
    return Experiment(problem, Backprop(partial(adamw, lr=0.1), Schedule(), None), mentor, (3, 3))


def carry_out(path: Path, seed: int = 1, config: str = CONFIG, mentor: Any = None, **changes: Any) -> Path:
    """A run of two stages in a directory, with a configuration on record that it need not have had."""
    it = experiment(seed, mentor or NoMentor(), **changes)
    with closing(RunDirectory(path)) as directory:
        directory.write_config(config, manifest())
        run_experiment(it, directory, RunCallback())
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four earlier runs: two without a restart, one with a discrete one, and one with a soft one."""
    folder = tmp_path_factory.mktemp("runs")
    carry_out(folder / "first", 1)
    carry_out(folder / "second", 2)
    carry_out(folder / "random", 3, mentor=RandomTokens(2))
    carry_out(folder / "soft", 4, mentor=mentor(folder))
    return folder


@pytest.fixture(scope="module")
def space() -> PromptSpace:
    return toy_problem(head=Similarity()).space


def pool_of(runs: Path) -> tuple[ScoredPrompt, ...]:
    """Some prompts of a run, the best one last."""
    scored: tuple[ScoredPrompt, ...] = read_lines(runs / "random" / "pool.jsonl", ScoredPrompt)
    return tuple(sorted(scored, key=lambda each: -each.score.loss))


def ask(mentor: Diffusion, space: PromptSpace, pool: tuple[ScoredPrompt, ...] = (), seed: int = 0) -> Advice:
    return mentor.propose(MentorContext(TASK, pool, 0, 3, space, random.Random(seed), lambda exchange: None))


# The model


def two_clusters(r: int = 2) -> Points:
    """Two runs whose bad prompts lie about -1 and whose good ones about 1, in each of r coordinates."""
    generator = torch.Generator().manual_seed(0)

    def one() -> tuple[list[float], Tensor]:
        centres = torch.cat([torch.full((40, r), -1.0), torch.full((40, r), 1.0)])
        return [0.7] * 40 + [0.3] * 40, centres + 0.1 * torch.randn(80, r, generator=generator)

    return Points.of([one(), one()])


def test_what_is_drawn_is_of_the_cluster_whose_quality_was_asked_for_and_as_wide() -> None:
    seen, generator = two_clusters(), torch.Generator().manual_seed(1)
    denoiser = train_denoiser(seen, mentor(Path(), steps=800), generator)
    for quality, centre in ((seen.quality.max(), 1.0), (seen.quality.min(), -1.0)):
        drawn = denoiser.draw(seen.x[:1].expand(200, -1), quality.expand(200), seen, generator)
        assert ((drawn - centre).abs() < 0.5).all()
        assert drawn.mean(0).tolist() == pytest.approx([centre, centre], abs=0.1)
        assert all(0.04 < std < 0.2 for std in drawn.std(0).tolist())


def test_the_present_run_tells_which_of_two_equally_good_places_is_meant() -> None:
    """One run goes from about (-1, -1) to (-1, 1), the other from (1, -1) to (1, 1)."""
    generator = torch.Generator().manual_seed(0)
    losses = [0.7] * 40 + [0.3] * 40
    ways = [torch.tensor([[side, -1.0]] * 40 + [[side, 1.0]] * 40) for side in (-1.0, 1.0)]
    seen = Points.of([(losses, way + 0.1 * torch.randn(80, 2, generator=generator)) for way in ways])
    denoiser = train_denoiser(seen, mentor(Path(), steps=800), generator)
    for side in (-1.0, 1.0):
        here = torch.tensor([[side, -1.0]]).expand(100, -1)
        drawn = denoiser.draw(here, seen.quality.max().expand(100), seen, generator)
        assert drawn.mean(0).tolist() == pytest.approx([side, 1.0], abs=0.1)


def test_noise_goes_from_none_to_nothing_else() -> None:
    denoiser = Denoiser((), 10)
    signal, noise = denoiser.mixture(torch.arange(11))
    assert (signal**2 + noise**2).tolist() == pytest.approx([1.0] * 11)
    assert (signal[0].item(), noise[0].item()) == (1.0, 0.0)
    assert (signal[10].item(), noise[10].item()) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_prompts_in_a_plane_are_put_back_where_they_were() -> None:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randn(20, 3, generator=generator) @ torch.randn(3, 50, generator=generator) + 5
    plane = Plane.through(prompts, 8)
    x = plane.coordinates(prompts)
    assert x.shape == (20, 3)  # of eight dimensions that it may have
    assert x.mean(0).tolist() == pytest.approx([0.0] * 3, abs=1e-4)
    assert x.var(0, correction=0).tolist() == pytest.approx([1.0] * 3, rel=1e-3)
    assert torch.allclose(plane.points(x), prompts, atol=1e-3)
    assert Plane.through(prompts, 2).axes.shape == (2, 50)


# The prompts of earlier runs


def test_a_runs_prompts_are_those_with_a_dev_loss_of_their_own(runs: Path) -> None:
    problem = toy_problem(head=Similarity())
    for name in ("first", "random", "soft"):
        losses, rows = prompts_of(runs / name, problem.space)
        assert losses == sorted(losses, reverse=True)
        assert read_json(runs / name / "outcome.json", Outcome).best.score.loss in losses
        assert len({row.numpy().tobytes() for row in rows}) == len(rows)
        similarities = problem.space.project(torch.stack(rows).view(-1, 4, 32))[1]
        assert {similarity > 0.9999 for similarity in similarities} == {False, True}  # soft ones and discrete ones
        start = problem.start()
        results = problem.score([start | {"prompt": row.view(4, -1)} for row in rows])
        assert [result and result.score.loss for result in results] == pytest.approx(losses, rel=1e-4)


def test_runs_that_do_not_fit_are_passed_over_and_counted(runs: Path, space: PromptSpace, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(runs / "first", folder / "fits")
    carry_out(folder / "task", config=CONFIG.replace("name: sst2", "name: rte"))
    carry_out(folder / "backbone", config=CONFIG.replace("all-MiniLM-L6-v2", "another"))
    carry_out(folder / "head", config=CONFIG.replace("text.Similarity", "text.Classifier"))
    carry_out(folder / "length", prompt=PromptSettings(length=5))
    shutil.copytree(runs / "second", folder / "altered")
    (folder / "altered" / "config.yaml").write_text(CONFIG + "extra: 1\n")
    shutil.copytree(runs / "second", folder / "broken")
    (folder / "broken" / "restarts.jsonl").write_text("{}\n")
    found, reasons = mentor(folder).gather(space)
    assert dict(zip(sorted(path.name for path in folder.iterdir()), reasons, strict=True)) == {
        "altered": "damaged",
        "backbone": "of another backbone",
        "broken": "damaged",
        "fits": "",
        "head": "of another head",
        "length": "of another prompt length or width",
        "task": "of another task",
    }
    assert len(found) == 1
    (alone, _) = mentor(runs / "first").gather(space)
    assert found[0][0] == alone[0][0]


def test_of_a_damaged_state_nothing_is_used_and_of_the_whole_ones_before_it_all_is(
    runs: Path, space: PromptSpace, tmp_path: Path
) -> None:
    run = shutil.copytree(runs / "first", tmp_path / "first")
    losses, _ = prompts_of(run, space)
    states = sorted((run / "stages").iterdir())
    assert len(states) == 2
    for state in reversed(states):
        file = state / "state.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        if state is states[1]:
            assert {*prompts_of(run, space)[0]} < {*losses}
    advice = ask(mentor(run), space)
    assert advice.rows is None
    assert advice.fallback == f"mentor.runs={run} holds no two prompts that fit (1 run: 1 without a whole saved state)"


def test_a_run_that_was_cut_off_counts_and_test_scores_do_not(runs: Path, space: PromptSpace, tmp_path: Path) -> None:
    copied = shutil.copytree(runs, tmp_path / "runs")
    for outcome in copied.glob("*/outcome.json"):
        outcome.unlink()
    assert torch.equal(ask(mentor(copied), space).rows, ask(mentor(runs), space).rows)


def test_prompts_of_another_width_are_a_reason_to_fall_back(runs: Path) -> None:
    advice = ask(mentor(runs), prompt_space(length=4, width=8))
    assert advice.proposals == ()
    assert "4 runs: 4 of another prompt length or width" in (advice.fallback or "")


# The mentor


def test_it_proposes_soft_prompts_and_shows_their_projections(runs: Path, space: PromptSpace) -> None:
    advice = ask(mentor(runs, proposals=4), space, pool_of(runs))
    assert (advice.rows.shape, advice.rows.dtype) == ((4, *space.vocabulary[:4].shape), torch.float32)
    assert [proposal.prompt for proposal in advice.proposals] == space.project(advice.rows)[0]
    assert all(similarity < 0.999 for similarity in space.project(advice.rows)[1])
    assert "of 4 earlier runs" in advice.proposals[0].rationale


def test_what_is_proposed_is_nearer_to_the_best_that_was_found_than_to_the_mean(runs: Path) -> None:
    problem = toy_problem(head=Similarity())
    earlier = [loss for losses, _ in mentor(runs).gather(problem.space)[0] for loss in losses]
    rows = ask(mentor(runs, steps=600, proposals=8), problem.space, pool_of(runs)).rows
    start = problem.start()
    results = problem.score([start | {"prompt": row} for row in rows])
    drawn = [result.score.loss for result in results if result]
    assert len(drawn) == 8
    assert mean(drawn) < (min(earlier) + mean(earlier)) / 2


def test_advice_follows_from_the_stream_and_the_pool_alone(runs: Path, space: PromptSpace) -> None:
    pool = pool_of(runs)
    first = ask(mentor(runs), space, pool, seed=3).rows
    torch.manual_seed(2)
    assert torch.equal(ask(mentor(runs), space, pool, seed=3).rows, first)
    assert not torch.equal(ask(mentor(runs), space, pool, seed=4).rows, first)
    assert not torch.equal(ask(mentor(runs), space, pool[:1], seed=3).rows, first)


def test_asking_leaves_the_global_random_streams_alone(runs: Path, space: PromptSpace) -> None:
    torch.manual_seed(1)
    random.seed(1)
    expected = torch.rand(1).item(), random.random()
    torch.manual_seed(1)
    random.seed(1)
    ask(mentor(runs), space, pool_of(runs))
    assert (torch.rand(1).item(), random.random()) == expected


def test_a_run_restarts_from_the_row_with_the_lowest_dev_loss(runs: Path, tmp_path: Path) -> None:
    asked: list[Advice] = []

    class Listening(Mentor):
        def propose(self, context: MentorContext) -> Advice:
            asked.append(mentor(runs).propose(context))
            return asked[-1]

    it = experiment(7, Listening())
    run_in(tmp_path / "run", it)
    (restart,) = read_lines(tmp_path / "run" / "restarts.jsonl", Restart)
    start = it.problem.start()
    results = it.problem.score([start | {"prompt": row} for row in asked[0].rows])
    losses = [result.score.loss for result in results if result]
    assert restart.score.loss == pytest.approx(min(losses))
    assert restart.prompt == asked[0].proposals[losses.index(min(losses))].prompt
    assert restart.fallback is None


def test_a_folder_without_a_run_that_may_fit_is_refused_with_the_mend(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"holds no run of task sst2 .*\(0 runs\); make some first, with mentor=none"
    ):
        mentor(tmp_path).preflight()
    with pytest.raises(ConfigurationError, match=r"\(4 runs: 4 of another task\)"):
        mentor(runs, task="rte").preflight()
    with pytest.raises(ConfigurationError, match="nowhere: No such file or directory; give the folder of a run"):
        mentor(tmp_path / "nowhere").preflight()
    mentor(runs).preflight()


def test_the_choice_names_task_backbone_and_head_of_the_run(composed: Callable[..., dict[str, Any]]) -> None:
    config = composed("mentor=diffusion", "mentor.runs=outputs", "experiment=quickstart", "backbone=bert_base")
    node = composed("experiment=quickstart", "mentor=diffusion", "mentor.runs=outputs")["mentor"]
    assert build_node(node, "mentor") == Diffusion(
        "outputs", "quickstart", MINILM, "llm_catalyst.models.heads.Similarity"
    )
    assert config["mentor"]["backbone"] == config["backbone"]["name"] != MINILM


@pytest.mark.parametrize("name", ["proposals", "dimensions", "levels", "width", "steps", "lr"])
def test_settings_out_of_bounds_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"mentor.{name}=0 is too small"):
        mentor(Path(), **{name: 0})
