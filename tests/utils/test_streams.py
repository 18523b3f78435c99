"""Output that nobody reads any more, or whose encoding lacks characters."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import Command
from helpers.recorded import write_run

PRINTING = """
import sys
from llm_catalyst.utils.streams import open_lasting_streams
open_lasting_streams()
for number in range(100_000):
    print("line", number)
sys.stdout.flush()
print("the end", file=sys.stderr)
"""


def run_shell(command: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    variables = Command().environment(**environment)
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=variables, capture_output=True, timeout=120)


# E26
def test_a_program_whose_output_nobody_reads_any_more_continues_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PRINTING)
    done = run_shell(f"{sys.executable} program.py | head -1; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.stdout.split(b"\n")[:2], done.stderr) == ([b"line 0", b"0"], b"the end\n")


# E26
@pytest.mark.parametrize("words", ["show run --full", "show --verify run", "run --help", "reproduce", "--help"])
def test_a_command_whose_output_is_cut_off_ends_quietly(tmp_path: Path, words: str) -> None:
    write_run(tmp_path / "run")
    program = Path(sys.executable).with_name("catalyst")
    done = run_shell(f"{program} {words} | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.stdout, done.stderr) == (b"0\n", b"")


@pytest.mark.parametrize(
    ("words", "code"), [("show run", b"1\n"), ("reproduce", b"1\n"), ("show --verify run", b"1\n")]
)
def test_output_that_cannot_be_written_is_told_and_no_success(tmp_path: Path, words: str, code: bytes) -> None:
    write_run(tmp_path / "run")
    program = Path(sys.executable).with_name("catalyst")
    done = run_shell(f"{program} {words} > /dev/full; echo $?", tmp_path)
    told = b"warning: the output cannot be written any more (No space left on device): what follows is lost\n"
    assert (done.stdout, done.stderr) == (code, told)


# E25
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize(
    "words", [["--help"], ["show", "run"], ["reproduce"], ["run", "--help"], ["run", "x=…差"]], ids=str
)
def test_a_terminal_that_lacks_characters_is_given_replacements(
    tmp_path: Path, words: list[str], encoding: str
) -> None:
    write_run(tmp_path / "run", extra="差 “quoted” – …")
    program = Path(sys.executable).with_name("catalyst")
    variables = Command().environment(PYTHONIOENCODING=encoding)
    done = subprocess.run([program, *words], cwd=tmp_path, env=variables, capture_output=True, timeout=120)
    printed = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == (2 if "x=…差" in words else 0)
    assert "Traceback" not in printed
    assert "UnicodeEncodeError" not in printed
    if words[0] == "show":
        assert r"\u5dee" in printed
        assert "Training curve" in printed


def test_replacements_keep_the_length_of_plots(python: Callable[[str], str]) -> None:
    program = """
import sys
from llm_catalyst.utils.streams import open_lasting_streams
sys.stdout.reconfigure(encoding="ascii")
open_lasting_streams()
print("┤╭─╮┊╌⠿→é")
"""
    assert python(program) == "|+-+:-*->\\xe9\n"
