"""catalyst run | data | models | resume | show | reproduce | report. Nothing heavy is imported before it is needed."""

import argparse
import atexit
import gc
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_catalyst import __version__
from llm_catalyst.utils.paths import check_current_folder, expand_path
from llm_catalyst.utils.signals import handle_signals
from llm_catalyst.utils.streams import lost_output, open_lasting_streams

USAGE = """\
catalyst: a language model as a complementary optimizer to gradient descent in prompt tuning

  catalyst run experiment=quickstart        a first run, offline, and its baseline without a mentor
  catalyst run task=sst2 mentor=gpt4        tune a soft prompt, restarted by GPT-4's successor
  catalyst run -m seed=1,2,3 mentor=none,gpt4   a sweep
  catalyst run --help                       every choice, with examples
  catalyst data reviews.csv                 what a run would understand of a file or a task
  catalyst models openai                    a provider's language models: shutdown date, price, preset
  catalyst resume DIR                       continue a run that was cut off
  catalyst show DIR                         the course of a run
  catalyst show --mentor DIR                what the mentor was asked, what it answered, and what became of it
  catalyst show --verify DIR                check its files against their checksums
  catalyst reproduce nlu                    carry out a table of runs, and print it
  catalyst report DIR…                      tables, figures and a page from runs

Exit codes: 0 finished; 1 failed; 2 refused, nothing was run; 3 a budget is spent; 4 diverged; 75 stopped by a signal;
130 stopped by Ctrl-C; of a sweep the highest. CATALYST_DEBUG=1 adds a traceback to an error.
"""
REPRODUCE = """\
Carries out the runs of a table that are not finished yet, and prints it. The same command continues where it stopped.

  catalyst reproduce                                      the available tables
  catalyst reproduce nlu --smoke                          the whole machinery in minutes: built-in data, no key, no GPU
  catalyst reproduce nlu --dry-run                        runs, time and cost, measured; nothing is trained or paid
  catalyst reproduce nlu mentors=[openai_small,claude_haiku]        other mentors in all rows of language models
  catalyst reproduce nlu --only row='+ openai_small' column=RTE,WiC
  catalyst reproduce nlu protocol=heldout backbone=roberta_base     with overrides for every run
  catalyst reproduce nlu hydra/launcher=machine           side by side (docs/guide.md)

Runs and table lie under outputs/tables/. A table of your own: DIR/table/NAME.yaml and --config-dir DIR.
"""
REPORT = """\
Writes one page that opens offline (report.html), its figures (SVG, PDF) and its tables (Markdown, LaTeX, CSV).

  catalyst report outputs/tables/nlu                      a table of runs: DIR/report/
  catalyst report outputs/sweeps/NAME                     a sweep: rows and columns by what its runs differ in
  catalyst report outputs/sst2 outputs/rte --output report
  catalyst report outputs/tables/nlu --watch 60           rewritten once a minute until its runs end
"""
DATA = """\
Prints what a run would understand of files: splits, classes, lengths, repeated texts, examples as the model sees them.

  catalyst data sst2                                      a task
  catalyst data sst2 task.shots=16 backbone=minilm        with overrides, as of a run; lengths in the backbone's tokens
  catalyst data reviews.csv                               a file: its columns of texts and labels are guessed
  catalyst data reviews.csv task.text={review} task.label=stars
  catalyst data my_folder task.text={review} task.label=stars
"""
MODELS = """\
Prints the chat models of a provider or a server: the day of their shutdown, their price, and the presets that ask them.

  catalyst models                                         those of conf/models.yaml that live; no network
  catalyst models openai                                  those of a preset's provider, by its key
  catalyst models http://localhost:8080/v1                those of a server
"""
WATCH = "rewrite it every SECONDS (30) until all runs have ended, 20 checks bring nothing new, or Ctrl-C"

DIRECTORY: dict[str, Any] = {"type": expand_path, "metavar": "DIR", "help": "the run's directory, under outputs/"}


