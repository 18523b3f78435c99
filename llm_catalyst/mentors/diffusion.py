"""Soft prompts proposed by a small diffusion model of the prompts that earlier runs found.

Shapes: n prompts of earlier runs, m virtual tokens, d embedding width, r coordinates of a prompt, b a batch.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.checkpoints import DamagedStateError, read_state, read_tensors, saved_states
from llm_catalyst.runs.reader import FILES, find_runs, read_lines
from llm_catalyst.runs.records import Advice, Proposal, Restart, ScoredPrompt
from llm_catalyst.runs.run_config import read_config
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.validation import ConfigurationError, PositiveInt, config_dataclass

BATCH = 64  # prompts of one training step; drawn with replacement, as there may be fewer


@config_dataclass("mentor")
class Diffusion(Mentor):
    """Proposes soft prompts drawn from a diffusion model of the prompts that earlier runs found.

    After Diff-L2O (Shi et al. 2025, arXiv 2503.11462), which draws starting points of an optimization from a diffusion
    model of solutions, guided by what the optimization has seen so far, instead of learning single steps. Faithful: a
    model of solutions, not of steps; trained within seconds; guided by the present run; its samples are trained further
    as usual. Different: the guide is the pool's best prompt and the dev loss to reach (the lowest that was found), not
    gradients, which no run keeps; only the denoising is learned, without the task's loss at the samples; the data are
    tens to hundreds of prompts, good and bad ones, so that the model works on their `dimensions` leading principal
    components, and its samples lie in their span.

    `runs` is a folder of earlier runs, finished or not (with the present one, if it lies there): those count whose
    `task`, `backbone` and `head` (its class) are these and whose prompts are (m, d). Damaged files are not used, and
    test scores are never read. The same configuration gives the same bytes while that folder holds the same runs.
    """

    runs: str
    task: str
    backbone: str
    head: str
    soft = True

    proposals: PositiveInt = 3
    dimensions: PositiveInt = 8
    levels: PositiveInt = 100
    width: PositiveInt = 128
    steps: PositiveInt = 1000
    lr: Annotated[float, Ge(1e-9)] = 2e-3

    def preflight(self) -> None:
        """Raise ConfigurationError if no run in the folder is of this task, backbone and head."""
        reasons = [self.misfit(path) for path in self.paths()]
        if all(reasons):
            raise ConfigurationError(
                f"mentor.runs={self.runs} holds no run of task {self.task} with backbone {self.backbone} and this head "
                f"({describe_unsuitable(reasons)}); make some first, with mentor=none and several seeds, or give "
                "another folder"
            )

    def propose(self, context: MentorContext) -> Advice:
        """Soft prompts (`Advice.rows`) and their projections, or why there is none."""
        space = context.space
        found, reasons = self.gather(space)
        prompts = [row for _, rows in found for row in rows]
        if len(prompts) < 2:
            fit = describe_unsuitable(reasons)
            return Advice(fallback=f"mentor.runs={self.runs} holds no two prompts that fit ({fit})")
        plane = Plane.through(torch.stack(prompts), self.dimensions)
        points = Points.of([(losses, plane.coordinates(torch.stack(rows))) for losses, rows in found])
        generator = torch.Generator().manual_seed(context.rng.getrandbits(63))
        denoiser = train_denoiser(points, self, generator)
        best = [scored.prompt for scored in context.pool[-1:]]
        position = space.embed(best).cpu().flatten(1) if best else plane.mean[None]
        here = points.bound(plane.coordinates(position)).expand(self.proposals, -1)
        drawn = plane.points(denoiser.draw(here, points.quality.max().expand(self.proposals), points, generator))
        rows = drawn.view(self.proposals, space.length, -1).to(space.vocabulary.device)
        why = f"drawn from a model of {len(prompts)} prompts of {len(found)} earlier runs"
        return Advice(tuple(Proposal(prompt, why) for prompt in space.project(rows)[0]), rows=rows)

    def paths(self) -> list[Path]:
        return find_runs(expand_path(self.runs))

    def gather(self, space: PromptSpace) -> tuple[list[tuple[list[float], list[Tensor]]], list[str]]:
        """The dev losses and prompts (m·d,) of each run that fits, the worst first; and for each run why not, or ''."""
        found: list[tuple[list[float], list[Tensor]]] = []
        reasons: list[str] = []
        for path in self.paths():
            reason = self.misfit(path)
            try:
                if not reason:
                    found.append(prompts_of(path, space))
            except UnsuitableRunError as why:
                reason = str(why)
            except ConfigurationError:
                reason = "damaged"
            reasons.append(reason)
        return found, reasons

    def misfit(self, path: Path) -> str:
        """Why a run does not fit, by its configuration; '' if it may."""
        try:
            config = read_config(path)
            theirs = config["task"]["name"], config["backbone"]["name"], config["head"]["_target_"]
        except (ConfigurationError, KeyError, TypeError):
            return "damaged"
        ours = zip(("task", "backbone", "head"), (self.task, self.backbone, self.head), theirs, strict=True)
        return next((f"of another {name}" for name, wanted, there in ours if wanted != there), "")


class UnsuitableRunError(ValueError):
    """A run whose prompts cannot be used, and why."""


def describe_unsuitable(reasons: Sequence[str]) -> str:
    """How many runs were seen, and how many did not fit for which reason: '4 runs: 3 of another task'."""
    counts = [f"{n} {reason}" for reason, n in Counter(filter(None, reasons)).items()]
    return format_count(len(reasons), "run") + f": {', '.join(counts)}" * bool(counts)


def prompts_of(path: Path, space: PromptSpace) -> tuple[list[float], list[Tensor]]:
    """The dev losses (nats) of a run's prompts, and these as float32 rows (m·d,): each once, the worst first.

    They are the best soft prompt of each saved state, the soft prompts at the end of a stage (unless the saved state
    has restarted already), and the discrete prompts that were scored on dev. Raises UnsuitableRunError if no saved
    state is whole, or the shape is another; ConfigurationError if records cannot be read.
    """
    soft = soft_prompts(path)
    if not soft:
        raise UnsuitableRunError("without a whole saved state")
    if {tuple(row.shape) for _, row in soft} != {(space.length, space.vocabulary.shape[1])}:
        raise UnsuitableRunError("of another prompt length or width")
    scored: tuple[ScoredPrompt, ...] = read_lines(path / FILES[ScoredPrompt], ScoredPrompt)
    fitting = (s for s in scored if max(s.prompt.tokens) < len(space.vocabulary))
    known = {s.prompt: s.score.loss for s in fitting if len(s.prompt.tokens) == space.length}
    discrete = [row.cpu() for row in space.embed_each(list(known))]
    rows = [*((loss, row.float()) for loss, row in soft), *zip(known.values(), discrete, strict=True)]
    once = {row.numpy().tobytes(): (loss, row.flatten()) for loss, row in rows if row.isfinite().all()}
    ordered = sorted(once.values(), key=lambda pair: -pair[0])
    return [loss for loss, _ in ordered], [row for _, row in ordered]


def soft_prompts(path: Path) -> list[tuple[float, Tensor]]:
    """The soft prompts (m, d) in a run's whole saved states with their dev losses; some may come twice."""
    restarts: tuple[Restart, ...] = read_lines(path / FILES[Restart], Restart)
    restarted = {f"{restart.stage:02d}" for restart in restarts}
    found = []
    for folder in saved_states(path):
        try:
            state, tensors = read_state(path, folder)["state"], read_tensors(folder)
        except (DamagedStateError, OSError):  # or removed meanwhile, by a process that continues that run
            continue
        if state["best"]:
            found.append((state["best"]["score"]["loss"], tensors["best/prompt"]))
        if state["score"] and ".step" not in folder.name and folder.name not in restarted:
            found.append((state["score"]["loss"], tensors["member0/prompt"]))
    return found


