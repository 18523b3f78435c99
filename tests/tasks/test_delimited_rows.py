"""Delimited text as spreadsheets, databases and benchmarks write it."""

import time
from pathlib import Path

import pandas
import pytest
from helpers.row_files import PAIRS, as_csv, list_rows, load_rows, write_files

from llm_catalyst.tasks.delimited_rows import choose_delimiter
from llm_catalyst.utils.validation import ConfigurationError


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
@pytest.mark.parametrize("rows", [PAIRS, PAIRS[:2]], ids=["twenty rows", "two rows"])
def test_fields_may_be_separated_by_comma_semicolon_tab_or_bar(
    tmp_path: Path, delimiter: str, suffix: str, rows: list[tuple[str, str]]
) -> None:
    files = {f"{split}.{suffix}": as_csv(rows, delimiter=delimiter) for split in ("train", "dev", "test")}
    assert list_rows(load_rows(write_files(tmp_path, dict(files)), dev="dev")) == set(rows)


def test_quotation_marks_that_are_left_open_in_tab_separated_text_take_in_no_other_line(tmp_path: Path) -> None:
    rows = [('"' * (i % 3) + f"said {i}", "good" if i % 2 else "bad") for i in range(20)]
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    assert list_rows(load_rows(write_files(tmp_path, {"rows.tsv": content}))) == set(rows)


def test_backslashes_before_quotation_marks_are_understood(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f'"he said \\"yes\\", {i}",{i % 2}\n' for i in range(20))
    data = load_rows(write_files(tmp_path, {"rows.csv": content}))
    assert list_rows(data) == {(f'he said "yes", {i}', str(i % 2)) for i in range(20)}


def test_excels_line_about_the_separator_is_no_header(tmp_path: Path) -> None:
    content = "sep=;\r\n" + as_csv(delimiter=";")
    folder = write_files(tmp_path, {"rows.csv": content})
    assert list_rows(load_rows(folder)) == set(PAIRS)
    (folder / "rows.csv").write_text(content + "short\n")
    with pytest.raises(ConfigurationError, match="line 23: there is 1 field"):
        load_rows(folder)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_any_line_end_and_a_mixture_of_them_is_read(tmp_path: Path, end: str) -> None:
    content = as_csv().replace("\r\n", end, 9).replace("\r\n", "\n")
    assert list_rows(load_rows(write_files(tmp_path, {"rows.csv": content}))) == set(PAIRS)


def test_a_header_with_blanks_and_a_column_without_a_name_are_read(tmp_path: Path) -> None:
    frame = pandas.DataFrame(PAIRS, columns=[" Review Text ", "label "])
    data = load_rows(write_files(tmp_path, {"rows.csv": frame.to_csv()}), text="{Review Text}")
    assert list_rows(data) == set(PAIRS)


def test_two_columns_of_one_name_are_refused_only_where_the_task_needs_them(tmp_path: Path) -> None:
    rows = [(text, 1, 2, label) for text, label in PAIRS]
    folder = write_files(tmp_path, {"rows.csv": as_csv(rows, ("text", "x", "x", "label"))})
    assert list_rows(load_rows(folder)) == set(PAIRS)
    with pytest.raises(ConfigurationError, match=r"rows\.csv, line 1: columns are named twice: x; give each its own"):
        load_rows(folder, text="{x}")


def test_empty_records_at_the_end_of_a_sheet_are_no_rows(tmp_path: Path) -> None:
    content = as_csv() + ",\r\n , \r\n"
    assert list_rows(load_rows(write_files(tmp_path, {"rows.csv": content}))) == set(PAIRS)


def test_a_file_without_a_header_is_refused_with_the_reason(tmp_path: Path) -> None:
    content = as_csv(PAIRS[1:], PAIRS[0])
    with pytest.raises(ConfigurationError, match="the first line of a CSV names its columns"):
        load_rows(write_files(tmp_path, {"rows.csv": content}))


def test_control_characters_of_a_header_do_not_reach_the_terminal(tmp_path: Path) -> None:  # E27
    content = as_csv(header=("te\x1b[31mxt", "label"))
    with pytest.raises(ConfigurationError) as caught:
        load_rows(write_files(tmp_path, {"rows.csv": content}))
    assert str(caught.value).isprintable()
    assert "did you mean te\\x1b[31mxt" in str(caught.value)


def test_missing_cells_are_counted_and_named_by_their_lines(tmp_path: Path) -> None:
    rows = [(text, "" if i in (3, 8) else label) for i, (text, label) in enumerate(PAIRS)]
    with pytest.raises(ConfigurationError, match=r"line 5: there is no label; .* \(2 of 20 rows: line 5, 10\)"):
        load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)}))


@pytest.mark.parametrize("piece", ['"\n', "'a',\"b\" ", '"a" ', ",;|\t"])
def test_no_text_makes_the_choice_of_a_delimiter_slow(piece: str) -> None:
    start = time.process_time()
    choose_delimiter(piece * 5000, ["text"])
    assert time.process_time() - start < 5


def test_cells_are_text_as_they_are_written(tmp_path: Path) -> None:
    rows = [(f"00{i}", "NA" if i % 2 else "None") for i in range(20)]
    assert list_rows(load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)}))) == set(rows)


GOOD = "".join(f"fine film {i},good\nbad film {i},bad\n" for i in range(5))
NOTED = r"rows.csv, line {}: a field takes in {}, and some look like rows; if they are, double or remove "

