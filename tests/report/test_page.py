"""The page of a report and the files beside it: complete, without network or script, whatever the texts hold."""

import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import recorded
from helpers.recorded_tables import write_results
from helpers.reports import results_of, write_told
from rich.console import Console

from llm_catalyst.report.html.page import compare_majority, format_ranges
from llm_catalyst.report.write import EXCHANGES, PAGE, build_files, write_report
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import Record, Restart, Score, ScoredPrompt
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.utils import checksums
from llm_catalyst.utils.signals import INTERRUPTED, RunInterrupted, stop_now
from llm_catalyst.utils.validation import ConfigurationError

POISON = recorded.HOSTILE + " </title></style><img src=x onerror=alert(1)> {{7*7}} {% raw %} \\input{/etc/passwd} "
ACTIVE = {
    "script",
    "img",
    "iframe",
    "object",
    "embed",
    "link",
    "base",
    "form",
    "input",
    "video",
    "audio",
    "foreignobject",
}


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def page_of(folder: Path) -> Page:
    return Page(build_files([results_of(folder)])[PAGE].decode())


def write_two(folder: Path) -> Path:
    return write_told(folder, ["plain", "mentor"], reference="plain", records=recorded.run_records())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that no test changes."""
    return write_two(tmp_path_factory.mktemp("page") / "told")


@pytest.fixture(scope="module")
def raw(told: Path) -> str:
    return build_files([results_of(told)])[PAGE].decode()


@pytest.fixture(scope="module")
def page(raw: str) -> Page:
    return Page(raw)


def test_the_page_of_exchanges_has_each_consultation_and_filters_for_what_differs(told: Path) -> None:
    raw = build_files([results_of(told)])[EXCHANGES].decode()
    found, text = Page(raw), " ".join(Page(raw).text.split())
    articles = found.all("article")
    navigation = build_files([results_of(told)])[PAGE].decode().partition("</nav>")[0]
    assert f'<a href="{EXCHANGES}">' in navigation
    assert len(articles) == 8  # two rows, two seeds, two consultations each
    for words in (
        "Prompts with loss and accuracy, the best last:",
        "1. Judge the mood of the review 2. Is it praise?",
        "rejected: a phrase, not a proposal",
        "0.6200 / 0.702 before → 0.5500 / 0.717 at the restart →",
        "8 consultations",
    ):
        assert words in text, words
    filters = {attributes["id"]: attributes["name"] for attributes in found.all("input") if "id" in attributes}
    assert [*dict.fromkeys(filters.values())] == ["f0", "f2"]  # entry and stage; all else is the same
    for mark in filters:
        assert f"body:has(#{mark}:checked) article:not(.{mark}) {{ display: none; }}" in raw
        assert 0 < sum(mark in str(article["class"]).split() for article in articles) < len(articles)
    assert "film tone 7: 0.7\nfilm tone 8" in found.text


def test_the_page_of_exchanges_names_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "told")
    damaged = next(file for file in sorted(folder.rglob("exchanges.jsonl")) if file.stat().st_size)
    damaged.write_bytes(damaged.read_bytes() + b"{}\n")
    text = " ".join(Page(build_files([results_of(folder)])[EXCHANGES].decode()).text.split())
    assert f"not shown: {damaged}, line" in text
    assert "6 consultations" in text  # those of the other three runs, two each


@pytest.mark.slow
def test_without_a_language_model_there_is_no_page_of_exchanges_and_an_old_one_is_removed(tmp_path: Path) -> None:
    asked, alone = write_two(tmp_path / "asked"), write_told(tmp_path / "alone", ["plain"])
    for folder, there in ((asked, True), (alone, False)):
        write_report([folder], tmp_path / "report", quiet())
        assert (tmp_path / "report" / EXCHANGES).exists() == there


def test_the_page_holds_tables_figures_prompts_restarts_and_what_made_them(told: Path, page: Page) -> None:
    text = " ".join(page.text.split())
    for words in (
        "70.3 ± 0.1",
        "Convergence. The soft prompt's accuracy on dev",
        "mean over 2 seeds",
        '"sombre800 film ##ness told verdict"',
        "7 of 20 projections in the stage differ; 4 prompts stood in the pool",
        "0.6200 / 0.702 before → 0.5500 / 0.717 at the restart →",
        'cut off: " and its tone"',
        "Sure, here are three prompts:",
        "claude-haiku-4-5-20251001",
        "2026-01-02T03:04:05+00:00",
        "0123456789, with changes",
        "catalyst run task=sst2 backbone=minilm",
        str(told / "mentor" / "sst2" / "seed1"),
        "Sensitivity is not drawn",
        "wins / ties / losses",
    ):
        assert words in text, words
    assert re.search(r"0\.3612 / 0\.86\d n=400", text)


def test_the_page_is_well_formed_for_readers_and_small_screens(page: Page) -> None:
    assert [len(page.all(tag)) for tag in ("h1", "title", "main", "nav")] == [1, 1, 1, 1]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    pictures = page.all("svg")
    assert len(pictures) == len(page.all("figcaption")) > 4
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for attributes in page.all("a")}
    assert {target for target in targets if target and target[1:] not in ids} == {EXCHANGES}
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_nothing_of_the_page_comes_from_the_network_or_runs(page: Page, raw: str) -> None:
    assert not {tag for tag, _ in page.tags} & ACTIVE
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#") or attributes[name] == EXCHANGES
        assert not re.search(r"url\((?!#)", attributes.get("style") or "")
    assert "@import" not in raw
    assert not re.search(r"url\((?!#)", raw)
    assert not page.all("meta")[0].get("http-equiv")
    assert not [meta for meta in page.all("meta") if meta.get("http-equiv") == "refresh"]


def test_hostile_texts_are_text(tmp_path: Path) -> None:
    records = list(recorded.run_records(extra=POISON, fails=True))
    folder = write_told(tmp_path / "told", ["plain", "mentor"], reference="plain", records=records)
    results = results_of(folder)
    runs = [
        replace(r, manifest=replace(r.manifest, command=(POISON,), device=POISON, git={"revision": POISON}))
        for r in results.runs
    ]
    cells = {
        (POISON + row, POISON): replace(entry, row=POISON + row, column=POISON, runs=tuple(runs))
        for (row, _), entry in results.cells.items()
    }
    rows = tuple(row for row, _ in cells)
    hostile = replace(
        results, title=POISON, note=POISON, rows=rows, columns=(POISON,), cells=cells, reference=rows[0],
        problems=(POISON,), command=POISON,
    )  # fmt: skip
    files = build_files([hostile])
    exchanges, raw = Page(files[EXCHANGES].decode()), files[PAGE].decode()
    page = Page(raw)
    assert not {tag for tag, _ in page.tags} & ACTIVE
    assert not {tag for tag, _ in exchanges.tags} & (ACTIVE - {"input"})
    for one in (page, exchanges):
        assert [len(one.all(tag)) for tag in ("title", "style", "h1")] == [1, 1, 1]
        assert not [name for _, attributes in one.tags for name in attributes if name.startswith("on")]
    assert "{{7*7}}" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert not [sign for sign in ("\x1b", "\x07", "\x00", "\x9b", "\u202e", "\ufffe", "\r") if sign in raw]
    tex = files["tables/told.tex"].decode()
    assert "\\input{" not in "\n".join(line for line in tex.splitlines() if not line.startswith("%"))


@pytest.mark.slow
def test_a_report_says_where_it_lies_changes_no_file_without_need_and_leaves_none_behind(tmp_path: Path) -> None:
    told, folder, console = write_two(tmp_path / "told"), tmp_path / "told" / "report", quiet()
    write_report([told], None, console)
    said = console.file.getvalue().replace("\n", "")  # type: ignore[attr-defined]
    for words in (
        str(folder / PAGE),
        f"{folder / EXCHANGES}: every",
        f"{folder / 'tables'}: 4 files",
        "70.3 ± 0.1",
        "what it cost",
    ):
        assert words in said
    tables = {f"tables/told.{ending}" for ending in ("md", "tex", "csv", "summary.csv")}
    written = {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert {PAGE, *tables, "figures/told-pool.svg", "figures/told-pool.pdf"} <= set(written)
    assert (folder / "figures" / "told-pool.pdf").read_bytes().startswith(b"%PDF")

    write_report([told], None, quiet())
    assert written == {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.*")}

    (folder / "figures" / "mine.svg").write_text("mine")
    (folder / "figures" / "told-pool.pdf").write_text("mine, too")
    for path in told.rglob("*.jsonl"):
        path.unlink()
    write_report([told], None, quiet())
    figures = {f"figures/told-{name}.{end}" for name in ("scores", "cost", "ledger") for end in ("svg", "pdf")}
    made = checksums.read_list(folder)
    assert set(made) == {PAGE, *tables, *figures}
    assert not checksums.find_changed(folder, made)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert left == {*made, "figures/mine.svg", "figures/told-pool.pdf"}


def test_several_places_share_a_page_with_a_name_for_each(tmp_path: Path) -> None:
    for folder in ("a/same", "b/same"):
        write_results(tmp_path / folder, {("plain", "sst2"): [0.8, 0.9]}, seeds=(1, 2))
    write_report([tmp_path / "a", tmp_path / "b"], None, quiet())
    assert sorted(path.name for path in (tmp_path / "report" / "tables").glob("*.md")) == ["same-2.md", "same.md"]
    page = Page((tmp_path / "report" / PAGE).read_text("utf-8"))
    assert "2 reports" in page.text


def test_a_table_of_which_nothing_is_run_yet_has_a_page_that_says_so(tmp_path: Path) -> None:
    page = page_of(write_results(tmp_path / "t", {("plain", "sst2"): []}, seeds=(1, 2)))
    text = " ".join(page.text.split())
    assert "0 of 2 finished" in text
    assert "there is no run (plain · sst2 · seed 1, 2)" in text
    assert "Convergence is not drawn: no run has been scored on dev yet." in text
    assert not page.all("svg")


def test_a_run_of_no_table_is_reported_too(tmp_path: Path) -> None:
    write_report([recorded.write_run(tmp_path / "run")], tmp_path / "here", quiet())
    assert "Feel the tone of the review" in (tmp_path / "here" / PAGE).read_text("utf-8")


def test_the_command_writes_a_report_without_torch(tmp_path: Path, python: Callable[[str], str]) -> None:
    run = recorded.write_run(tmp_path / "run", stages=0)
    told = python(
        f"""