@dataclass(frozen=True)
class Plane:
    """The subspace of the prompts: `mean` (m·d,), principal `axes` (r, m·d), and the `spread` (r,) along each."""

    mean: Tensor
    axes: Tensor
    spread: Tensor

    @classmethod
    def through(cls, prompts: Tensor, dimensions: int) -> "Plane":
        """From prompts (n, m·d): at most `dimensions` leading directions in which they differ at all."""
        mean = prompts.mean(0)
        _, sizes, axes = torch.linalg.svd((prompts - mean).double(), full_matrices=False)
        r = min(dimensions, int((sizes > 1e-5 * sizes[0]).sum()))
        return cls(mean, axes[:r].float(), (sizes[:r] / math.sqrt(len(prompts))).float())

    def coordinates(self, prompts: Tensor) -> Tensor:
        """The coordinates (n, r) of prompts (n, m·d); mean 0 and variance 1 over those that it was computed from."""
        return (prompts - self.mean) @ self.axes.T / self.spread

    def points(self, coordinates: Tensor) -> Tensor:
        """The prompts (n, m·d) at these coordinates (n, r)."""
        return coordinates * self.spread @ self.axes + self.mean


@dataclass(frozen=True)
class Points:
    """Prompts of runs: coordinates `x` (n, r) and `quality` (n,), minus the log of the dev loss at mean 0, variance 1.

    (By rank, the few soft prompts that are far better than all others would hardly differ.) The prompts of a run
    follow each other, the worst first, from index `begin` (n,) on.
    """

    x: Tensor
    quality: Tensor
    begin: Tensor

    @classmethod
    def of(cls, runs: Sequence[tuple[Sequence[float], Tensor]]) -> "Points":
        """From each run's dev losses and coordinates, the worst first."""
        quality = -torch.tensor([loss for losses, _ in runs for loss in losses]).clamp_min(1e-6).log()
        quality = (quality - quality.mean()) / quality.std().clamp_min(1e-6)
        sizes = torch.tensor([len(losses) for losses, _ in runs])
        begin = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
        return cls(torch.cat([x for _, x in runs]), quality, begin)

    def bound(self, x: Tensor) -> Tensor:
        """Coordinates (b, r) moved within the bounds of these points."""
        return x.clamp(self.x.amin(0), self.x.amax(0))


