"""Cleaning, on tables of a few rows."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import wdbc_rows
from steplib.errors import DataError
from steplib.table import batches
from steplib.table.cleaning import clean as clean_table
from steplib.table.csvfile import HEAD_BYTES, check_head
from steplib.table.schema import WDBC_FEATURES, is_test

# Ids on both sides of the split: a table of four rows then has both classes on both sides.
TEST_IDS = [str(i) for i in range(100) if is_test(str(i))]
TRAIN_IDS = [str(i) for i in range(100) if not is_test(str(i))]
HEAD = "id,diagnosis,size,shape\n"
BODY = f"{TEST_IDS[0]},M,1,2\n{TEST_IDS[1]},B,3,4\n{TRAIN_IDS[0]},M,5,6\n{TRAIN_IDS[1]},B,7,8\n"

Clean = Callable[[str | bytes], list[list[str]]]


# Row by row or as arrays, in one batch or in many: SMALL_FILE_BYTES and BATCH_BYTES.
WAYS = [(1 << 20, 1 << 22), (1 << 20, 1), (1 << 20, 40), (0, 1 << 22), (0, 1), (0, 40)]


def clean_in_every_way(content: bytes, folder: Path) -> Path:
    """Clean a file's content in every way, require the same result of all, and return a cleaned file."""
    raw, found = folder / "raw.csv", {}
    raw.write_bytes(content)
    for small, batch_bytes in WAYS:
        clear = folder / f"clear_{small}_{batch_bytes}.csv"
        with pytest.MonkeyPatch.context() as patch, clear.open("w+b") as cleaned:
            patch.setattr(batches, "SMALL_FILE_BYTES", small)
            try:
                summary = clean_table(raw, cleaned, io.BytesIO(), batch_bytes)
                cleaned.flush()
                found[small, batch_bytes] = (clear.read_bytes(), summary.rows_read, summary.rows)
            except DataError as error:
                found[small, batch_bytes] = str(error)
    assert len(set(found.values())) == 1, found
    (result,) = set(found.values())
    if isinstance(result, str):
        raise DataError(result)
    return clear


@pytest.fixture
def clean(tmp_path: Path) -> Clean:
    """Return a function that cleans a file's content and returns the rows of clear_data.csv."""

    def clean(content: str | bytes) -> list[list[str]]:
        clear = clean_in_every_way(content.encode() if isinstance(content, str) else content, tmp_path)
        with clear.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    return clean


def test_header_and_no_header(clean: Clean) -> None:
    """A header names the features; without one, they are numbered."""
    assert clean(HEAD + BODY)[:2] == [["id", "target", "size", "shape"], [TEST_IDS[0], "1", "1.0", "2.0"]]
    assert clean(BODY)[:2] == [["id", "target", "feature_1", "feature_2"], [TEST_IDS[0], "1", "1.0", "2.0"]]


def test_uci_layout(clean: Clean) -> None:
    """Thirty features without a header get the names of the WDBC data."""
    rows = clean("\n".join(wdbc_rows()))

    assert rows[0] == ["id", "target", *WDBC_FEATURES]
    assert len(rows) == 570
    for source, row in zip(wdbc_rows(), rows[1:], strict=True):
        cells = source.split(",")
        assert row[:2] == [cells[0], "1" if cells[1] == "M" else "0"]
        assert [float(cell) for cell in row[2:]] == [float(cell) for cell in cells[2:]]


@pytest.mark.parametrize("end", ["", ","])
def test_kaggle_layout(clean: Clean, end: str) -> None:
    """A trailing comma in the header adds no feature, whether or not the rows have one."""
    body = BODY.replace("\n", end + "\n")

    assert clean('"id","diagnosis","size","shape",\n' + body)[0] == ["id", "target", "size", "shape"]


@pytest.mark.parametrize(
    "content",
    [
        HEAD.replace("\n", "\r\n") + BODY.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + (HEAD + BODY).encode(),
        (HEAD + BODY).rstrip("\n"),
        HEAD + "\n  \n" + BODY + "\n\n",
        HEAD + BODY.replace(",M,", ', "M",').replace(",B,", ",  B ,"),
        HEAD + BODY.replace(",5,", ',"5",').replace(",6\n", ",+6.0e0\n"),
    ],
    ids=["crlf", "bom", "no last line end", "blank lines", "blanks around target", "quoted and signed numbers"],
)
def test_same_table_in_a_different_notation(clean: Clean, content: str | bytes) -> None:
    """Line ends, a BOM, blank lines, blanks and quotes do not change the table."""
    assert clean(content) == clean(HEAD + BODY)


@pytest.mark.parametrize("text", ["", "NA", "NaN", "null", "?", " NA ", "nan"])
def test_missing_value_stays_missing(clean: Clean, text: str) -> None:
    """Every notation of a missing value becomes an empty field."""
    assert clean(HEAD + BODY.replace(",5,", f",{text},"))[3] == [TRAIN_IDS[0], "1", "", "6.0"]


