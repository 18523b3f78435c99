"""One run from checked parts: load data and model, write the manifest, carry out the method, show the end."""

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.text import Text

from llm_catalyst.callbacks.base import CallbackList, RunInfo
from llm_catalyst.callbacks.trackers import make_trackers
from llm_catalyst.config.build import RunComponents
from llm_catalyst.config.plugins import find_plugin_versions
from llm_catalyst.config.resolved import complete_config
from llm_catalyst.config.settings import Settings
from llm_catalyst.models.backbones import clip, text
from llm_catalyst.runs import old_configs, run_config
from llm_catalyst.runs.reader import read_json
from llm_catalyst.runs.records import Event, Manifest, Outcome
from llm_catalyst.runs.resolved import Resolved
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.tasks.base import Tell, ignore
from llm_catalyst.tasks.data_facts import DataFacts, collect_facts, describe_rows
from llm_catalyst.training import shared_backbone
from llm_catalyst.training.checkpointing import check_sweep_budget
from llm_catalyst.training.estimate import Estimate, estimate_run, render_estimate
from llm_catalyst.training.loop import Experiment, run_experiment
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.utils import cpu, memory, rng, signals
from llm_catalyst.utils.format import format_count, format_ranges
from llm_catalyst.utils.revision import read_revision
from llm_catalyst.utils.terminal import escape_controls, open_console
from llm_catalyst.utils.validation import ConfigurationError

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "hydra-core", "omegaconf", "anthropic", "openai")


def run_training(
    parts: RunComponents, config: Mapping[str, Any], choices: Mapping[str, str], path: Path, words: Sequence[str]
) -> Outcome:
    """Carry out a run, new or cut off, in the directory `path`.

    Raises RunInterrupted or BudgetExceededError where the run ended early and can be resumed.
    """
    console, settings, interactive = open_console(), parts.settings, parts.mentor.interactive
    logs = make_trackers(settings.track, path, config)
    notes, terms = check_mentor(parts, console), tuple(parts.mentor.terms_of_use())
    if parts.mentor.language_models() and not (path / "manifest.json").exists():
        check_sweep_budget(settings.sweep)  # no run begins that could not ask its mentor
    with closing(RunDirectory(path)) as directory:
        with show_status(settings.view, console, "loading data and model …") as tell:
            problem = load_problem(parts, tell)
        if not (path / "config.yaml").exists():  # a run that an earlier revision began continues as it began
            refuse_long_limit(problem)
        plan = settings.plan(problem.examples)
        facts = collect_facts(problem.data)
        facts = replace(facts, warnings=(*facts.warnings, *problem.warnings, *warn_race(parts.settings, plan)))
        resolved = resolve_run(config, parts, problem, facts)
        text = yaml.safe_dump(dict(config), sort_keys=False)
        directory.write_config(text, build_manifest(problem, choices, words, notes), resolved)
        # A live view would draw over a person's input.
        mode = "plain" if interactive and settings.view in ("auto", "live") else settings.view
        callback = CallbackList(*logs, shared_backbone.get_callback(mode, console))
        title = " · ".join(choices[group] for group in ("task", "backbone", "head", "mentor"))
        resumed = f"stages/{directory.saved()[-1].name}" if directory.saved() else None
        shown = describe_rows(facts), (*notes, *facts.warnings)
        metric = problem.data.task.metric
        majority, trains = problem.majority_on_dev, parts.optimizer.trains
        criterion = parts.settings.prompt_criterion
        callback.on_run_start(
            RunInfo(title, str(path), plan, majority, metric, *shown, terms, resumed, criterion, trains)
        )
        try:
            with shared_backbone.get_signal_handler(0.0 if interactive else signals.PATIENCE_S) as handler:
                optimizer = shared_backbone.share_steps(parts.optimizer, problem.device)
                experiment = Experiment(problem, optimizer, parts.mentor, plan)
                outcome = run_experiment(experiment, directory, callback, handler)
        except BaseException as error:
            callback.on_run_end(None)
            with suppress(OSError):  # a full disk may have stopped the run
                directory.append(Event(*directory.reached, "stopped", f"{type(error).__name__}: {error}"))
            raise
        callback.on_run_end(outcome)
    return outcome


