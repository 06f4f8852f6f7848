"""What is a CSV and what is not; its rows with the file's own line numbers."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from steplib.errors import DataError

# Enough for the first line of a table with tens of thousands of columns.
HEAD_BYTES = 1 << 20
LEAST_COLUMNS = 3
# The csv module's limit for one field, in characters.
LONGEST_FIELD = csv.field_size_limit()

SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"<": "HTML or XML",
}
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}

# A CSV in a file, or its bytes.
Csv = Path | bytes
# The number of the line on which a row starts, counted from 1, and its cells.
Row = tuple[int, list[str]]


def check_head(head: bytes, least_columns: int = LEAST_COLUMNS) -> None:
    """Refuse anything but comma-separated UTF-8 text, by its first HEAD_BYTES. Raises DataError, quoting nothing."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise _not_csv("an empty file")
    for signature, kind in SIGNATURES.items():
        if text.startswith(signature):
            raise _not_csv(kind)
    if text[:1] in {b"{", b"["} and _is_json(text.decode(errors="replace")):
        raise _not_csv("JSON")
    if b"\0" in head:
        raise _not_csv("binary data or UTF-16 text")
    first_line = text.splitlines()[0]
    if len(first_line) >= HEAD_BYTES:
        raise _not_csv("a first line of more than a mebibyte")
    try:
        first_line.decode()
    except UnicodeDecodeError:
        raise _not_csv("a different encoding or binary data") from None
    _check_delimiter(text.decode(errors="replace"), least_columns)


def _is_json(head: str) -> bool:
    """Return whether a head, which may be cut off anywhere, is JSON; a CSV whose first id is in braces is not."""
    # Imported here, because almost no file needs it.
    import json

    try:
        _, end = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(head)
    except json.JSONDecodeError as error:
        # JSON that is cut off ends in an error; in a CSV, other columns follow it.
        return error.msg.startswith("Unterminated string") or "," not in head[error.pos :]
    except RecursionError:
        return True
    return not re.match("[ \t]*[^ \t\r\n]", head[end:])


def _check_delimiter(text: str, least: int) -> None:
    columns = len(_first_row(text, ","))
    for delimiter, name in OTHER_DELIMITERS.items():
        cells = _first_row(text, delimiter)
        # Decimal commas make columns too, but then B or M is between the other delimiters.
        if len(cells) >= least and (columns < least or cells[1].strip() in {"B", "M"}):
            raise _not_csv(f"columns separated by {name}")
    if columns < least:
        raise _not_csv(f"{columns} column(s) in the first line, fewer than {least}")


def _first_row(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return []


def _not_csv(found: str) -> DataError:
    expected = "expected comma-separated UTF-8 text: a record id and features in each line"
    way_out = "name the CSV itself, saved as UTF-8 with commas"
    return DataError(f"not a CSV: {expected}; found {found}; {way_out}")


def open_csv(source: Csv) -> BinaryIO:
    """Open a CSV for reading bytes, after its byte order mark."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def first_rows(source: Csv) -> list[Row]:
    """Return the first two rows, or fewer if there are no more."""
    with open_csv(source) as file:
        return list(islice(read_rows(file), 2))


def read_rows(lines: Iterable[bytes], first_line: int = 1) -> Iterator[Row]:
    """Yield each row that is not blank, one at a time.

    The lines are the file's from `first_line` on. Quoted fields may hold commas, doubled quotes and line ends. Raises
    DataError with the line for bytes that are not UTF-8, zero bytes, and broken or odd quotes.
    """
    text = _Lines(lines, first_line)
    rows = csv.reader(text, strict=True, skipinitialspace=True)
    line = first_line
    try:
        for number, cells in enumerate(rows, start=1):
            if text.row_ends != number:
                # An odd quote inside an unquoted field: a file can be cut into whole rows only if quotes come in pairs.
                raise _broken_quotes(line)
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield line, cells
            line = first_line + rows.line_num
    except csv.Error:
        raise _broken_quotes(line) from None


def _broken_quotes(line: int) -> DataError:
    found = "found a misplaced or unclosed quote, or a field that is too long"
    return DataError(f"line {line}: expected quotes only around whole fields, {found}; correct it at the source")


class _Lines:
    """The lines of a CSV as text; `row_ends` counts those before whose end all quotes come in pairs."""

    def __init__(self, lines: Iterable[bytes], first_line: int) -> None:
        self._lines = enumerate(lines, start=first_line)
        self.row_ends = 0

    def __iter__(self) -> Iterator[str]:
        quotes = 0
        for number, line in self._lines:
            if b"\0" in line:
                raise DataError(f"line {number}: expected text, found a zero byte; name a CSV")
            if b"\r" in line.removesuffix(b"\n").removesuffix(b"\r"):
                msg = f"line {number}: expected lines that end with LF or CRLF, found a lone CR"
                raise DataError(f"{msg}; save the file with LF or CRLF")
            quotes += line.count(b'"')
            self.row_ends += quotes % 2 == 0
            try:
                text = line.decode()
            except UnicodeDecodeError:
                msg = f"line {number}: expected UTF-8, found a different encoding; save the file as UTF-8"
                raise DataError(msg) from None
            yield text
