"""What is a CSV and what is not; its rows with the file's own line numbers."""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

from steplib.errors import DataError

# Enough for the first line of a table with tens of thousands of columns.
HEAD_BYTES = 1 << 20
LEAST_COLUMNS = 3

SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"PK\x05\x06": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"{\\rtf": "an RTF document",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
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
        line = first_line.decode()
    except UnicodeDecodeError:
        raise _not_csv("another encoding or binary data") from None
    _check_delimiter(line)


def _check_delimiter(line: str) -> None:
    commas = line.count(",")
    for delimiter, name in OTHER_DELIMITERS.items():
        if line.count(delimiter) > commas:
            raise _not_csv(f"columns separated by {name}")
    if commas + 1 < LEAST_COLUMNS:
        raise _not_csv(f"{commas + 1} column(s) in the first line, of at least {LEAST_COLUMNS}")


def _not_csv(found: str) -> DataError:
    expected = "expected comma-separated UTF-8 text: record id, diagnosis, features"
    return DataError(
        f"not a CSV: {expected}; found {found}. Name the CSV itself in DATA_URL, saved as UTF-8 with commas"
    )


def read_rows(path: Path) -> Iterator[Row]:
    """Yield each row that is not blank with the number of the file's line on which it starts, a row at a time.

    Quoted fields may hold commas, doubled quotes and line ends. Raises DataError with the line for bytes that are
    not UTF-8, zero bytes and broken quotes.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(_lines_of_text(file), strict=True, skipinitialspace=True)
        line = 1
        try:
            for cells in rows:
                if len(cells) > 1 or (cells and cells[0].strip()):
                    yield line, cells
                line = rows.line_num + 1
        except csv.Error:
            msg = (
                f"line {line}: expected each field in whole quotes or none, found a broken or open one, or one too long"
            )
            raise DataError(f"{msg}; correct the line at the source") from None
        except UnicodeDecodeError:
            msg = f"line {_first_undecodable_line(path)}: expected UTF-8, found another encoding"
            raise DataError(f"{msg}; save the file as UTF-8") from None


def _lines_of_text(file: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise DataError(f"line {number}: expected text, found a zero byte; name a CSV in DATA_URL")
        yield line


def _first_undecodable_line(path: Path) -> int:
    # The text reader decodes ahead in blocks, so its own position is too far on.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0