@pytest.mark.parametrize("number", ["0.1", "1e-310", "5e-324", "1.7976931348623157e308", "-0.0", "123456789.123456789"])
def test_number_reads_back_to_the_same_float(clean: Clean, number: str) -> None:
    """Every float is written exactly, also at the ends of the range."""
    assert float(clean(HEAD + BODY.replace(",5,", f",{number},"))[3][2]).hex() == float(number).hex()


def test_id_is_text(clean: Clean) -> None:
    """An id keeps its leading zeros, commas, quotes and line ends, and is never taken for a missing value."""
    ids = ["007", 'a,"b"', "NA", "line\nend"]
    extra = "".join('"' + i.replace('"', '""') + '",B,1,1\n' for i in ids)

    assert [row[0] for row in clean(HEAD + BODY + extra)[5:]] == ids


@pytest.mark.parametrize("first", ["PAR1", "BZh9", "a|b|c"])
def test_beginning_that_only_looks_like_a_different_format(first: str) -> None:
    """An id or a name may begin like a file of a different format."""
    check_head(f"{first},M,1,2\n".encode())
    check_head(f'"record\nid",diagnosis,"{first}|b;c;d;e",shape\n'.encode())


@pytest.mark.parametrize(
    "text", ["{CD613E30-01}", "[123]", "{1}", "[true]", "[a][b]", "[1] [2]", "[[1]]", "{}", "[NaN"]
)
@pytest.mark.parametrize("form", ["{}", '"{}"', " {}", "\ufeff{}"])
def test_id_in_braces_or_brackets(clean: Clean, text: str, form: str) -> None:
    """An id may begin as JSON does, with and without a header line and quotes."""
    row = form.format(text) + ",M,1,2\n"
    check_head(row.encode())
    check_head((row * 200_000).encode()[:HEAD_BYTES])
    check_head(f"[id],[diagnosis],[size],[shape]\n{row}".encode())

    assert clean(row + BODY)[1][0] == text


JSON_ROWS = [{"id": str(i), "diagnosis": "M", "size": 1.5, "note": 'a,"b"\\é'} for i in range(20_000)]


@pytest.mark.parametrize("start", ["", "\ufeff", " \r\n\t"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(JSON_ROWS),
        json.dumps(JSON_ROWS, indent=2),
        json.dumps({"rows": JSON_ROWS}, ensure_ascii=False),
        "\n".join(json.dumps(row) for row in JSON_ROWS),
        "\n".join(json.dumps(list(row.values())) for row in JSON_ROWS),
        json.dumps(list(range(300_000))),
        json.dumps("x" * HEAD_BYTES).join("[]"),
        "[" * HEAD_BYTES,
        "{}",
        "[]\n",
        '{\n "error": "x"\n}\n',
    ],
    ids=range(11),
)
def test_json_is_recognised_wherever_it_is_cut_off(text: str, start: str) -> None:
    """The head of a JSON document may end within a string, a number or a character."""
    content = (start + text).encode()
    for size in {HEAD_BYTES - n for n in range(40)} if len(content) > HEAD_BYTES else {len(content)}:
        with pytest.raises(DataError, match="found JSON"):
            check_head(content[:size])


def test_duplicates_and_empty_features_are_left_out(clean: Clean) -> None:
    """A repeated row is written once; a feature without any value is omitted."""
    body = "".join(f"{line},?\n" for line in BODY.splitlines())

    assert clean("id,diagnosis,size,shape,none\n" + body + body) == clean(HEAD + BODY)


