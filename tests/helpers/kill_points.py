"""Real runs that signals end at given moments and that are resumed until they finish; what is then wrong with them.

Shared by tests/end_to_end/test_killed.py and tests/helpers/measure_kill_points.py.
"""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers.command import Command, Process, write_jsonl
from helpers.loopback import Loopback, Response, openai_chat
from helpers.tiny_models import LABELS, WORDS, folder, sentences

from llm_catalyst.runs.checkpoints import read_state, saved_states
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_json, read_lines, read_raw_lines
from llm_catalyst.runs.records import Event, LLMCall, Outcome, Snapshot
from llm_catalyst.runs.verify import verify_run
from llm_catalyst.utils.signals import INTERRUPTED, STOPPED

STAGES = 5
SAME = ("config.yaml", "trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl")
# Of ten points, six by SIGKILL.
DECK = [signal.SIGKILL] * 6 + [signal.SIGTERM] * 2 + [signal.SIGUSR1, signal.SIGINT]
CODES = {signal.SIGTERM: STOPPED, signal.SIGUSR1: STOPPED, signal.SIGINT: INTERRUPTED}
REACTION_S = 10.0

# What is watched for: the names of files that change, the number of changes at most, and the weight in the draw.
AIMS = {
    "start": (r"\.lock|config\.yaml.*|manifest\.json.*", 3, 1),
    "training": (r"(trajectory|metrics)\.jsonl", 5, 4),
    "checkpoint": (r"stages/\d+\.step.*", 8, 4),
    "mentor": (r"question|(pool|exchanges|restarts)\.jsonl", 5, 3),
    "commit": (r"stages/\d+(\.part)?/.*", 4, 3),
    "end": (rf"stages/{STAGES - 1:02d}/.*|SHA256SUMS.*|outcome\.json.*", 3, 3),
}
PHASES = tuple(AIMS)
# What can be wrong, in the words of a report.
KINDS = {
    "lost": "records lost",
    "doubled": "records doubled",
    "unreadable": "files unreadable",
    "unequal": "files unequal to those of the uninterrupted run",
    "broken": f"promises broken: exit codes, {REACTION_S:g} s after a signal, a finished run left alone",
}


@dataclass(frozen=True)
class Variant:
    """One kind of run: the words of its command, the folder in which it starts, and the server it asks, if any."""

    name: str
    words: tuple[str, ...]
    home: Path
    server: Loopback | None = None

    @property
    def reference(self) -> Path:
        """The directory of the run that nothing interrupted."""
        return self.home / f"{self.name} reference"

    def command(self, path: Path) -> tuple[str, ...]:
        return "run", *self.words, f"hydra.run.dir='{path}'"

    def questions(self) -> int:
        """How often the server was asked so far."""
        return len(self.server.requests) if self.server else 0


@dataclass(frozen=True)
class Moment:
    """When to send `number`: `delay_s` seconds after the `ordinal`-th time that a name matching `pattern` changed."""

    pattern: str
    ordinal: int
    delay_s: float
    number: signal.Signals


