"""Whatever the bytes, cleaning ends with clean data or a refusal."""

import csv
import math
import tempfile
from pathlib import Path

import transform
from hypothesis import example, given, settings
from hypothesis import strategies as st
from steplib.csvfile import HEAD_BYTES, check_head
from steplib.errors import DataError
from test_transform import BODY, HEAD

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


def check_cleaning(content: bytes) -> None:
    """Clean the content as the load and transform steps do, and check what comes out if they take it."""
    with tempfile.TemporaryDirectory() as folder:
        raw, clear = Path(folder) / "raw.csv", Path(folder) / "clear.csv"
        raw.write_bytes(content)
        try:
            check_head(content[:HEAD_BYTES])
            summary = transform.clean_file(raw, clear)
        except DataError:
            return
        with clear.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    assert len(rows) == summary.rows
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
    """No bytes make anything but clean data or a DataError."""
    check_cleaning(content)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), min_size=4, max_size=30))
def test_any_floats_come_out_the_same(numbers: list[float | None]) -> None:
    """Every finite float that goes in comes out, to the last bit, in its place."""
    lines = BODY.splitlines()
    body = "".join(f"{line},{'' if n is None else repr(n)}\n" for line, n in zip(lines * 8, numbers, strict=False))
    with tempfile.TemporaryDirectory() as folder:
        raw, clear = Path(folder) / "raw.csv", Path(folder) / "clear.csv"
        raw.write_text(body, encoding="utf-8")
        summary = transform.clean_file(raw, clear)
        with clear.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
    if any(n is not None for n in numbers):
        found = [(row[0], row[4] and float(row[4]).hex()) for row in rows]
        sent = [(line.split(",")[0], "" if n is None else n.hex()) for line, n in zip(lines * 8, numbers, strict=False)]
        assert found == list(dict.fromkeys(sent))
    else:
        assert summary.empty == [2]
