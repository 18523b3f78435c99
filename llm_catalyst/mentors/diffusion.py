"""A restart model: a small denoising diffusion model of the prompts that earlier runs found proposes soft prompts.

Shapes: n prompts of earlier runs, m virtual tokens, d embedding width, r coordinates of a prompt, b a batch.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.checkpoints import DamagedStateError, read_state, read_tensors, saved_states
from llm_catalyst.runs.reader import FILES, find_runs, read_lines
from llm_catalyst.runs.records import Advice, Proposal, Restart, ScoredPrompt
from llm_catalyst.runs.run_config import read_config
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import ConfigurationError, check_at_least

BATCH = 64  # prompts of one training step; drawn with replacement, as there may be fewer


@dataclass(frozen=True)
class Diffusion:
    """Proposes soft prompts drawn from a denoising model of the prompts that earlier runs found, as good as their best.

    After Diff-L2O (Shi et al. 2025, arXiv 2503.11462), which draws starting points of an optimization from a diffusion
    model of solutions, guided by what the optimization has seen so far, instead of learning single steps. Faithful: a
    model of solutions, not of steps; trained within seconds; guided by the present run; its samples are then trained on
    as usual. Different: the guide is the pool's best prompt and the dev loss to reach (the lowest
    that was found), not gradients, which no run keeps; what is learned is the denoising alone, without the task's loss
    at the samples; the data are tens to hundreds of prompts, good ones and bad ones, so that the model works on their
    `dimensions` leading principal components, and what it draws lies in their span.

    `runs` is a folder of earlier runs, finished or not (the present one too, where it lies there): those count whose
    `task`, `backbone` and `head` (its class) are these and whose prompts are (m, d). Of damaged files nothing is used,
    and test scores are never read. The same configuration gives the same bytes while that folder holds the same runs.
    """

    runs: str
    task: str
    backbone: str
    head: str
    proposals: int = 3
    dimensions: int = 8
    levels: int = 100
    width: int = 128
    steps: int = 1000
    lr: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("proposals", "dimensions", "levels", "width", "steps"):
            check_at_least(f"mentor.{name}", getattr(self, name), 1)
        check_at_least("mentor.lr", self.lr, 1e-9)

    def preflight(self) -> None:
        """Raise ConfigurationError where no run in the folder is of this task, backbone and head."""
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
            return Advice(
                fallback=f"mentor.runs={self.runs} holds no two prompts that fit ({describe_unsuitable(reasons)})"
            )
        plane = Plane.through(torch.stack(prompts), self.dimensions)
        course = Points.of([(losses, plane.coordinates(torch.stack(rows))) for losses, rows in found])
        generator = torch.Generator().manual_seed(context.rng.getrandbits(63))
        denoiser = train_denoiser(course, self, generator)
        best = [scored.prompt for scored in context.pool[-1:]]
        stand = space.embed(best).cpu().flatten(1) if best else plane.mean[None]
        here = plane.coordinates(stand).clamp(course.low, course.high).expand(self.proposals, -1)
        drawn = plane.points(denoiser.draw(here, course.quality.max().expand(self.proposals), course, generator))
        rows = drawn.view(self.proposals, space.length, -1).to(space.vocabulary.device)
        why = f"drawn from a model of {len(prompts)} prompts of {len(found)} earlier runs"
        return Advice(tuple(Proposal(prompt, why) for prompt in space.project(rows)[0]), rows=rows)

    def paths(self) -> list[Path]:
        return find_runs(Path(self.runs).expanduser())

    def gather(self, space: PromptSpace) -> tuple[list[tuple[list[float], list[Tensor]]], list[str]]:
        """Of each run that fits the dev losses and prompts (m·d,), the worst first; and of each run why not, or ''."""
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
        """Why a run is of no use, as far as its configuration tells: '' where it may be."""
        try:
            config = read_config(path)
            theirs = config["task"]["name"], config["backbone"]["name"], config["head"]["_target_"]
        except (ConfigurationError, KeyError, TypeError):
            return "damaged"
        ours = zip(("task", "backbone", "head"), (self.task, self.backbone, self.head), theirs, strict=True)
        return next((f"of another {name}" for name, wanted, there in ours if wanted != there), "")


class UnsuitableRunError(ValueError):
    """A run whose prompts are of no use, and why."""


def describe_unsuitable(reasons: Sequence[str]) -> str:
    """How many runs were seen, and for what reasons how many of them did not fit: '4 runs: 3 of another task'."""
    counts = [f"{n} {reason}" for reason, n in Counter(filter(None, reasons)).items()]
    return format_count(len(reasons), "run") + f": {', '.join(counts)}" * bool(counts)


def prompts_of(path: Path, space: PromptSpace) -> tuple[list[float], list[Tensor]]:
    """The dev losses (nats) of a run's prompts, and these as float32 rows (m·d,): each once, the worst first.

    They are the best soft prompt at each saved state, the soft prompts that a stage ended with (where the saved state
    has not their restart already), and the discrete prompts that were scored on dev. Raises Misfit where no saved
    state is whole, or where their shape is another; ConfigurationError where records cannot be read.
    """
    soft = soft_prompts(path)
    if not soft:
        raise UnsuitableRunError("without a whole saved state")
    if {tuple(row.shape) for _, row in soft} != {(space.length, space.vocabulary.shape[1])}:
        raise UnsuitableRunError("of another prompt length or width")
    scored: tuple[ScoredPrompt, ...] = read_lines(path / FILES[ScoredPrompt], ScoredPrompt)
    known = {s.prompt: s.score.loss for s in scored if max(s.prompt.tokens) < len(space.vocabulary)}
    discrete = space.embed(list(known)).cpu().unbind() if known else ()
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
        except (DamagedStateError, OSError):  # or removed meanwhile, by a process that goes on with that run
            continue
        if state["best"]:
            found.append((state["best"]["score"]["loss"], tensors["best/prompt"]))
        if state["score"] and ".step" not in folder.name and folder.name not in restarted:
            found.append((state["score"]["loss"], tensors["member0/prompt"]))
    return found


@dataclass(frozen=True)
class Plane:
    """The flat in which prompts lie: `mean` (m·d,), principal `axes` (r, m·d), and the `spread` (r,) along each."""

    mean: Tensor
    axes: Tensor
    spread: Tensor

    @classmethod
    def through(cls, prompts: Tensor, dimensions: int) -> "Plane":
        """Of prompts (n, m·d): their leading directions, `dimensions` at most, in which they differ at all."""
        mean = prompts.mean(0)
        _, sizes, axes = torch.linalg.svd((prompts - mean).double(), full_matrices=False)
        r = min(dimensions, int((sizes > 1e-5 * sizes[0]).sum()))
        return cls(mean, axes[:r].float(), (sizes[:r] / math.sqrt(len(prompts))).float())

    def coordinates(self, prompts: Tensor) -> Tensor:
        """Of prompts (n, m·d), (n, r): over those that it was laid through, mean 0 and variance 1."""
        return (prompts - self.mean) @ self.axes.T / self.spread

    def points(self, coordinates: Tensor) -> Tensor:
        """The prompts (n, m·d) at these coordinates (n, r)."""
        return coordinates * self.spread @ self.axes + self.mean


@dataclass(frozen=True)
class Points:
    """Prompts of runs: coordinates `x` (n, r) and `quality` (n,), minus the log of the dev loss at mean 0, variance 1.

    (By rank, the few soft prompts that are far better than all others would hardly stand out.) The prompts of a run
    stand together, the worst first, from place `begin` (n,) on.
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

    @property
    def low(self) -> Tensor:
        return self.x.amin(0)

    @property
    def high(self) -> Tensor:
        return self.x.amax(0)