@dataclass(frozen=True)
class Point:
    """A signal that ended a process, what the run was doing, and after how many seconds the process was gone."""

    number: signal.Signals
    phase: str
    reaction_s: float


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: one of KINDS, and what it is."""

    kind: str
    words: str


@dataclass(frozen=True)
class Trial:
    """One run from its first start to its end: where it was ended on the way, and what was wrong."""

    path: Path
    points: tuple[Point, ...]
    findings: tuple[Finding, ...]
    asked_again: int


class Answers(list[Response]):
    """A server's script without an end: each question has an answer of its own, however often it is asked.

    The first answer of some consultations is of no use, so that they take two calls. Each takes `delay_s` seconds.
    """

    def __init__(self, loopback: Loopback, delay_s: float = 0.03) -> None:
        super().__init__([openai_chat("")])  # never empty, which means used up
        self.requests, self.delay_s = loopback.requests, delay_s

    def pop(self, index: Any = -1) -> Response:
        messages = self.requests[-1].body["messages"]
        dice = random.Random(json.dumps(messages))
        lines = [f"- {' '.join(dice.sample((*WORDS, *LABELS), 4))}" for _ in range(3)]
        text = "" if len(messages) == 2 and dice.random() < 0.5 else "\n".join(lines)
        return replace(openai_chat(text), delay_s=self.delay_s)


def variants(home: Path, server: Loopback) -> tuple[Variant, Variant]:
    """A run advised by a language model and a run with evolution, with their task and model in `home`.

    The one saves each step and restarts from the best proposal; the other saves by the clock and trains all.
    """
    for name, rows, seed in (("train", 48, 1), ("test", 20, 2)):
        texts = enumerate(sentences(rows, seed))
        write_jsonl(home / "task" / f"{name}.jsonl", [{"text": text, "label": LABELS[i % 2]} for i, text in texts])
    server.script = Answers(server)
    small = (
        *("task=local", "task.path=task", "backbone=bert_base", f"backbone.name={folder('bert')}", "view=none"),
        *(f"stages={STAGES}", "stage.steps=6", "batch_size=8", "schedule.name=cosine", "threads=1", "device=cpu"),
        *("prompt.length=4", "pool.candidates=3", "record.steps=1", "evaluate.steps=3"),
    )
    asked = ("mentor=openai_compatible", "mentor.client.model=gpt-4o-mini", f"mentor.client.base_url={server.url}/v1")
    return (
        Variant("advised", (*small, *asked, "checkpoint.every=1"), home, server),
        Variant("evolved", (*small, "mentor=evolution", "restart=all", "checkpoint.every=0.05s"), home),
    )


def overlapped(advised: Variant, server: Loopback) -> Variant:
    """The same run, but for a mentor of its own that answers while the next stage trains."""
    server.script = Answers(server)
    words = tuple(word for word in advised.words if not word.startswith("mentor.client.base_url"))
    url = f"mentor.client.base_url={server.url}/v1"
    return Variant("overlapped", (*words, url, "mentor.overlap=true"), advised.home, server)


def carry_out(catalyst: Command, variant: Variant) -> Path:
    """The directory of a run of this variant that nothing interrupts."""
    done = catalyst(*variant.command(variant.reference), cwd=variant.home)
    assert done.returncode == 0, done.stderr
    return variant.reference


def trials(catalyst: Command, variant: Variant, points: int, seed: int) -> Iterator[Trial]:
    """Runs of this variant, one after the other, until so many signals have ended a process."""
    dice = random.Random(f"{seed} {variant.name}")
    numbers: list[signal.Signals] = []
    runs = 0
    while points > 0:
        while len(numbers) < points:
            numbers += dice.sample(DECK, len(DECK))
        path = variant.home / f"{variant.name} {runs}"
        moments = (draw(dice, path, number) for number in numbers[:points])  # each is drawn when it is needed
        trial = go_through(catalyst, variant, path, moments, dice)
        numbers, points, runs = numbers[len(trial.points) :], points - len(trial.points), runs + 1
        last = resumed_again(catalyst, variant, trial.path) if points == 0 else []
        yield replace(trial, findings=(*trial.findings, *last))


def go_through(
    catalyst: Command, variant: Variant, path: Path, moments: Iterator[Moment], dice: random.Random
) -> Trial:
    """One run, ended at these moments as long as it lasts, and then resumed to its end."""
    points: list[Point] = []
    findings: list[Finding] = []
    asked, paid = variant.questions(), list[bytes]()
    while not (path / "outcome.json").exists():
        moment = next(moments, None)
        before = look(path)
        point, wrong = live(start(catalyst, variant, path, dice), variant, path, moment)
        points += [point] if point else []
        findings += [*wrong, *unreadable(path)]
        if not findings and point and point.number in CODES and not (path / "outcome.json").exists():
            findings += forgotten(path, before)
        lines = read_raw_lines(path / EXCHANGES)
        findings += [Finding("lost", f"{path.name}: a paid answer")] * (lines[: len(paid)] != paid)
        paid = lines
        if not point and not (path / "outcome.json").exists():
            break  # it fails by itself: there is no use in starting it again
    else:
        findings += differences(path, variant.reference)
    again = variant.questions() - asked - len(paid)
    if again > len(points):
        findings.append(Finding("doubled", f"{path.name}: {again} questions more than answers"))
    return Trial(path, tuple(points), tuple(findings), again)


def start(catalyst: Command, variant: Variant, path: Path, dice: random.Random) -> Process:
    """A run under way, for the first time or again: by the same command, or resumed from one folder or another."""
    here, there = ("resume", str(path)), ("resume", ".")
    known = (path / "manifest.json").exists()
    words = dice.choice((variant.command(path), here, there) if known else (variant.command(path),))
    return catalyst.start(*words, cwd=path if words == there else variant.home)


def draw(dice: random.Random, path: Path, number: signal.Signals) -> Moment:
    """A moment that can still come in the run in `path`."""
    committed = sum("." not in state.name for state in saved_states(path))
    reachable = ("start", "end") if committed == STAGES else PHASES[: -1 if committed < STAGES - 1 else None]
    (aim,) = dice.choices(reachable, [AIMS[name][2] for name in reachable])
    pattern, most, _ = AIMS[aim]
    if aim == "start" and (path / "manifest.json").exists():
        most = 1  # only the lock changes at the start of a resumed run
    delay_s = dice.choice((0.0, dice.uniform(0, 0.005), dice.uniform(0, 0.05)))
    return Moment(pattern, dice.randint(1, most), delay_s, number)


def live(process: Process, variant: Variant, path: Path, moment: Moment | None) -> tuple[Point | None, list[Finding]]:
    """One life of a run: the point at which a signal ended it, if one did, and what was wrong with its end."""
    try:
        phase = strike(process, variant, path, moment) if moment else None
        sent, date = time.monotonic(), time.time()
        _, err = process.communicate(timeout=120)
        reaction_s, code = time.monotonic() - sent, process.returncode
    finally:
        process.kill()
    finished = (path / "outcome.json").exists()
    number = moment.number if moment and phase else None
    if number is None or (number == signal.SIGKILL and code == 0):
        well = code == 0 and finished
        return None, [] if well else [Finding("broken", f"{path.name}: ended by itself with {code}: {err[-500:]}")]
    # In its very last steps a run that has written its outcome ends as if there had been no signal.
    expected = {CODES.get(number, -number)} | ({0, -number} if finished else set())
    wrong = [] if code in expected else [f"exit code {code} after {number.name} ({phase}): {err[-500:]}"]
    if number in CODES and reaction_s > REACTION_S:
        worked_s = max((changed / 1e9 for changed, _ in look(path).values()), default=date) - date
        wrong.append(f"{reaction_s:.1f} s to end after {number.name} ({phase}), {worked_s:.1f} s of it at work")
    return Point(number, phase or "", reaction_s), [Finding("broken", f"{path.name}: {words}") for words in wrong]


def strike(process: Process, variant: Variant, path: Path, moment: Moment) -> str | None:
    """Send the moment's signal when it comes; what the run was doing, or None where it ended before."""
    first = seen = look(path)
    asked = questions = variant.questions()
    answered = len(read_raw_lines(path / EXCHANGES))
    times = 0
    while process.poll() is None:
        now = look(path)
        changed = {name for name in {*now, *seen} if now.get(name) != seen.get(name)}
        changed |= {"question"} if variant.questions() > questions else set()
        times += any(re.fullmatch(moment.pattern, name) for name in changed)
        seen, questions = now, variant.questions()
        if times < moment.ordinal:
            time.sleep(0.003 if seen != first else 0.01)  # the libraries are still being imported
            continue
        time.sleep(moment.delay_s)
        process.send_signal(moment.number)
        open_question = variant.questions() - asked > len(read_raw_lines(path / EXCHANGES)) - answered
        return phase_of(first, look(path), open_question) if process.returncode is None else None
    return None


