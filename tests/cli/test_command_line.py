"""`catalyst`: help, completion, refusals and where runs are put, each in a process of its own."""

import errno
import functools
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.command import REPOSITORY, Command
from helpers.recorded import write_run
from helpers.tiny_models import folder

from llm_catalyst.config.errors import explain_failure
from llm_catalyst.config.overrides import (
    absolutize_paths,
    choose_sweep_folder,
    expand_seeds_together,
    sanitize_folder_name,
)
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves

HEAVY = ("torch", "transformers", "datasets", "hydra", "omegaconf", "anthropic", "openai")
GROUPS = ("task", "backbone", "head", "optimizer", "mentor", "strategy", "protocol", "experiment")
KEY = "sk-" + "abcdefghijklmnop0123456789"


def loaded_by(*words: str) -> str:
    """Code that runs the command and prints which heavy packages it has imported."""
    return f"""
import contextlib, io, sys
from llm_catalyst.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main({list(words)!r})
print([name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.fixture(scope="session")
def run_help(catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `catalyst run --help` prints."""
    done = catalyst("run", "--help", cwd=tmp_path_factory.mktemp("help"))
    assert done.returncode == 0
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="session")
def examples(run_help: str) -> list[list[str]]:
    """The words of each example in the help, as a shell splits them."""
    lines = [line.strip() for line in run_help.partition("Choose one")[0].splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("catalyst run ") and "catalyst run:" not in line]


@pytest.fixture(scope="session")
def composing(catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, object]]:
    """The configuration that the command makes of these words."""

    def compose(*words: str) -> dict[str, object]:
        done = catalyst("run", *words, "--cfg", "job", cwd=tmp_path_factory.mktemp("compose"))
        assert (done.returncode, done.stderr) == (0, "")
        config: dict[str, object] = yaml.safe_load(done.stdout)
        return config

    return compose


# --- help and completion


@pytest.mark.parametrize(
    "words", [["--help"], [], ["--version"], ["resume", "--help"], ["show", "--help"], ["reproduce"]], ids=str
)
def test_help_needs_nothing_heavy(python: Callable[[str], str], words: list[str]) -> None:
    assert python(loaded_by(*words)).strip() == "[]"


def test_a_run_is_shown_without_anything_heavy(python: Callable[[str], str], tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=1)
    assert python(loaded_by("show", str(path))).strip() == "[]"


def test_help_names_every_command(catalyst: Command, tmp_path: Path) -> None:
    for words in (["--help"], []):
        done = catalyst(*words, cwd=tmp_path)
        assert done.returncode == 0
        assert {"run", "resume", "show"} <= set(re.findall(r"^  catalyst (\w+)", done.stdout, re.MULTILINE))


def test_an_unknown_command_is_refused_with_those_that_there_are(catalyst: Command, tmp_path: Path) -> None:
    done = catalyst("rnu", "task=sst2", cwd=tmp_path)
    assert done.returncode == 2
    assert "invalid choice: 'rnu'" in done.stderr
    assert "run" in done.stderr.partition("choose from")[2]


def test_the_help_of_run_names_every_choice_of_every_group(run_help: str) -> None:
    conf = REPOSITORY / "conf"
    for group in GROUPS:
        listed = re.findall(rf"^{group}(?:/\w+)?: (.*)$", run_help, re.MULTILINE)
        names = {name for line in listed for name in line.split(", ")}
        assert names == {path.stem for path in (conf / group).rglob("*.yaml") if path.name[0] != "_"}, group


def test_the_help_of_run_holds_nine_examples(examples: list[list[str]]) -> None:
    assert len(examples) == 9


@pytest.mark.parametrize("number", range(9))
def test_an_example_of_the_help_works_as_it_is_written(
    examples: list[list[str]], composing: Callable[..., dict[str, object]], number: int
) -> None:
    words = examples[number]
    if words[0] == "-m":
        axes = [[f"{word.partition('=')[0]}={v}" for v in word.partition("=")[2].split(",")] for word in words[1:]]
        words = list(itertools.chain.from_iterable(cell[:1] for cell in axes))
    config = composing(*words)
    unset = [path for path, value in flatten_leaves(config) if value == "???"]
    assert not unset, f"a user who copies the example is asked for {unset}"


def test_the_command_in_the_header_of_local_takes_a_template_as_it_is_written(
    composing: Callable[..., dict[str, object]],
) -> None:
    header = (REPOSITORY / "conf" / "task" / "local.yaml").read_text(encoding="utf-8")
    command = re.search(r"# catalyst run (.*)", header)
    assert command
    task = composing(*shlex.split(command[1]))["task"]
    assert isinstance(task, dict)
    assert (task["text"], task["label"], task["path"], task["test"]) == ("{review}", "stars", "reviews.csv", "test")