import sys, llm_catalyst.report.tables
from llm_catalyst.cli.main import main
print("tables alone draw:", "matplotlib" in sys.modules)
try:
    main(["report", {str(run)!r}, "--output", {str(tmp_path / "here")!r}])
except SystemExit as end:
    loaded = [name for name in ("torch", "transformers", "datasets", "hydra", "pandas") if name in sys.modules]
    print("code", end.code or 0, "loaded", loaded)
"""
    )
    assert "tables alone draw: False" in told
    assert "code 0 loaded []" in told
    assert (tmp_path / "here" / PAGE).is_file()


def test_a_folder_that_cannot_be_written_is_refused_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    run = recorded.write_run(tmp_path / "run", stages=0, finished=False)
    with pytest.raises(ConfigurationError, match="choose another folder: --output FOLDER"):
        write_report([run], tmp_path / "taken", quiet())


def test_a_place_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no run directory lies below"):
        write_report([tmp_path], None, quiet())


# --- watched


def as_soon_as_there(page: Path, act: Callable[[], object]) -> None:
    """Act, in a thread, when the page is written for the first time."""

    def wait() -> None:
        while not page.exists():
            time.sleep(0.02)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_a_watched_report_follows_its_runs_reloads_itself_and_ends_with_them(tmp_path: Path) -> None:
    path, page, before = recorded.write_run(tmp_path / "run", 0, finished=False), tmp_path / "here" / PAGE, list[str]()

    def end() -> None:
        before.append(page.read_text("utf-8"))
        directory = RunDirectory(path)
        directory.write_config(recorded.CONFIG, recorded.manifest())
        directory.finish(recorded.outcome())
        directory.close()

    as_soon_as_there(page, end)
    write_report([path], tmp_path / "here", quiet(), watch=0.5)
    assert '<meta http-equiv="refresh" content="0.5">' in before[0]
    after = page.read_text("utf-8")
    assert 'http-equiv="refresh"' not in after
    assert "1 of 1 finished" in after


def test_a_watched_report_gives_up_where_nothing_comes_and_says_so(tmp_path: Path) -> None:
    path = recorded.write_run(tmp_path / "run", stages=0, finished=False)
    console = quiet()
    write_report([path], tmp_path / "here", console, watch=0.01)
    assert "nothing new in 20 looks: 1 run did not end" in console.file.getvalue()  # type: ignore[attr-defined]
    assert 'http-equiv="refresh"' not in (tmp_path / "here" / PAGE).read_text("utf-8")


def test_a_signal_ends_a_watched_report_with_its_exit_code_and_a_page_that_rests(tmp_path: Path) -> None:
    path, page = recorded.write_run(tmp_path / "run", 0, finished=False), tmp_path / "here" / PAGE
    as_soon_as_there(page, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, stop_now)
    try:
        with pytest.raises(RunInterrupted) as stopped:
            write_report([path], tmp_path / "here", quiet(), watch=30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == INTERRUPTED
    assert 'http-equiv="refresh"' not in page.read_text("utf-8")


def test_ranges_of_runs() -> None:
    assert format_ranges([3, 1, 2, 7]) == "1–3, 7"
    assert format_ranges([]) == ""


def told_pages(folder: Path, records: list[Record]) -> dict[str, str]:
    """The two pages of a report on one run with these records, without its style sheet."""
    files = build_files([results_of(write_told(folder, ["mentor"], seeds=[1], records=records))])
    return {name: re.sub(r"<style>.*?</style>", "", files[name].decode(), flags=re.S) for name in (PAGE, EXCHANGES)}


@pytest.mark.parametrize(
    ("difference", "error", "style"), [(-0.07, 0.01, "lower"), (0.07, 0.01, "higher"), (0.01, 0.02, "dim")]
)
def test_colour_is_for_the_difference_at_the_restart_alone(
    tmp_path: Path, difference: float, error: float, style: str
) -> None:
    records = [
        replace(r, difference=difference, error=error) if isinstance(r, Restart) else r for r in recorded.run_records()
    ]
    for raw in told_pages(tmp_path / "told", records).values():
        within = ", within the error" * (style == "dim")
        shown = f'<span class="{style}">({difference:+.4f} ± {error:.4f}{within})</span> → '
        assert raw.count(shown) == 2  # restarts
        others = {"lower", "higher"} - {style}
        assert not [name for name in others if f'class="{name}"' in raw]
        assert raw.count(f'class="{style}"') == 2 or style == "dim"
        assert "the work of training, which lowers it without a mentor" in raw


def test_the_score_of_a_text_alone_stands_beside_that_of_the_restart_point(tmp_path: Path) -> None:
    judged = recorded.prompt("Judge the mood of the review")
    records = [
        replace(r, score=Score(0.6123, 0.61, 400)) if isinstance(r, ScoredPrompt) and r.prompt == judged else r
        for r in recorded.run_records()
    ]
    for raw in told_pages(tmp_path / "told", records).values():
        row = next(line for line in raw.split("<tr>") if "Judge the mood of the review&#34;</span>" in line)
        assert re.findall(r"0\.\d{4}", row) == ["0.5500", "0.6123"]
        assert raw.count("dev, the text alone") == 1  # the other restart has no other score
        assert "with what was learned, carried over" in raw


def test_of_a_race_the_pages_name_the_winner(tmp_path: Path) -> None:
    run = recorded.raced(recorded.write_run(tmp_path / "run"), 1)
    records = [*run.restarts, *run.metrics, recorded.exchange(0, "1. Judge")]
    for raw in told_pages(tmp_path / "told", records).values():
        won = [line for line in raw.splitlines() if "<strong>won</strong>" in line]
        assert len(won) == 1
        assert "2. Verdict:" in won[0]
        assert raw.count("<strong>lost</strong>") == 2
        assert "<td>restart, won</td>" in raw
        assert "<td>restart, lost</td>" in raw


@pytest.mark.parametrize(
    ("metric", "majority_metric", "score", "accuracy", "warned"),
    [
        ("macro_f1", 0.337, 0.33, 0.6, "macro_f1"),  # of one class of two at 0.509: 2 * 0.509 / 1.509 / 2
        ("macro_f1", 0.337, 0.5, 0.5, ""),  # accuracy is below the majority class's, the task's metric is not
        ("accuracy", 0.509, 0.5, 0.5, "accuracy"),
        ("macro_f1", None, 0.4, 0.5, "accuracy"),  # of an earlier revision: only accuracies compare
    ],
)
def test_the_majority_class_is_compared_in_the_metric_of_the_task(
    tmp_path: Path, metric: str, majority_metric: float | None, score: float, accuracy: float, warned: str
) -> None:
    run = read_run(recorded.write_run(tmp_path / "run"))
    run.__dict__["config"] = {"task": {"metric": metric}}
    ended = replace(
        recorded.outcome(),
        majority_metric=majority_metric,
        test=Score(0.7, score, 1000),
        test_metrics={"accuracy": accuracy},
    )
    words = f"{warned} on test is not above that of the majority class" if warned else ""
    assert compare_majority(ended, run) == words


def test_a_prompt_that_is_tokens_has_one_row(tmp_path: Path) -> None:
    ended = recorded.outcome()
    assert ended.best is not None
    assert ended.best_prompt is not None
    for name, similarity, rows in (("soft", 0.6, 2), ("tokens", 1.0, 1)):
        best = replace(ended.best, prompt=ended.best_prompt.prompt, similarity=similarity)
        path = tmp_path / name
        directory = RunDirectory(path)
        directory.write_config(recorded.CONFIG, recorded.manifest())
        for record in recorded.run_records():
            directory.append(record)
        directory.finish(replace(ended, best=best))
        directory.close()
        raw = build_files([results_of(path)])[PAGE].decode()
        raw = raw.partition('<h3 id="s1-prompts">')[2].partition("<h3")[0]
        assert raw.count("Feel the tone of the review") == rows
        assert ("<td>soft</td>" in raw) == (rows == 2)