def test_rows_of_one_id_with_different_values_stay(clean: Clean) -> None:
    """A second measurement of a record is not a duplicate."""
    assert len(clean(HEAD + BODY + f"{TEST_IDS[0]},M,1,2.5\n")) == 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            HEAD + BODY + "9,X,1,2\n",
            "невалидные данные в target: expected B or M; found at line 6, column 2 (diagnosis)",
        ),
        (HEAD + BODY + "9,,1,2\n", "line 6, column 2 (diagnosis): missing"),
        (HEAD + BODY + "9,m,1,2\n", "line 6, column 2 (diagnosis): neither B nor M"),
        (HEAD + BODY.replace("M", "B"), "невалидные данные в target: expected both B and M, found no M"),
        (HEAD + "\n" + BODY + "9,B,SECRET,2\n", "line 7, column 3 (size): not a finite number"),
        (HEAD + BODY + "9,B,1,inf\n", "line 6, column 4 (shape): not a finite number"),
        (HEAD + BODY + "9,B,1,1e999\n", "line 6, column 4 (shape): not a finite number"),
        (HEAD + BODY + "9,B,1,1_0\n", "line 6, column 4 (shape): not a finite number"),
        (HEAD + BODY + "9,B,1,٣\n", "line 6, column 4 (shape): not a finite number"),
        (HEAD + BODY + '9,B,1,"2,5"\n', "line 6, column 4 (shape): not a finite number"),
        ("1,M,SECRET,2\n" + BODY, "line 1, column 3 (feature_1): not a finite number"),
        ("1,X,1,2\n" + BODY, "line 1, column 2 (diagnosis): neither B nor M"),
        ("SECRET,malignant,SECRET,high\nb,benign,SECRET,low\n", "line 1, column 2 (diagnosis): neither B nor M"),
        ('SECRET,malignant,"17,99"\n2,B,1\n', "line 1, column 2 (diagnosis): neither B nor M"),
        *(
            (f"x,X,{cell},size\n{BODY}", "line 1, column 2")
            for cell in ("<5", "0mm", "inf", "−1.5", "1 234", "2024-01-02")
        ),
        ("1,X,SECRET,a-b\n" + BODY, "line 1, column 2 (diagnosis): neither B nor M"),
        ("id,diagnosis,0,1\n" + BODY, "line 1 was read as data, not as a header"),
        (HEAD + BODY + '"9\r9",B,1,2\n', "line 6: expected lines that end with LF or CRLF"),
        ((HEAD + BODY).replace("\n", "\r"), "line 1: expected lines that end with LF or CRLF"),
        ("SECRET,malignant,yes,no\n,B,1,2\n", "line 2, column 1 (id): no record id"),
        (HEAD + BODY + " ,B,1,2\n", "line 6, column 1 (id): no record id"),
        (HEAD + BODY + "9,B,1\n", "line 6: 3 columns instead of 4"),
        (HEAD + BODY + "9,B,1,2,3\n", "line 6: 5 columns instead of 4"),
        (HEAD + BODY + HEAD, "line 6, column 2 (diagnosis)"),
        (HEAD + '"a\nb",B,1,2\n9,B,1,SECRET\n', "line 4, column 4 (shape)"),
        (HEAD + BODY + '9,B,"SECRET,2\n', "line 6: expected quotes only around whole fields"),
        (HEAD + BODY + '9,B,"1"SECRET,2\n', "line 6: expected quotes only around whole fields"),
        (HEAD.replace("shape", "size") + BODY, "line 1: expected a different name for each column of the header line"),
        (HEAD.replace("shape", "id") + BODY, "line 1: expected a different name"),
        (HEAD.replace("shape", "target") + BODY, "line 1: expected a different name"),
        (HEAD, "found a header line alone"),
        ("", "found an empty file"),
        (f"{TEST_IDS[0]},M,?\n{TEST_IDS[1]},B,?\n", "expected at least one feature with values"),
        (HEAD + "".join(f"{i},{c},1,2\n" for i, c in zip(TRAIN_IDS[:4], "MBMB", strict=True)), "too few rows"),
        ((HEAD + BODY).encode() + b"\xff,B,1,2\n", "line 6: expected UTF-8"),
        (HEAD + BODY + "9,B,1,2\0\n", "line 6: expected text, found a zero byte"),
    ],
)
def test_refusal_names_the_place_and_no_value(clean: Clean, content: str | bytes, reason: str) -> None:
    """A refusal says what is wrong and where, in one line, and never shows the value."""
    with pytest.raises(DataError) as refused:
        clean(content)

    assert reason in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_at_most_ten_places_are_named(clean: Clean) -> None:
    """The error about a file full of faults names the first ten."""
    with pytest.raises(DataError) as refused:
        clean(HEAD + "1,X,1,2\n" * 1000)

    assert str(refused.value).count("line ") == 10


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf \r\n", "an empty file"),
        (b"\n <!DOCTYPE html><html>", "HTML"),
        (b'{"rows": [1, 2, 3]}', "JSON"),
        (b"[1, 2, 3]", "JSON"),
        (b"PK\x03\x04rest", "a ZIP archive or an Excel workbook"),
        (b"\x1f\x8brest", "a gzip archive"),
        ("id,diagnosis,a\n".encode("utf-16"), "UTF-16"),
        ("id,diagnosis,a\n".encode("utf-16-le"), "binary data or UTF-16"),
        ("имя,диагноз,a\n".encode("cp1251"), "a different encoding"),
        (b"1;M;2,5;3,5\n", "semicolons"),
        (b"1\tM\t2\n", "tabs"),
        (b"service unavailable\n", "1 column(s)"),
        (b"1," * (1 << 20), "a first line of more than a mebibyte"),
    ],
)
def test_other_formats_are_recognised_by_their_beginning(head: bytes, kind: str) -> None:
    """A file that is not comma-separated UTF-8 text is refused, and the error names what it is."""
    with pytest.raises(DataError, match="not a CSV") as refused:
        check_head(head)

    assert kind in str(refused.value)
