"""A key in the environment, and a server that echoes it everywhere: no byte that is written or printed holds it.

What a user's files and words may do is here, too: no code of theirs runs unasked, no name leads out of the outputs.
"""

import base64
import html
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pexpect
import pytest
from helpers.command import PROGRAM, REPOSITORY, Command
from helpers.loopback import Loopback, Response, anthropic_message, error, model_list, openai_chat, raw, serve
from helpers.tiny_models import folder

from llm_catalyst.config.build import refuse_secrets
from llm_catalyst.runs.reader import read_manifest, read_run
from llm_catalyst.utils.validation import ConfigurationError

pytestmark = pytest.mark.slow

# No provider's pattern, and characters that JSON, addresses, HTML and shells write in ways of their own.
KEY = 'orchid"/+&<Tz4Qm8Xw2Lc6Vb9Nk3Rj7Hs5Dg1Fp0'
ESCAPED, PERCENT, ALL_PERCENT = json.dumps(KEY)[1:-1], quote(KEY), quote(KEY, safe="")
ENCODED = tuple(base64.b64encode(bytes(n) + KEY.encode()).decode().strip("=")[4:-2] for n in range(3))
FORMS = (KEY, ESCAPED, PERCENT, ALL_PERCENT, html.escape(KEY))
PIECE = 12  # characters: no such piece of the key may be found, forwards or backwards

SMALL = ("task=local", "head=similarity", "batch_size=8", "prompt.length=4", "pool.candidates=2", "threads=1")
SMALL += ("stage.steps=[1,1,1]", "mentor.client.retry_s=5", "mentor.attempts=1", "mentor.cache=true")
LOUD = {"CATALYST_DEBUG": "1", "OPENAI_LOG": "debug", "ANTHROPIC_LOG": "debug"}
REPLY = f"1. Is it good?\n2. The key {KEY} of it\n3. {ALL_PERCENT}\n"
ECHOES = {"x-request-id": f"req_{KEY}", "request-id": f"req_{KEY}", "x-echo": KEY, "retry-after": f"0 {KEY}"}


def pieces(text: str) -> set[str]:
    """All pieces of a text, forwards and backwards."""
    return {form[i : i + PIECE] for form in (text, text[::-1]) for i in range(len(text) - PIECE + 1)}


FORBIDDEN = {piece for form in (*FORMS, *ENCODED) for piece in pieces(form)}


def found_in(text: str) -> set[str]:
    """The pieces of the key in a text, as it is and without what a terminal, a page or a line end puts between."""
    joined = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|<[^>]*>|[\s│─╭╮╰╯┃]", "", text)
    return {piece for piece in FORBIDDEN if piece in text or piece in joined}


def echo(status: int, body: str, **headers: str) -> Response:
    """An error whose message holds `body`."""
    return error(status, f"Incorrect API key provided: {body}. You can find yours at /account", ECHOES | headers)


def with_echoes(response: Response) -> Response:
    """The answer of a model, its names and reasons with the key in them."""
    body = json.loads(response.body)
    body["id"] = f"msg_{KEY}"
    body["model"] = f"{body['model']}-{KEY}"
    return Response(json.dumps(body).encode(), 200, response.headers | ECHOES)


def script(answer: Response) -> list[Response]:
    """A failure that passes, an answer, and a failure for good: two consultations."""
    page = raw(f"<html>{KEY} {ESCAPED} {PERCENT} {ALL_PERCENT}</html>", 500, "text/html", headers=ECHOES)
    return [page, with_echoes(answer), echo(401, f"{KEY} {ESCAPED} {PERCENT}")]


@dataclass(frozen=True)
class Ended:
    """A command's end: its exit code, all that it printed, and the folder that it ran in."""

    code: int
    printed: str
    cwd: Path

    @property
    def run(self) -> Path:
        """The directory of the one run that it made."""
        (path,) = (file.parent for file in self.cwd.rglob("manifest.json"))
        return path