def read_finished(path: Path, config: Mapping[str, Any]) -> Outcome | None:
    """The outcome of the run in `path` where it is finished.

    Raises ConfigurationError where that run has another configuration.
    """
    if not (path / "outcome.json").exists():
        return None
    run_config.changed_keys(path, config, run_config.PLACE)
    return read_json(path / "outcome.json", Outcome)


def dry_run(parts: RunComponents) -> Estimate:
    """The measured cost of a run, also printed unless view=none; nothing is trained, paid or written."""
    console, view = open_console(), parts.settings.view
    notes, terms = check_mentor(parts, console), parts.mentor.terms_of_use()
    with show_status(view, console, "loading data and model, and measuring a step …") as tell:
        problem = load_problem(parts, tell)
    refuse_long_limit(problem)
    plan = parts.settings.plan(problem.examples)
    if view != "none":
        for notice in terms:
            console.print(Text(escape_controls(notice)), soft_wrap=True)
        for warning in (
            *notes,
            *collect_facts(problem.data).warnings,
            *problem.warnings,
            *warn_race(parts.settings, plan),
        ):
            console.print(Text(f"warning: {escape_controls(warning)}", "yellow"), soft_wrap=True)
    estimated = estimate_run(Experiment(problem, parts.optimizer, parts.mentor, plan))
    if view != "none":
        console.print(render_estimate(estimated))
    return estimated


def warn_race(settings: Settings, plan: Sequence[int]) -> list[str]:
    """A warning where a race of restart points fills its stage, so that none trains on alone."""
    steps, shortest = settings.restart.race_steps, min(plan[1:], default=0)
    if settings.restart.choose != "race" or steps < shortest or len(plan) < 2:
        return []
    return [
        f"restart.race_steps={steps} is not smaller than a stage of {format_count(shortest, 'step')}: the race ends "
        "with the stage, and its winner has no steps alone; set a smaller restart.race_steps, or longer stages"
    ]


def check_mentor(parts: RunComponents, console: Console) -> tuple[str, ...]:
    """What a reader must know of the models that will be asked (`Mentor.check_reachable`).

    Raises ConfigurationError where the provider refuses key or model, or a price that a budget needs is not known.
    """
    view = parts.settings.view if parts.mentor.language_models() else "none"
    with show_status(view, console, "checking the mentor's model …"):
        notes = tuple(parts.mentor.check_reachable() or ())
    unpriced = parts.mentor.unpriced_models()
    for key, limit in (("budget", parts.settings.budget), ("sweep.budget", parts.settings.sweep.budget)):
        if limit.usd is not None and unpriced:
            raise ConfigurationError(
                f"{key}.usd needs a price, and conf/models.yaml has none for {', '.join(unpriced)}; "
                f"give it in a models.yaml of your own (--config-dir=FOLDER), or use {key}.tokens"
            )
    return notes


@contextmanager
def show_status(view: str, console: Console, words: str) -> Iterator[Tell]:
    """While entered, show `words`, or those with which the function that it yields was called last."""
    if view == "none":
        yield ignore
    else:
        with console.status(words) as status:
            yield status.update


