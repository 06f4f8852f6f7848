"""Cleaning arbitrary input ends with clean data or a refusal."""

import csv
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from steplib.errors import DataError
from steplib.table.csvfile import HEAD_BYTES, check_head
from steplib.table.schema import MISSING
from test_transform import BODY, HEAD, clean_in_every_way

CELLS = st.one_of(
    st.sampled_from(
        ["B", "M", "", "NA", "?", "1", "-2.5e-3", "inf", "nan", "1_0", '"', '"1"', '"a\nb"', " 7 ", "\ufeff"]
    ),
    st.floats().map(repr),
    st.text(max_size=5),
)
TABLES = st.lists(st.lists(CELLS, max_size=5).map(",".join), max_size=12).map("\n".join)
NEARLY_GOOD = st.tuples(st.binary(max_size=6), st.integers(0, len(HEAD + BODY))).map(
    lambda pair: (HEAD + BODY).encode()[: pair[1]] + pair[0] + (HEAD + BODY).encode()[pair[1] :]
)


@pytest.fixture(autouse=True, scope="module")
def one_arrow_thread() -> Iterator[None]:
    """Give pyarrow one thread: for tables of a few rows, starting more takes longer than reading."""
    before = pa.cpu_count(), pa.io_thread_count()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    yield
    pa.set_cpu_count(before[0])
    pa.set_io_thread_count(before[1])


def check_cleaning(content: bytes) -> None:
    """Clean the content in the way of the load and transform steps, and check the result unless they refuse it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            check_head(content[:HEAD_BYTES])
            clear = clean_in_every_way(content, Path(folder))
        except DataError:
            return
        with clear.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    assert header[:2] == ["id", "target"]
    assert len(set(header)) == len(header)
    for row in rows:
        assert len(row) == len(header)
        assert row[0].strip()
        assert row[1] in {"0", "1"}
        assert all(cell == "" or math.isfinite(float(cell)) for cell in row[2:])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), TABLES.map(lambda text: text.encode("utf-8", "surrogatepass")), NEARLY_GOOD))
@example(b"\r")
@example(b",,a\nb")
@example(b'"')
@example(b'a,b,c\n"' + b"x" * 200_000)
@example(("x" * 200_000 + ",M,1\n").encode())
def test_any_bytes(content: bytes) -> None:
    """Arbitrary bytes give clean data or a DataError, and nothing else."""
    check_cleaning(content)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), min_size=4, max_size=30))
def test_any_floats_come_out_the_same(numbers: list[float | None]) -> None:
    """Every finite float comes out in its place, identical to the last bit."""
    lines = BODY.splitlines()
    body = "".join(f"{line},{'' if n is None else repr(n)}\n" for line, n in zip(lines * 8, numbers, strict=False))
    with tempfile.TemporaryDirectory() as folder:
        clear = clean_in_every_way(body.encode(), Path(folder))
        with clear.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
    if any(n is not None for n in numbers):
        found = [(row[0], row[4] and float(row[4]).hex()) for row in rows]
        sent = [(line.split(",")[0], "" if n is None else n.hex()) for line, n in zip(lines * 8, numbers, strict=False)]
        assert found == list(dict.fromkeys(sent))
    else:
        assert len(rows[0]) == 4


IDS = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    str.strip
)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(
        ["", "NA", "nAn", "NULL", "?", " 1 ", "\t2.5\t", ".5", "5.", "1E3", "+1", "00.10", "1e-400", '"7"']
    ),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(IDS, st.sampled_from("BM"), NUMBERS, NUMBERS), max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_any_table_comes_out_whole(table: list[tuple[str, str, str, str]], end: str) -> None:
    """With any ids and any notation of numbers, each row comes out once and in order."""
    lines = [*BODY.splitlines()]
    for record_id, target, *numbers in table:
        lines.append(",".join(['"' + record_id.replace('"', '""') + '"', target, *numbers]))
    with tempfile.TemporaryDirectory() as folder:
        clear = clean_in_every_way((end.join(lines) + end).encode(), Path(folder))
        with clear.open(encoding="utf-8", newline="") as file:
            found = [(row[0], row[1], *map(value, row[2:])) for row in list(csv.reader(file))[1:]]
    sent = [tuple(next(csv.reader([line]))) for line in BODY.splitlines()] + table
    expected = [(row[0].strip(), "01"[row[1] == "M"], *map(value, row[2:])) for row in sent]
    assert found == list(dict.fromkeys(expected))


def value(text: str) -> str:
    """Return the exact value of a number's text in hexadecimal, or an empty string for a missing value."""
    plain = text.strip().strip('"')
    return "" if plain.lower() in MISSING else float(plain).hex()