def look(path: Path) -> dict[str, tuple[int, int]]:
    """The time of the last change (ns) and the size of each file below a folder, by its relative name."""
    found = {}
    for place, _, names in os.walk(path):
        for name in names:
            file = os.path.join(place, name)
            with suppress(FileNotFoundError):  # it may be renamed or removed meanwhile
                stat = os.stat(file)
                found[file.removeprefix(f"{path}/")] = stat.st_mtime_ns, stat.st_size
    return found


def phase_of(first: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]], open_question: bool) -> str:
    """What a run is doing, as far as its files tell: those at the start of the process, and those now."""
    changed = [name for name in now if now[name] != first.get(name)]
    newest = max(changed, key=lambda name: now[name], default=".lock")
    checkpoints = {Path(name).parent.name for name in now if ".step" in name}
    written = any(".part/" in name for name in now) or len(checkpoints) > 1
    if newest.startswith("stages/") and written:
        return "checkpoint" if ".step" in newest else "commit"
    if any(name.startswith(f"stages/{STAGES - 1:02d}/") for name in now):
        return "commit" if checkpoints else "end"
    if open_question or re.match("pool|exchanges|restarts", newest):
        return "mentor"
    return "training" if re.match("stages|trajectory|metrics", newest) else "start"


def unreadable(path: Path) -> list[Finding]:
    """The files of a run, whole or cut off, that are not what it wrote, and what it says of that itself."""
    if not (path / "manifest.json").exists():
        return []
    wrong = [f"{finding.file} {finding.damage}" for finding in verify_run(path) if finding.damage]
    if not (path / "outcome.json").exists():  # nothing is lost where the run was ended right before it
        wrong = [words for words in wrong if words != "outcome.json missing"]
    events = [] if wrong else read_lines(path / FILES[Event], Event)
    wrong += [event.message for event in events if event.kind == "recovered"]
    return [Finding("unreadable", f"{path.name}: {words}") for words in wrong]