# Rows as they stand in a file behind the line of column names, and as they are meant.
WRITTEN: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "backslashes beside an escaped quotation mark": (
        r""""say \"hi\", ok",good
"C:\new\table",bad
a \ b,good
"\\server\x",bad
""",
        [('say "hi", ok', "good"), (r"C:\new\table", "bad"), (r"a \ b", "good"), (r"\\server\x", "bad")],
    ),
    "backslashes that are escaped, too": (
        r""""say \"hi\", ok",good
"C:\\new",bad
""",
        [('say "hi", ok', "good"), (r"C:\new", "bad")],
    ),
    "backslashes without a quotation mark": (
        r""""C:\new\",good
"D:\",bad
""",
        [("C:\\new\\", "good"), ("D:\\", "bad")],
    ),
    "both forms of a quotation mark": (
        r""""say \"hi\", ok",good
"say ""yes"", ok",bad
""",
        [('say "hi", ok', "good"), ('say "yes", ok', "bad")],
    ),
    "blanks before a delimiter": ('"a, b" , good\n"c ""d"" , e"  ,bad\n', [("a, b", "good"), ('c "d" , e', "bad")]),
    "blanks at the end of a line": ('"a, b","good" \nc,"bad"\n', [("a, b", "good"), ("c", "bad")]),
    "the end of a text as of DOS": ("a,good\nb,bad\n\x1a", [("a", "good"), ("b", "bad")]),
    "a delimiter at the end of every row": ("a,good,\nb,bad,\n", [("a", "good"), ("b", "bad")]),
    "numbers of rows, as of R": ('"1","a","good"\n"7","b","bad"\n', [("a", "good"), ("b", "bad")]),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", WRITTEN)
def test_rows_are_read_as_programs_write_them(tmp_path: Path, kind: str, end: str) -> None:
    content, rows = WRITTEN[kind]
    text = ("text,label\n" + content).replace("\n", end)
    assert list_rows(
        load_rows(write_files(tmp_path, {f"{s}.csv": text for s in ("train", "dev", "test")}), dev="dev")
    ) == {*rows}


def test_escaped_quotation_marks_of_tab_separated_text_are_read(tmp_path: Path) -> None:
    content = "text\tlabel\n" + "".join(f'"say \\"{i}\\" now"\t{i % 2}\n' for i in range(20))
    wanted = {(f'say "{i}" now', str(i % 2)) for i in range(20)}
    assert list_rows(load_rows(write_files(tmp_path, {"rows.tsv": content}))) == wanted


def test_a_table_of_r_with_blanks_between_its_fields_is_read(tmp_path: Path) -> None:
    content = '"text" "label"\n' + "".join(f'"{i}" "say \\"{i}\\" now" "{"ab"[i % 2]}"\n' for i in range(20))
    wanted = {(f'say "{i}" now', "ab"[i % 2]) for i in range(20)}
    assert list_rows(load_rows(write_files(tmp_path, {"rows.txt": content}))) == wanted


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_excels_line_may_have_any_end(tmp_path: Path, end: str) -> None:
    content = "sep=;\n" + as_csv(delimiter=";").replace("\r\n", "\n")
    assert list_rows(load_rows(write_files(tmp_path, {"rows.csv": content.replace("\n", end)}))) == set(PAIRS)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (GOOD + "a,good,\nb,bad,\n", 12),
        ("a,good,\n" + GOOD.replace("bad\n", "bad,more\n", 1), 4),
        ("1,a,good\n1,b,bad\n", 3),
        ("1,a,good\ntext,b,bad\n", 3),
        ("a,b,good\nc,d,bad\n", 2),
    ],
)
def test_a_field_too_many_that_not_every_row_has_is_refused(tmp_path: Path, rows: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match=f"rows.csv, line {line}: there are 3 fields, but 2 column names"):
        load_rows(write_files(tmp_path, {"rows.csv": "text,label\n" + rows}))


@pytest.mark.parametrize("header", ["text,label", ' text,"label"', "\ufefftext,label "])
def test_a_second_line_of_column_names_is_refused_with_its_number(tmp_path: Path, header: str) -> None:
    with pytest.raises(ConfigurationError, match=r"line 12: the line of column names is there once more.*; remove it"):
        load_rows(write_files(tmp_path, {"rows.csv": f"{header}\n{GOOD}{header}\n{GOOD}"}))


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ('"open film,good\nfine text,bad\nmore text",bad\n', "2 more lines"),
        ('"open film,good\nmore text",bad\n', "1 more line"),
        ('"open\nx, y\nz, other",good\n', "2 more lines"),
    ],
)
def test_a_field_that_takes_in_what_look_like_rows_is_noted_with_its_line(
    tmp_path: Path, rows: str, lines: str
) -> None:
    data = load_rows(write_files(tmp_path, {"rows.csv": "text,label\n" + GOOD + rows + GOOD.replace("film", "book")}))
    assert [note for note in data.notes if NOTED.format(12, lines) in note] != []


@pytest.mark.parametrize(
    "rows",
    ['"A review, in\nthree lines, of which\none has no comma",good\n', '"Two lines, with\na comma, both",good\n', GOOD],
)
def test_a_text_of_several_lines_is_not_noted(tmp_path: Path, rows: str) -> None:
    data = load_rows(write_files(tmp_path, {"rows.csv": "text,label\n" + GOOD.replace("film", "book") + rows}))
    assert not any("takes in" in note for note in data.notes)