def test_cfg_job_prints_the_configuration_and_leaves_nothing_behind(catalyst: Command, tmp_path: Path) -> None:
    done = catalyst("run", "task=rte", "seed=7", "--cfg", "job", cwd=tmp_path)
    config = yaml.safe_load(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (config["seed"], config["task"]["name"], config["mentor"]["_target_"].rpartition(".")[2]) == (
        7,
        "rte",
        "NoMentor",
    )
    assert list(tmp_path.iterdir()) == []


def test_overrides_may_stand_behind_options(catalyst: Command, tmp_path: Path) -> None:
    done = catalyst("run", "--cfg", "job", "task=rte", "--package", "task", "task.shots=3", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (yaml.safe_load(done.stdout)["name"], yaml.safe_load(done.stdout)["shots"]) == ("rte", 3)


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("catalyst run task=", {"task=sst2", "task=boolq", "task=local"}, "mentor="),
        ("catalyst run task=sst2 mentor=ra", {"mentor=random"}, "task="),
        ("catalyst run batch", {"batch_size="}, "task"),
    ],
)
def test_a_shell_completes_the_words_of_run(
    catalyst: Command, tmp_path: Path, line: str, wanted: set[str], unwanted: str
) -> None:
    done = catalyst("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert done.returncode == 0
    assert wanted <= set(done.stdout.split())
    assert unwanted not in done.stdout


def test_completion_can_be_installed(catalyst: Command, tmp_path: Path) -> None:
    done = catalyst("run", "-sc", "install=bash", cwd=tmp_path, SHELL="/bin/bash")
    assert done.returncode == 0
    assert "complete " in done.stdout
    assert "catalyst" in done.stdout


# --- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=sst3"], r"task=sst3 is not known \(did you mean sst2\?\); there are: ag_news"),
        (["mentor=gtp4"], r"mentor=gtp4 is not known \(did you mean gpt4\?\)"),
        (["task=null"], r"task=null names no choice; there are: ag_news, "),
        (["mentor="], r"mentor= names no choice; there are: azure, .*; for none of them write mentor=none"),
        (["task=[sst2,cb]"], r"task=\[sst2,cb\] names several choices; write one, or for a sweep -m task=A,B"),
        (["batch_sise=8"], r"no key batch_sise \(did you mean batch_size\?\)"),
        (["optimizer.lrr=1"], r"no key optimizer\.lrr \(did you mean optimizer\.lr\?\)"),
        (["mentor.fallbacks=[gpt4]"], r"there is no key mentor\.fallbacks under this choice of mentor"),
        (["opimizer=adam"], r"no key opimizer \(did you mean optimizer\?\)"),
        (["optimizer.defaults=1"], r"no key optimizer\.defaults"),
        (["quickstart"], r"'quickstart' sets no key.*did you mean experiment=quickstart or task=quickstart\?"),
        (["--confg-dir=x"], r"unrecognized arguments: --confg-dir=x \(did you mean --config-dir\?\)"),
        (["task.text={review"], r"task.text=.{review. is no template"),
        (["+seed=2"], r"there is a key seed already"),
        (["batch_size=zero"], r"batch_size='zero' does not fit"),
        (["mentor=openai_compatible"], r"mentor\.client\.(model|base_url)"),
        (["mentor=gpt4"], r"OPENAI_API_KEY"),
        (["seed=1,2"], r"seed=1,2 gives seed several values; for a sweep add -m"),
        (["--config-dir=nowhere"], r"nowhere"),
    ],
    ids=str,
)
def test_wrong_use_ends_with_2_and_one_message(
    catalyst: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    done = catalyst("run", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("rror") == done.stderr.count("error: ") == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert tmp_path.is_dir(), "the folder that the command was started in is gone"


def test_debugging_shows_where_it_happened(catalyst: Command, tmp_path: Path) -> None:
    done = catalyst("run", "task=sst3", cwd=tmp_path, CATALYST_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", ["show", "resume"])
def test_a_directory_that_is_no_run_is_refused(catalyst: Command, tmp_path: Path, command: str) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        done = catalyst(command, str(path), cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {path} is not a run directory (no manifest.json)")
        assert done.stdout == ""


@pytest.mark.parametrize("columns", ["", "60"])
def test_a_path_and_a_command_stand_on_one_line_in_a_pipe(catalyst: Command, tmp_path: Path, columns: str) -> None:
    path = write_run(tmp_path / ("long " * 30).strip(), stages=1)
    shown = catalyst("show", str(path), cwd=tmp_path, COLUMNS=columns).stdout.splitlines()
    assert f"  files      '{path}'" in shown
    assert f"  command    catalyst report '{path}'" in shown


def test_a_run_that_cannot_be_read_is_named_by_file_and_line(catalyst: Command, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=1)
    (path / "pool.jsonl").write_bytes((path / "pool.jsonl").read_bytes().partition(b"\n")[0] + b"\n{}\n")
    done = catalyst("show", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path / 'pool.jsonl'}, line 2 is not a ScoredPrompt record")


@pytest.mark.parametrize("flags", [[], ["-m"]], ids=["a run", "a sweep"])
def test_a_key_on_the_command_line_never_reaches_the_disk(catalyst: Command, tmp_path: Path, flags: list[str]) -> None:
    done = catalyst("run", *flags, f"task.description={KEY}", "seed=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "looks like a secret key" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text()] == []
    assert KEY not in done.stdout + done.stderr


# --- without the sweep extra


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """The command as it is where only the dependencies are installed that every user has."""
    home, extra = tmp_path_factory.mktemp("plain"), ("joblib", "submitit", "optuna", "hydra_", "llm_catalyst")
    (home / "site").mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(extra) and path.suffix != ".pth":
            (home / "site" / path.name).symlink_to(path)
    environment = os.environ | {"PYTHONPATH": f"{home / 'site'}:{REPOSITORY}"}
    code = "from llm_catalyst.cli.main import main; main()"

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-S", "-c", code, *words]
        return subprocess.run(program, cwd=home, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["seed=1,2", "hydra/launcher=machine"], "Could not load 'hydra/launcher/joblib'"),
        (["seed=1,2", "hydra/launcher=slurm"], "Could not load 'hydra/launcher/submitit_slurm'"),
        (["optimizer.lr=1,2", "hydra/sweeper=optuna"], "a search needs Optuna"),
    ],
    ids=str,
)
def test_what_needs_the_sweep_extra_says_so(
    plain: Callable[..., "subprocess.CompletedProcess[str]"], words: list[str], missing: str
) -> None:
    done = plain("run", "-m", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert missing in done.stderr
    assert "pip install 'llm-catalyst[sweep]'" in done.stderr


def test_runs_and_help_need_no_extra(plain: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    done = plain("run", "seed=7", "--cfg", "job", "--package", "seed")
    assert (done.returncode, done.stderr, done.stdout.split()[-1]) == (0, "", "7")
    done = plain("run", "--help")
    assert (done.returncode, done.stderr) == (0, "")


# --- a user's own files


def write_task(folder: Path, name: str) -> None:
    (folder / "task").mkdir(parents=True)
    node = {"_target_": "llm_catalyst.tasks.text_task.TextTask", "name": name, "text": "{text}", "path": None}
    (folder / "task" / f"{name}.yaml").write_text(yaml.safe_dump(node))


@pytest.mark.parametrize("flag", [["--config-dir=mine"], ["--config-dir", "mine"], ["-cd", "mine"]], ids=str)
def test_a_task_of_the_users_own_is_a_choice(catalyst: Command, tmp_path: Path, flag: list[str]) -> None:
    write_task(tmp_path / "mine", "moods")
    done = catalyst("run", *flag, "task=moods", "--cfg", "job", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["task"]["name"] == "moods"


def test_a_users_file_with_the_name_of_a_packaged_choice_is_warned_about(catalyst: Command, tmp_path: Path) -> None:
    write_task(tmp_path / "mine", "sst2")
    done = catalyst("run", "--config-dir=mine", "task=sst2", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    assert re.search(r"mine/task/sst2\.yaml is not used: a packaged choice has the same name", done.stderr)
    assert "hub" in yaml.safe_load(done.stdout)["task"]


# --- where runs are put


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "..", "a/../../b", "x\n/y", ""])
def test_a_name_cannot_lead_out_of_the_output_folder(name: str) -> None:
    folder = sanitize_folder_name(name)
    assert folder == Path(folder).name
    assert folder not in ("", ".", "..")


def test_a_task_name_that_climbs_stays_below_outputs(catalyst: Command, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").touch()
    catalyst("run", "task=local", "task.name=../../escaped", "batch_size=0", cwd=tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert {path.name for path in (tmp_path / "here").iterdir()} - {"outputs"} == {"mine.txt"}


# --- what makes a run be gone on with


ONE_STEP = (
    "head=similarity",
    "mentor=none",
    "device=cpu",
    "stages=1",
    "stage.steps=1",
    "pool.candidates=1",
    "batch_size=4",
)


def test_a_run_that_diverged_in_every_stage_has_an_exit_code_of_its_own(
    catalyst: Command, tmp_path: Path, tiny_task: Path
) -> None:
    words = ("task=local", f"task.path={tiny_task}", "backbone=minilm", *ONE_STEP, "stage.steps=2")
    words += ("optimizer=sgd", "optimizer.lr=1e38", "clip_norm=null", "hydra.run.dir=run")
    done = catalyst("run", *words, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "diverged" in (tmp_path / "run" / "events.jsonl").read_text()
    assert catalyst("resume", "run", cwd=tmp_path).returncode == 4


# E10, E23
def test_a_run_records_a_path_as_typed_and_a_seed_as_the_number(
    catalyst: Command, tmp_path: Path, tiny_task: Path
) -> None:
    odd = tmp_path / "my data, part=1 {a}"
    odd.symlink_to(tiny_task)
    words = ("task=local", f"task.path={odd}", "backbone=minilm", *ONE_STEP, "seed=007", "hydra.run.dir=run")
    done = catalyst("run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["task"]["path"], config["seed"]) == (str(odd), 7)
    assert catalyst("resume", "run", cwd=tmp_path).returncode == 0
    shown = catalyst("show", "run", cwd=tmp_path).stdout
    printed = next(line for line in shown.splitlines() if line.startswith("  command")).split(maxsplit=1)[1]
    assert shlex.split(printed)[:2] == ["catalyst", "run"]
    assert f"task.path={odd}" in shlex.split(printed)
    report = catalyst("report", "run", "--output", "report", cwd=tmp_path)
    assert "does not count" not in report.stdout + report.stderr


# E24
@pytest.mark.slow
def test_a_user_whose_home_cannot_be_written_runs_what_needs_no_cache(tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("CATALYST_CACHE", "HF_DATASETS_CACHE", "HF_HOME", "XDG_CACHE_HOME"), "")
    start = functools.partial(Command(fresh=True), cwd=tmp_path, HOME="/proc", **nowhere)  # not even root can write it
    done = start("run", "experiment=quickstart", *ONE_STEP, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    done = start("run", "experiment=shapes", *ONE_STEP[1:])
    assert done.returncode == 2
    assert "/proc/.cache/llm-catalyst/images, which cannot be written" in done.stderr
    assert "set CATALYST_CACHE" in done.stderr


# E4
def test_a_run_of_a_folder_alone_lies_under_its_name_and_records_its_kind(
    catalyst: Command, tmp_path: Path, tiny_task: Path
) -> None:
    words = ("task=local", f"task.path={tiny_task}", "view=none", "device=cpu", "stages=1", "stage.steps=1")
    done = catalyst("run", *words, f"backbone.name={folder('gpt2')}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("outputs/local/gpt2/none/*_seed1")
    assert "kind: causal_lm" in (run / "config.yaml").read_text()
    assert json.loads((run / "manifest.json").read_text())["choices"]["backbone"] == "gpt2"


def test_a_sweep_has_a_folder_that_follows_from_what_it_computes() -> None:
    words = ["-m", "mentor=none,gpt4", "seed=1,2"]
    (folder,) = choose_sweep_folder(words)
    assert re.fullmatch(r"hydra\.sweep\.dir=outputs/sweeps/mentor_none_gpt4_seed_1_2_[0-9a-f]{8}", folder)
    same = [*words, "budget.usd=5", "device=cuda:1", "checkpoint.every=10", "hydra/launcher=joblib", "view=none"]
    assert (
        choose_sweep_folder(same)
        == choose_sweep_folder([*words, "hydra.sweeper.trials=9", "--config-dir", "mine"])
        == [folder]
    )
    for other in ("optimizer.lr=1", "hydra/sweeper=optuna", "hydra.sweeper.seed=2", "~optimizer.lr"):
        assert choose_sweep_folder([*words, other]) != [folder]
    assert len(choose_sweep_folder(["-m", "task.text=" + "x" * 500])[0]) < 120
    assert "/.." not in choose_sweep_folder(["-m", "task.name=../../x"])[0]


@pytest.mark.parametrize("words", [["seed=1"], ["-m", "seed=1,2", "hydra.sweep.dir=here"]])
def test_a_folder_that_the_user_names_and_a_single_run_are_left_alone(words: list[str]) -> None:
    assert choose_sweep_folder(words) == []


@pytest.mark.parametrize("given", ["[1,2]", "1,2", "[1, 2]"])
def test_seeds_together_are_a_sweep_over_seeds_by_a_launcher(given: str) -> None:
    words = ["task=rte", f"seeds_together={given}", "-m", "mentor=none,random"]
    assert expand_seeds_together(words) == [
        "task=rte",
        "mentor=none,random",
        "-m",
        "seed=1,2",
        "hydra/launcher=together",
    ]
    assert expand_seeds_together(["seed=1"]) == ["seed=1"]
    assert choose_sweep_folder(expand_seeds_together(words)) == choose_sweep_folder(
        ["-m", "task=rte", "mentor=none,random", "seed=1,2"]
    )


@pytest.mark.parametrize("words", [["=[]"], ["=[1,x]"], ["=[1,2]", "seed=3"], ["=[1,2]", "hydra/launcher=machine"]])
def test_seeds_together_that_are_none_or_that_other_words_contradict_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"seeds_together=\["):
        expand_seeds_together(["seeds_together" + words[0], *words[1:]])


def test_relative_paths_of_what_is_there_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    config = {
        "task": {"path": "data"},
        "backbone": {"name": "roberta-large"},
        "mentor": {"client": {"run": "gone"}, "fallbacks": [{"_target_": "x"}, {"client": {"model": "./data"}}]},
        "replay": {"run": "data"},
    }
    found = absolutize_paths(config)
    assert (found["task"]["path"], found["replay"]["run"]) == (str(tmp_path / "data"),) * 2
    assert (found["backbone"]["name"], found["mentor"]["client"]["run"]) == ("roberta-large", "gone")
    assert found["mentor"]["fallbacks"][1]["client"]["model"] == str(tmp_path / "data")
    assert (
        absolutize_paths({"task": {"path": None}, "backbone": {}, "mentor": {"_target_": "x"}})["task"]["path"] is None
    )
    diffusion = {"runs": "data", "backbone": "data"}
    there = dict.fromkeys(diffusion, str(tmp_path / "data"))
    assert absolutize_paths({"task": {}, "backbone": {}, "mentor": diffusion})["mentor"] == there


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "free some space and resume the run"),
        (errno.EFBIG, "raise the limit of file sizes"),
        (errno.EROFS, "hydra.run.dir=DIR"),
        (errno.EACCES, "hydra.run.dir=DIR"),
    ],
)
def test_what_the_file_system_refuses_is_told_with_its_mend(number: int, mend: str) -> None:
    words = explain_failure(OSError(number, os.strerror(number), "run/trajectory.jsonl"))
    assert words.startswith(f"run/trajectory.jsonl: {os.strerror(number)}; ")
    assert mend in words
    assert "CATALYST_DEBUG=1" in explain_failure(OSError(errno.EIO, "broken"))


def test_nohup_keeps_a_run_alive_when_its_terminal_is_gone() -> None:
    program = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from llm_catalyst.utils.signals import SignalHandler, handle_signals
handle_signals()
with SignalHandler() as handler:
    os.kill(os.getpid(), signal.SIGHUP)
    handler.check()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "experiment=quickstart", "hydra.run.dir=file"], "file: File exists; a file is in its way"),
        (["run", "experiment=quickstart", "hydra.run.dir=file/run"], "file/run: Not a directory; a file is in its way"),
        (["run", "-m", "experiment=quickstart", "hydra.sweep.dir=file"], "file: File exists; a file is in its way"),
        (["show", "run", "--svg", "nowhere/run.svg"], "--svg nowhere/run.svg cannot be written: No such file"),
        (["report", "run", "--output", "file"], "file"),
    ],
    ids=str,
)
def test_a_place_that_cannot_be_written_is_refused(
    catalyst: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    write_run(tmp_path / "run")
    done = catalyst(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1


def test_a_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    gone, program = tmp_path / "gone", Path(sys.executable).with_name("catalyst")
    command = f"mkdir {gone} && cd {gone} && rmdir {gone} && {program}"
    for words in ("run experiment=quickstart", "show run"):
        done = subprocess.run(["bash", "-c", f"{command} {words}"], capture_output=True, text=True, timeout=300)
        assert done.stderr == "error: the current folder no longer exists; change to another one (cd)\n"
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75)])
def test_a_signal_that_comes_while_the_libraries_are_imported_ends_with_its_code(sent: str, code: int) -> None:
    program = f"""
import os, signal, sys

def strike(event, arguments):
    if event == "import" and arguments[0] == "hydra":
        os.kill(os.getpid(), signal.{sent})

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup around the tests has changed
sys.addaudithook(strike)
from llm_catalyst.cli.main import main
main(["run", "experiment=quickstart"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (code, f"stopped by {sent}\n")