class Commands:
    """Runs `catalyst` with the key in its environment, each time in a new folder."""

    def __init__(self, catalyst: Command, task: Path, home: Path) -> None:
        self.catalyst, self.task, self.home = catalyst, task, home

    def environment(self, cwd: Path) -> dict[str, str]:
        keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "SOME_OTHER_TOKEN": KEY[::-1]}
        return keys | LOUD | {"CATALYST_CACHE": str(cwd / "cache"), "HF_MODULES_CACHE": str(cwd / "modules")}

    def new(self, name: str) -> Path:
        cwd = self.home / name
        cwd.mkdir()
        return cwd

    def __call__(self, name: str, *words: str) -> Ended:
        cwd = self.new(name)
        done = self.catalyst("run", *words, cwd=cwd, **self.environment(cwd))
        return Ended(done.returncode, done.stdout + done.stderr, cwd)

    def asked(self, name: str, server: Loopback, *words: str) -> Ended:
        """A small run that asks a model of this server."""
        version = "" if any("claude" in word for word in words) else "/v1"
        data = (f"task.path={self.task}", f"mentor.client.base_url={server.url}{version}")
        return self(name, *words, *SMALL, "backbone=bert_base", f"backbone.name={folder('bert')}", *data)

    def watched(self, name: str, server: Loopback, *words: str) -> Ended:
        """The same in a terminal, with the live view."""
        cwd = self.new(name)
        data = (f"task.path={self.task}", f"mentor.client.base_url={server.url}")
        model = ("backbone=bert_base", f"backbone.name={folder('bert')}")
        environment: Any = self.catalyst.environment(**self.environment(cwd), TERM="xterm-256color")
        child = pexpect.spawn(
            str(PROGRAM), ["run", *words, *SMALL, *model, *data], cwd=str(cwd), env=environment, dimensions=(50, 200)
        )
        child.expect(pexpect.EOF, timeout=200)
        child.close()
        return Ended(child.exitstatus, child.before.decode(), cwd)

    def shown(self, name: str, of: Ended) -> Ended:
        """What `show --full` prints of a run, and the picture that it draws."""
        done = [self.catalyst("show", str(of.run), *words, cwd=of.cwd) for words in (["--full"], ["--svg", "run.svg"])]
        return Ended(max(d.returncode for d in done), "".join(d.stdout + d.stderr for d in done), of.cwd)


OPENAI = ("mentor=gpt4o_mini",)
CLAUDE = ("mentor=claude_haiku",)
GOES_ON = "mentor.on_failure=fallback"


@pytest.fixture(scope="module")
def servers() -> Iterator[Mapping[str, Loopback]]:
    """One server for each command; those for the preflight echo the key there."""
    scripts: dict[str, list[Response]] = {
        "openai": script(openai_chat(REPLY)),
        "claude": script(anthropic_message(REPLY)),
        "failing": [echo(401, f"{KEY} {ALL_PERCENT}")],
        "refused": [],
    }
    lookups = {
        # three runs: a key that is refused, a model that is not known, and one that is
        "failing": [echo(401, KEY), echo(404, KEY), model_list(f"gpt-{KEY}")],
        "refused": [echo(403, f"{ESCAPED} {ALL_PERCENT}")],
    }
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(serve(*responses, lookups=lookups.get(name, [])))
            for name, responses in scripts.items()
        }


