"""What is a CSV and what is not; its rows with the file's own line numbers."""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from steplib.errors import DataError

# Enough for the first line of a table with tens of thousands of columns.
HEAD_BYTES = 1 << 20
LEAST_COLUMNS = 3
# What csv takes in one field, in characters.
LONGEST_FIELD = csv.field_size_limit()

SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"<": "HTML or XML",
    b"{": "JSON",
    b"[": "JSON",
}
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}

Row = tuple[int, list[str]]


def check_head(head: bytes) -> None:
    """Refuse what is no comma-separated UTF-8 text, by its first HEAD_BYTES. Raises DataError, quoting nothing."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise _not_csv("an empty file")
    for signature, kind in SIGNATURES.items():
        if text.startswith(signature):
            raise _not_csv(kind)
    if b"\0" in head:
        raise _not_csv("binary data or UTF-16 text")
    first_line = text.splitlines()[0]
    if len(first_line) >= HEAD_BYTES:
        raise _not_csv("a first line of more than a mebibyte")
    try:
        first_line.decode()
    except UnicodeDecodeError:
        raise _not_csv("another encoding or binary data") from None
    _check_delimiter(text.decode(errors="replace"))


def _check_delimiter(text: str) -> None:
    columns = len(_first_row(text, ","))
    for delimiter, name in OTHER_DELIMITERS.items():
        cells = _first_row(text, delimiter)
        # Decimal commas make columns too, but then B or M stands between the other delimiters.
        if len(cells) >= LEAST_COLUMNS and (columns < LEAST_COLUMNS or cells[1].strip() in {"B", "M"}):
            raise _not_csv(f"columns separated by {name}")
    if columns < LEAST_COLUMNS:
        raise _not_csv(f"{columns} column(s) in the first line, of at least {LEAST_COLUMNS}")


def _first_row(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return []


def _not_csv(found: str) -> DataError:
    expected = "expected comma-separated UTF-8 text: record id, diagnosis, features"
    return DataError(
        f"not a CSV: {expected}; found {found}. Name the CSV itself in DATA_URL, saved as UTF-8 with commas"
    )


def open_csv(path: Path) -> BinaryIO:
    """Open a file for reading bytes, behind its byte order mark."""
    file = path.open("rb")
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def first_rows(path: Path) -> list[Row]:
    """Return the file's first two rows, or fewer if it has no more."""
    with open_csv(path) as file:
        return list(islice(read_rows(file), 2))


def read_rows(lines: Iterable[bytes], first_line: int = 1) -> Iterator[Row]:
    """Yield each row that is not blank with the number of the file's line on which it starts, a row at a time.

    The lines are the file's from `first_line` on. Quoted fields may hold commas, doubled quotes and line ends. Raises
    DataError with the line for bytes that are not UTF-8, zero bytes and broken quotes.
    """
    rows = csv.reader(_lines_of_text(lines, first_line), strict=True, skipinitialspace=True)
    line = first_line
    try:
        for cells in rows:
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield line, cells
            line = first_line + rows.line_num
    except csv.Error:
        msg = f"line {line}: expected each field in whole quotes or none, found a broken or open one, or one too long"
        raise DataError(f"{msg}; correct the line at the source") from None


def _lines_of_text(lines: Iterable[bytes], first_line: int) -> Iterator[str]:
    for number, line in enumerate(lines, start=first_line):
        if b"\0" in line:
            raise DataError(f"line {number}: expected text, found a zero byte; name a CSV in DATA_URL")
        if b"\r" in line.removesuffix(b"\n").removesuffix(b"\r"):
            raise DataError(
                f"line {number}: expected LF or CRLF at its end, found a lone CR; save the file with either"
            )
        try:
            yield line.decode()
        except UnicodeDecodeError:
            msg = f"line {number}: expected UTF-8, found another encoding"
            raise DataError(f"{msg}; save the file as UTF-8") from None