@dataclass(frozen=True)
class Denoiser:
    """A network of two hidden layers that says what a noisy prompt was, given where its run stood and its quality.

    Noise level t of `levels` mixes x cos(πt/2T) + noise sin(πt/2T): none at 0, all at T. `weights` are the layers'.
    """

    weights: tuple[Tensor, ...]
    levels: int

    def mixture(self, level: Tensor | int) -> tuple[Tensor, Tensor]:
        """The shares of signal and noise at a level (any shape)."""
        angle = torch.as_tensor(level) * (math.pi / 2 / self.levels)
        return angle.cos(), angle.sin()

    def clean(self, noisy: Tensor, level: Tensor, here: Tensor, quality: Tensor) -> Tensor:
        """What noisy coordinates (b, r) at a level (b,) were: of a quality (b,), in a run that stood `here` (b, r).

        The network tells v = cos · noise - sin · x (Salimans & Ho 2022, arXiv 2202.00512), so that the less noise
        there is, the less it can err: what told x itself would draw but the middle of each cluster.
        """
        signal, noise = self.mixture(level[:, None])
        state = torch.cat([noisy, here, quality[:, None], signal, noise], -1)
        first, second, (weight, bias) = (self.weights[i : i + 2] for i in (0, 2, 4))
        for inner, shift in (first, second):
            state = torch.nn.functional.silu(state @ inner + shift)
        return signal * noisy - noise * (state @ weight + bias)

    @torch.no_grad()
    def draw(self, here: Tensor, quality: Tensor, seen: Points, generator: torch.Generator) -> Tensor:
        """Coordinates (b, r) by the reverse process (DDPM, Ho et al. 2020, arXiv 2006.11239, equation 7).

        They are of this quality (b,), in a run that stands `here` (b, r). What the network takes for the clean point
        is kept within the bounds of the points seen.
        """
        x = torch.randn(here.shape, generator=generator)
        for level in range(self.levels, 0, -1):
            guess = self.clean(x, torch.full(here.shape[:1], float(level)), here, quality).clamp(seen.low, seen.high)
            (signal, noise), (signal_before, noise_before) = self.mixture(level), self.mixture(level - 1)
            kept = signal / signal_before
            added = 1 - kept**2
            mean = (kept * noise_before**2 * x + signal_before * added * guess) / noise**2
            x = mean + added.sqrt() * noise_before / noise * torch.randn(x.shape, generator=generator)
        return x


def train_denoiser(seen: Points, settings: Diffusion, generator: torch.Generator) -> Denoiser:
    """A denoiser trained by Adam on points, each noisy one beside a point of its run that was no better.

    A point is drawn in proportion to exp(quality): the model is there for the good ones.
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