@pytest.fixture(scope="module")
def ended(
    catalyst: Command, tiny_task: Path, tmp_path_factory: pytest.TempPathFactory, servers: Mapping[str, Loopback]
) -> Iterator[Callable[[str], Ended]]:
    """The end of a command by its name; all are under way at once."""
    commands = Commands(catalyst, tiny_task, tmp_path_factory.mktemp("secrets"))
    home = tmp_path_factory.mktemp("theirs")
    shutil.copytree(REPOSITORY / "conf" / "mentor", home / "conf" / "mentor")
    shutil.copy(home / "conf" / "mentor" / "none.yaml", home / "escaped.yaml")
    mentor = ("--config-dir", str(home / "conf"), "mentor=../../escaped", "task.name=../../escaped")
    unfit = ("task.description=${oc.env:OPENAI_API_KEY}",)  # refused once its folder is there
    own = (*SMALL[:6], "stage.steps=[1]", "backbone=bert_base", f"backbone.name={custom_model(home)}")
    with ThreadPoolExecutor(3) as pool:
        futures: dict[str, Future[Ended]] = {
            "openai": pool.submit(commands.asked, "openai", servers["openai"], *OPENAI, GOES_ON, "view=plain"),
            "claude": pool.submit(commands.watched, "claude", servers["claude"], *CLAUDE, GOES_ON, "view=live"),
            "failing": pool.submit(commands.asked, "failing", servers["failing"], "-m", "seed=1,2,3", *OPENAI),
            "refused": pool.submit(commands.asked, "refused", servers["refused"], *CLAUDE),
            "word": pool.submit(commands, "word", "task=local", f"task.description='{KEY}'", "task.description=fine"),
            "swept word": pool.submit(commands, "swept", "-m", "seed=1,2", f"+anything='{KEY[::-1]}'"),
            "no word": pool.submit(commands, "bare", KEY),
            "from the environment": pool.submit(
                commands, "env", "task=local", "task.name=${oc.env:OPENAI_API_KEY}", "task.description=x"
            ),
            "untrusted": pool.submit(commands, "untrusted", *own, f"task.path={tiny_task}"),
            "trusted": pool.submit(
                commands, "trusted", *mentor, *own, f"task.path={tiny_task}", "backbone.trust_remote_code=true"
            ),
            "climbing": pool.submit(
                commands, "climbing", "-m", *mentor, "task=local", "seed=../../../../escaped", *unfit
            ),
        }
        futures["openai shown"] = pool.submit(lambda: commands.shown("openai shown", futures["openai"].result()))
        futures["claude shown"] = pool.submit(lambda: commands.shown("claude shown", futures["claude"].result()))
        yield lambda name: futures[name].result()