def find_folder(text: str) -> Path:
    """The folder that an option names. Raises ArgumentTypeError where there is none."""
    if not (folder := expand_path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return folder


def parse_dollars(text: str) -> float:
    """An amount of USD, 0 or more. Raises ArgumentTypeError for anything else."""
    with suppress(ValueError):
        if 0 <= (amount := float(text)) < math.inf:
            return amount
    raise argparse.ArgumentTypeError(f"{text} is no amount of dollars; give a number such as 20")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `catalyst` command; exits with one of the codes that README.md lists."""
    handle_signals()
    open_lasting_streams()
    # Otherwise Python searches everything that torch has loaded for cycles at exit: a second, or ten on a busy machine,
    # of the few that a cluster gives a process after its signal.
    atexit.register(gc.freeze)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(USAGE)
        sys.exit()
    # Hydra's shell completion calls the program without its subcommand, but with it in COMP_LINE.
    completes = bool(words) and words[0] in ("-sc", "--shell-completion")
    if completes or words[:1] == ["run"]:
        options = argparse.Namespace(action=run_action, words=words if completes else words[1:])
    else:
        options = parse_words(words)
    from llm_catalyst.config.errors import FAILED, run_with_exit_code

    def act() -> Any:
        check_current_folder()
        return options.action(options)

    code, result = run_with_exit_code(act)
    # A run's results are in its directory; what the others do is to print.
    if not code and words[0] not in ("run", "resume") and lost_output():
        code = FAILED
    sys.exit(code or result)


def parse_words(words: Sequence[str]) -> argparse.Namespace:
    """The options of a command; wrong ones end the process with a message."""
    options, rest = build_parser().parse_known_args(words)
    if not hasattr(options, "words") or any(word.startswith("-") for word in rest):
        return build_parser().parse_args(words)  # exits with a message about the unknown option
    options.words += rest  # argparse takes no overrides behind an option
    return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands but `run`, which Hydra parses."""
    top = argparse.ArgumentParser("catalyst", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"catalyst {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_parser("run", help="start a run or a sweep (catalyst run --help)")
    resume = add_command(commands, resume_action, "continue a run that was cut off")
    resume.add_argument("directory", **DIRECTORY)
    resume.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="budget.usd=5, device=cuda:1, task.path=DIR")
    show = add_command(commands, show_action, "print the course of a run")
    show.add_argument("directory", **DIRECTORY)
    show.add_argument("--full", action="store_true", help="every message to and from the mentor at full length")
    show.set_defaults(part="all")
    for part, shown in (("brief", "the curves and the summary only"), ("mentor", "the exchanges with the mentor only")):
        show.add_argument(f"--{part}", action="store_const", const=part, dest="part", help=shown)
    show.add_argument("--verify", action="store_true", help="check the files instead; exit code 1 where one is damaged")
    show.add_argument("--svg", type=expand_path, metavar="FILE", help="also write it as a picture")
    data = add_command(commands, data_action, "print what a run would understand of a file or a task", DATA)
    data.add_argument("place", metavar="TASK|FILE", help="a task, a file or a folder")
    data.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides, as of a run")
    data.add_argument("--config-dir", type=find_folder, metavar="DIR", help="your own YAMLs: task/, backbone/ …")
    models = add_command(commands, models_action, "print the language models of a provider or a server", MODELS)
    models.add_argument("place", nargs="?", metavar="MENTOR|URL", help="a preset of conf/mentor, or an address")
    models.add_argument("--config-dir", type=find_folder, metavar="DIR", help="your own YAMLs: models.yaml, mentor/ …")
    reproduce = add_command(commands, reproduce_action, "carry out a table of runs", REPRODUCE, allow_abbrev=False)
    reproduce.add_argument("table", nargs="?", metavar="TABLE", help="its name; left out: print the available tables")
    reproduce.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides for every run; hydra/launcher=…")
    reproduce.add_argument("--only", nargs="+", default=[], metavar="KEY=NAME", help="row=A,B column=C seed=1")
    reproduce.add_argument(
        "--budget-usd",
        type=parse_dollars,
        metavar="USD",
        help="what the mentors of all runs may cost together: sweep.budget.usd",
    )
    reproduce.add_argument("--smoke", action="store_true", help="quickstart's backbone and data, an offline mentor")
    reproduce.add_argument("--dry-run", action="store_true", help="only estimate the runs that are not finished")
    reproduce.add_argument(
        "--published", type=expand_path, metavar="FILE", help="published figures, printed beside yours"
    )
    reproduce.add_argument(
        "--config-dir", type=find_folder, metavar="DIR", help="your own YAMLs: table/, task/, mentor/ …"
    )
    report = add_command(commands, report_action, "write a page, figures and tables", REPORT)
    report.add_argument("places", nargs="+", type=expand_path, metavar="DIR", help="a run, or a folder around runs")
    report.add_argument("--output", type=expand_path, metavar="FOLDER", help="its folder; left out: DIR/report")
    report.add_argument("--watch", nargs="?", type=parse_seconds, const=30, metavar="SECONDS", help=WATCH)
    return top


def add_command(commands: Any, action: Callable[..., int | None], words: str, text: str = "", **more: Any) -> Any:
    """The parser of the command that calls `action`, with `words` as its help in a line, and `text` at length."""
    layout = argparse.RawDescriptionHelpFormatter
    name = action.__name__.removesuffix("_action")
    parser = commands.add_parser(name, help=words, description=text, formatter_class=layout, **more)
    parser.set_defaults(action=action)
    return parser


def parse_seconds(text: str) -> int:
    """A whole number of seconds, at least 1."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


# Each command's action returns its exit code; None is 0.


def run_action(options: argparse.Namespace) -> None:
    from llm_catalyst.cli.run import run_command

    if "COMP_LINE" in os.environ:
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace("catalyst run ", "catalyst ", 1)
    run_command(options.words)


def resume_action(options: argparse.Namespace) -> int:
    from llm_catalyst.cli.run import resume_command

    return resume_command(options.directory, options.overrides)


def data_action(options: argparse.Namespace) -> None:
    from llm_catalyst.cli.data import data_command
    from llm_catalyst.utils.terminal import open_console

    data_command([options.place, *options.words], options.config_dir, open_console())


def models_action(options: argparse.Namespace) -> None:
    from llm_catalyst.cli.models import models_command
    from llm_catalyst.utils.terminal import open_console

    models_command(options.place, options.config_dir, open_console())


def show_action(options: argparse.Namespace) -> int | None:
    from llm_catalyst.report.show import show_run
    from llm_catalyst.runs.verify import print_verification
    from llm_catalyst.utils.terminal import open_console

    if options.verify:
        return int(not print_verification(options.directory, open_console()))
    show_run(options.directory, open_console(), options.svg, options.full, options.part)
    return None


def reproduce_action(options: argparse.Namespace) -> int:
    if options.table is not None:
        from llm_catalyst.sweeps.reproduce import reproduce_command

        return reproduce_command(options)
    from llm_catalyst.config.table import list_titles
    from llm_catalyst.utils.terminal import make_pairs, open_console

    open_console().print(make_pairs(list_titles()))
    return 0


def report_action(options: argparse.Namespace) -> None:
    from llm_catalyst.report.write import write_report
    from llm_catalyst.utils.terminal import open_console

    write_report(options.places, options.output, open_console(), options.watch)