@dataclass(frozen=True)
class Denoiser:
    """A network of two hidden layers that predicts a prompt from its noisy form, an earlier one and its quality.

    Noise level t of `levels` mixes x cos(πt/2T) + noise sin(πt/2T): none at 0, all at T. `weights` are the layers'.
    """

    weights: tuple[Tensor, ...]
    levels: int

    def mixture(self, level: Tensor | int) -> tuple[Tensor, Tensor]:
        """The shares of signal and noise at a level (any shape)."""
        angle = torch.as_tensor(level) * (math.pi / 2 / self.levels)
        return angle.cos(), angle.sin()

    def clean(self, noisy: Tensor, level: Tensor, here: Tensor, quality: Tensor) -> Tensor:
        """The clean form of noisy coordinates (b, r) at a level (b,): of a quality (b,), in a run at `here` (b, r).

        The network predicts v = cos · noise - sin · x (Salimans & Ho 2022, arXiv 2202.00512), so that its error falls
        with the noise; if it predicted x itself, it would draw only the middle of each cluster.
        """
        signal, noise = self.mixture(level[:, None])
        state = torch.cat([noisy, here, quality[:, None], signal, noise], -1)
        for i in (0, 2):
            state = torch.nn.functional.silu(state @ self.weights[i] + self.weights[i + 1])
        return signal * noisy - noise * (state @ self.weights[4] + self.weights[5])

    @torch.no_grad()
    def draw(self, here: Tensor, quality: Tensor, seen: Points, generator: torch.Generator) -> Tensor:
        """Coordinates (b, r) by the reverse process (DDPM, Ho et al. 2020, arXiv 2006.11239, equation 7).

        They are of this quality (b,), in a run at `here` (b, r). The predicted clean point is kept within the bounds of
        the points seen.
        """
        x = torch.randn(here.shape, generator=generator)
        for level in range(self.levels, 0, -1):
            guess = seen.bound(self.clean(x, torch.full(here.shape[:1], float(level)), here, quality))
            (signal, noise), (signal_before, noise_before) = self.mixture(level), self.mixture(level - 1)
            kept = signal / signal_before
            added = 1 - kept**2
            mean = (kept * noise_before**2 * x + signal_before * added * guess) / noise**2
            x = mean + added.sqrt() * noise_before / noise * torch.randn(x.shape, generator=generator)
        return x


def train_denoiser(seen: Points, settings: Diffusion, generator: torch.Generator) -> Denoiser:
    """A denoiser trained by Adam on points, each given with a point of its run that was no better.

    Points are drawn in proportion to exp(quality): the good ones matter most.
    """
    r, width = seen.x.shape[1], settings.width
    weights: list[Tensor] = []
    for inputs, outputs in pairwise((2 * r + 3, width, width, r)):
        drawn = torch.randn(inputs, outputs, generator=generator) / math.sqrt(inputs)
        weights += [drawn.requires_grad_(), torch.zeros(outputs, requires_grad=True)]
    denoiser = Denoiser(tuple(weights), settings.levels)
    optimizer = torch.optim.Adam(weights, settings.lr)
    for _ in range(settings.steps):
        i = torch.multinomial(seen.quality.softmax(0), BATCH, replacement=True, generator=generator)
        level = torch.randint(1, settings.levels + 1, (BATCH,), generator=generator).float()
        worse = (torch.rand(BATCH, generator=generator) * (i - seen.begin[i] + 1)).long()
        earlier = torch.minimum(seen.begin[i] + worse, i)  # a product may round up
        signal, noise = denoiser.mixture(level[:, None])
        noisy = signal * seen.x[i] + noise * torch.randn(BATCH, r, generator=generator)
        guess = denoiser.clean(noisy, level, seen.x[earlier], seen.quality[i])
        optimizer.zero_grad()
        ((guess - seen.x[i]) / noise).square().mean().backward()  # the error of v
        optimizer.step()
    return denoiser