def custom_model(path: Path) -> Path:
    """A model whose folder brings code of its own, which writes a file `marker` when it is run."""
    shutil.copytree(folder("bert"), path / "custom")
    config = json.loads((path / "custom" / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (path / "custom" / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    (path / "custom" / "own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import BertConfig, BertModel\n"
        "Path('marker').touch()\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    return path / "custom"


# --- the key


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("openai", 0),
        ("claude", 0),
        ("openai shown", 0),
        ("claude shown", 0),
        ("failing", 2),
        ("refused", 2),
        ("word", 2),
        ("swept word", 2),
        ("no word", 2),
        ("from the environment", 2),
    ],
)
def test_no_byte_that_is_written_or_printed_holds_the_key(ended: Callable[[str], Ended], name: str, code: int) -> None:
    end = ended(name)
    assert found_in(end.printed) == set(), end.printed
    for path in end.cwd.rglob("*"):
        assert found_in(path.relative_to(end.cwd).as_posix()) == set()
        if path.is_file():
            assert found_in(path.read_bytes().decode("utf-8", "replace")) == set(), path
    assert end.code == code, end.printed


def test_the_search_finds_a_key_that_is_there() -> None:
    for form in (*FORMS, base64.b64encode(f"user:{KEY}".encode()).decode(), KEY[15:30], KEY[::-1]):
        assert found_in(f"a log of {form}, and so on"), form
    assert found_in(f"\x1b[1m│ {KEY[:9]} │\n│ {KEY[9:20]}\x1b[0m │")
    assert not found_in("a log of nothing")


@pytest.mark.parametrize("name", ["openai", "claude"])
def test_the_server_got_the_key_and_what_it_echoed_is_told_without_it(
    ended: Callable[[str], Ended], servers: Mapping[str, Loopback], name: str
) -> None:
    end, server = ended(name), servers[name]
    assert len(server.requests) == 3
    assert all(KEY in "".join(request.headers.values()) for request in server.requests)
    answered, failed = read_run(end.run).exchanges
    assert "The key [key] of it" in answered.reply
    assert answered.answered is not None
    assert answered.answered.endswith("-[key]")
    assert answered.request_id == "req_[key]"
    assert answered.attempts == 2
    assert "Incorrect API key provided: [key]" in (failed.error or "")
    assert list((end.cwd / "cache").rglob("*.json")), "nothing was cached"


def test_a_sweep_whose_mentor_fails_in_every_way_says_so_without_the_key(ended: Callable[[str], Ended]) -> None:
    end = ended("failing")
    told = " ".join(end.printed.split())
    assert told.count("Incorrect API key provided: [key]") >= 2
    assert "does not know mentor.client.model=gpt-4o-mini; it has gpt-[key]" in told
    assert "the mentor did not answer after stage 1" in told
    assert list(end.cwd.rglob("multirun.yaml"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refused", "answered 403"),
        ("word", "task.description holds the value of the environment variable"),
        ("swept word", "anything holds the value of the environment variable SOME_OTHER_TOKEN"),
        ("no word", "the name of a key holds the value of the environment variable"),
        ("from the environment", "task.name holds the value of the environment variable"),
    ],
)
def test_what_is_refused_before_training_leaves_nothing_behind(
    ended: Callable[[str], Ended], name: str, words: str
) -> None:
    end = ended(name)
    assert words in " ".join(end.printed.split())
    assert not [path for path in end.cwd.rglob("*") if path.is_file() and "cache" not in path.parts]


@pytest.mark.parametrize("name", ["A_KEY", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET", "DB_PASSWORD"])
def test_the_value_of_a_variable_whose_name_says_secret_is_refused_anywhere(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, " hunter2hunter2\n")
    for config in ({"a": {"b": ["x", "in hunter2hunter2 here"]}}, {"a": {"hunter2hunter2": 1}}):
        with pytest.raises(ConfigurationError, match=f"holds the value of the environment variable {name}") as caught:
            refuse_secrets(config)
        assert "hunter2" not in str(caught.value)
    refuse_secrets({"a": "hunter2"})


def test_other_variables_and_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_API_KEY", "none")
    monkeypatch.setenv("KEYBOARD_LAYOUT", "hunter2hunter2")
    refuse_secrets({"a": "none", "b": "hunter2hunter2"})


# --- code and names that come from outside


def test_the_code_of_a_models_repository_runs_only_where_that_is_asked_for_and_is_recorded(
    ended: Callable[[str], Ended],
) -> None:
    untrusted, trusted = ended("untrusted"), ended("trusted")
    assert untrusted.code == 2
    assert "backbone.trust_remote_code=true" in untrusted.printed
    assert not (untrusted.cwd / "marker").exists()
    assert trusted.code == 0, trusted.printed
    assert (trusted.cwd / "marker").exists()
    backbone = read_manifest(trusted.run).backbone
    assert (backbone["trust_remote_code"], backbone["class"]) == (True, "OwnModel")


@pytest.mark.parametrize(("name", "code"), [("trusted", 0), ("climbing", 2)])
def test_names_in_a_configuration_do_not_lead_out_of_the_output_directory(
    ended: Callable[[str], Ended], name: str, code: int
) -> None:
    end = ended(name)
    assert end.code == code, end.printed
    assert {path.name for path in end.cwd.iterdir()} <= {"outputs", "marker", "cache", "modules"}
    assert not [path for path in end.cwd.parent.parent.rglob("*") if path.name == "escaped"]


def test_a_run_with_such_names_lies_where_every_run_lies(ended: Callable[[str], Ended]) -> None:
    end = ended("trusted")
    assert end.run.relative_to(end.cwd).parts[:4] == ("outputs", "_.._escaped", "own_custom", "_.._escaped")
    assert read_manifest(end.run).choices["mentor"] == "../../escaped"