def load_problem(parts: RunComponents, tell: Tell = ignore) -> Problem:
    """The task's data and the frozen backbone, loaded; long steps report their progress to `tell`.

    Raises ConfigurationError where they do not fit together.
    """
    task, head, settings = parts.task, parts.head, parts.settings
    device = choose_device(settings.device)
    parts.backbone.check(device)
    # torch's own choice follows OMP_NUM_THREADS, by which a sweep's workers share a machine, but no quota.
    torch.set_num_threads(settings.threads or min(torch.get_num_threads(), cpu.count_usable_cores()))
    if head.words and parts.backbone.kind == "encoder":
        raise ConfigurationError(
            f"head=verbalizer needs a language-model head, which {parts.backbone.name} does not have; "
            "choose head=classifier or head=similarity, or a backbone such as roberta_base, bert_base or gpt2 (where "
            "the weights hold such a head, and config.json does not say so: backbone.kind=masked_lm or causal_lm)"
        )
    if task.generates and parts.backbone.kind in ("encoder", "masked_lm"):
        raise ConfigurationError(
            f"task={task.name} asks for answers in words, which {parts.backbone.name} does not write; "
            "choose a causal language model, such as backbone=qwen"
        )
    place = f" ({escape_controls(task.hub)}: from its files here or the hub)" if task.hub else ""
    tell(f"reading the data{place} …")
    on_dev = settings.protocol.report_on == "dev"
    data, unseen = task.load(settings.seed, on_dev), task.load_unseen(settings.seed, on_dev)
    if unseen and not head.transfers:
        raise ConfigurationError(
            "task.classes=base reports on classes that were not trained: a context of its own for each class "
            "(head.class_specific=true) has none for them; set it to false, or task.classes=all"
        )

    protocol = settings.protocol

    def load() -> Any:
        memory.forget_peak(device)  # the run's memory is measured from here on
        load_backbone = clip.load_clip if task.modality == "image" else text.load_text_backbone
        return load_backbone(parts.backbone, head.words, device, protocol.embed_twice, protocol.official_states)

    hub = "" if Path(parts.backbone.location()).is_dir() else " (a first time from the hub)"
    tell(f"loading {escape_controls(parts.backbone.name)}{hub} …")
    backbone = shared_backbone.share_backbone(rng.derive_seed(settings.seed, "backbone"), load)
    return assemble_problem(data, backbone, head, settings, tell, unseen)


def refuse_long_limit(problem: Problem) -> None:
    """Raise ConfigurationError where texts of `backbone.max_length` tokens do not fit beside the prompt."""
    backbone, m = problem.model.backbone, problem.space.length
    longest = backbone.longest_text(m)
    if longest is None or (limit := backbone.settings.max_length) in (longest, None):
        return
    raise ConfigurationError(
        f"backbone.max_length={limit} and prompt.length={m} make {limit + m} tokens, and {backbone.settings.name} has "
        f"{backbone.positions} positions; set backbone.max_length={longest} at most"
    )


def choose_device(name: str) -> torch.device:
    """The device of that name; auto is cuda, else mps, else cpu. Raises ConfigurationError where it cannot be used."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    there = [*["cuda"] * bool(gpus), *gpus, *["mps"] * torch.backends.mps.is_available(), "cpu"]
    name = there[0] if name == "auto" else name
    if name not in there:
        built = "" if torch.backends.cuda.is_built() or name == "mps" else "; this torch is built without CUDA"
        raise ConfigurationError(f"device={name} is not there; there are: {', '.join(there)}{built}; try device=auto")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigurationError(f"device={name} cannot be used ({why}); device=cpu can") from error
    if name.startswith("cuda"):
        # cuBLAS gives the same sums in the same order only with a fixed workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device(name)


def build_manifest(
    problem: Problem, choices: Mapping[str, str], words: Sequence[str], notes: tuple[str, ...] = ()
) -> Manifest:
    """The provenance of this run."""
    versions = {name: importlib.metadata.version(name) for name in ("llm-catalyst", *LIBRARIES)}
    return Manifest(
        command=tuple(words),
        choices=dict(choices),
        started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        versions=versions | find_plugin_versions(problem.settings.plugins),
        git=read_revision(),
        python=sys.version.split()[0],
        platform=platform.platform(),
        device=str(problem.device),
        threads=torch.get_num_threads(),
        backbone=problem.model.backbone.facts(),
        data=problem.data.fingerprints(),
        together=shared_backbone.count_runs(),
        format=old_configs.FORMAT,
        mentor_notes=notes,
    )


def resolve_run(config: Mapping[str, Any], parts: RunComponents, problem: Problem, facts: DataFacts) -> Resolved:
    """What the configuration leaves to defaults, and to the data."""
    data, cut = problem.data, problem.truncation
    used = {"train": data.train, "dev": data.dev}
    numbers = {name: format_ranges(each.row for each in rows if each.row is not None) for name, rows in used.items()}
    rows = asdict(facts) | {"truncation": asdict(cut) if cut else None, "rows": numbers}
    return Resolved(complete_config(config, parts), data.labels, data.words, data.descriptions, rows)
