"""catalyst run | resume | show: the command line. Nothing heavy is imported before a command is known."""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_catalyst import __version__
from llm_catalyst.interruption import handle_signals

USAGE = """\
catalyst: a language model as a complementary optimizer to gradient descent in prompt tuning

  catalyst run experiment=quickstart        a first run, offline, in under three minutes
  catalyst run task=sst2 mentor=gpt4        tune a soft prompt, restarted by GPT-4
  catalyst run -m seed=1,2,3 mentor=none,gpt4   a sweep
  catalyst run --help                       every choice, with examples
  catalyst resume DIR                       go on with a run that was cut off
  catalyst show DIR                         the story of a run
  catalyst show --verify DIR                are its files what the run wrote?
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `catalyst` command; leaves with one of the exit codes that README.md lists."""
    handle_signals()
    # Else Python searches all that torch has loaded for cycles as it ends: a second, or ten on a busy machine, of the
    # few that a cluster gives a process after its signal.
    atexit.register(gc.freeze)
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Hydra's shell completion calls the program without its subcommand, but with it in COMP_LINE.
    completes = bool(words) and words[0] in ("-sc", "--shell-completion")
    if completes or words[:1] == ["run"]:
        from llm_catalyst.launch import run_command

        if "COMP_LINE" in os.environ:
            os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace("catalyst run ", "catalyst ", 1)
        sys.exit(run_command(words if completes else words[1:]))
    options = parser().parse_args(words)
    sys.exit(options.action(options))


def parser() -> argparse.ArgumentParser:
    """The commands that are not Hydra's."""
    top = argparse.ArgumentParser("catalyst", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"catalyst {__version__}")
    top.set_defaults(action=lambda options: print(USAGE))
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    commands.add_parser("run", help="start a run or a sweep (catalyst run --help)")
    resume = commands.add_parser("resume", help="go on with a run that was cut off")
    resume.add_argument("directory", type=Path, metavar="DIR", help="the run's directory, under outputs/")
    resume.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="budget.usd=5, device=cuda:1, task.path=FOLDER"
    )
    resume.set_defaults(action=resume_action)
    show = commands.add_parser("show", help="tell the story of a run")
    show.add_argument("directory", type=Path, metavar="DIR", help="the run's directory, under outputs/")
    show.add_argument("--full", action="store_true", help="every message to and from the mentor at full length")
    show.add_argument("--brief", action="store_true", help="the curves and the summary only")
    show.add_argument(
        "--verify", action="store_true", help="check the files instead; exit code 1 where one is not what was written"
    )
    show.add_argument("--svg", type=Path, metavar="FILE", help="write the same as a picture")
    show.set_defaults(action=show_action)
    return top


def resume_action(options: argparse.Namespace) -> int:
    from llm_catalyst.launch import resume_command

    return resume_command(options.directory, options.overrides)


def show_action(options: argparse.Namespace) -> int:
    from rich.console import Console

    from llm_catalyst.launch import guarded

    if options.verify:
        from llm_catalyst.verify import report

        code, whole = guarded(lambda: report(options.directory, Console()))
        return code or int(not whole)
    from llm_catalyst.show import show

    return guarded(lambda: show(options.directory, Console(), options.svg, options.full, options.brief))[0]