def forgotten(path: Path, before: dict[str, tuple[int, int]]) -> list[Finding]:
    """Steps that a process which was asked to stop has recorded, but not saved."""
    trajectory = FILES[Snapshot]
    if look(path).get(trajectory) == before.get(trajectory):
        return []
    states = saved_states(path)
    step = read_state(path, states[-1])["state"]["step"] if states else 0
    reached = read_lines(path / trajectory, Snapshot)[-1:]
    return [Finding("lost", f"{path.name}: saved at step {step} of {s.step}") for s in reached if s.step > step]


def differences(path: Path, reference: Path) -> list[Finding]:
    """In what a finished run is not the one that nothing interrupted: records, files, outcome."""
    findings: list[Finding] = []
    ours, theirs = records(path), records(reference)
    for name in theirs:
        here, there = Counter(ours[name]), Counter(theirs[name])
        findings += [Finding("lost", f"{path.name}: {name}: {record}") for record in (there - here).elements()]
        findings += [Finding("doubled", f"{path.name}: {name}: {record}") for record in (here - there).elements()]
        findings += [Finding("unequal", f"{path.name}: {name}")] * (ours[name] != theirs[name])
    if outcome(path) != outcome(reference):
        findings.append(Finding("unequal", f"{path.name}: outcome.json"))
    names, expected = ({*look(place)} - {".lock", FILES[Event]} for place in (path, reference))
    return findings + [Finding("unequal", f"{path.name}: {name}") for name in sorted(names ^ expected)]


def records(path: Path) -> dict[str, list[str]]:
    """What stands in the files of a run that an interruption must not change, line by line."""
    lines = {name: [repr(line) for line in (path / name).read_bytes().split(b"\n")] for name in SAME}
    return lines | {EXCHANGES: [repr(exchange) for exchange in exchanges(path)]}


def exchanges(path: Path) -> list[LLMCall]:
    """The exchanges of a run, without their dates and times."""
    return [replace(e, date="", latency_s=0.0) for e in read_lines(path / EXCHANGES, LLMCall)]


def outcome(path: Path) -> Outcome:
    """The outcome of a run, without times and memory."""
    found: Outcome = read_json(path / "outcome.json", Outcome)
    return replace(found, seconds=0.0, finished="", peak_memory_bytes=0)


def resumed_again(catalyst: Command, variant: Variant, path: Path) -> list[Finding]:
    """What is wrong where a finished run is resumed: it says so, and changes nothing."""
    before = look(path)
    done = catalyst("resume", str(path), cwd=variant.home)
    told = done.returncode == 0 and "finished already, nothing to do" in done.stdout
    wrong = [] if told else [f"a finished run was resumed with {done.returncode}: {done.stdout[-300:]}{done.stderr}"]
    wrong += ["a finished run was changed by a resume"] * (look(path) != before)
    return [Finding("broken", f"{path.name}: {words}") for words in wrong]
