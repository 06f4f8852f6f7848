"""A CSV as batches of whole rows."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from steplib.table.csvfile import LONGEST_FIELD, Csv, open_csv

# Below this, importing pyarrow costs more than it saves.
SMALL_FILE_BYTES = 1 << 20
# As a size of batches: the whole table at once, as for file.read().
WHOLE = -1
# A quoted field that is still open after so many bytes has more characters than csv accepts: it is broken.
LONGEST_FIELD_BYTES = 4 * LONGEST_FIELD


class Batch(NamedTuple):
    """Some whole rows, by their place in bytes and the number of their first line, counted from 1."""

    source: Csv
    start: int
    length: int
    first_line: int

    def read(self) -> bytes:
        """Return the rows' bytes."""
        if isinstance(self.source, bytes):
            return self.source[self.start : self.start + self.length]
        with self.source.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)

    @property
    def is_of_small_file(self) -> bool:
        """Whether the file, not only the batch, is too small for pyarrow to pay off."""
        size = len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size
        return size < SMALL_FILE_BYTES


def split(source: Csv, size: int, first_line: int = 1) -> Iterator[Batch]:
    """Yield the rows from line `first_line` on, in batches of whole rows of about `size` bytes."""
    with open_csv(source) as file:
        for _ in range(first_line - 1):
            file.readline()
        start, line = file.tell(), first_line
        while rows := _read_rows(file, size):
            yield Batch(source, start, len(rows), line)
            start, line = start + len(rows), line + rows.count(b"\n")


def _read_rows(file: BinaryIO, size: int) -> bytes:
    """Read `size` bytes and on to the end of the current row.

    A line end is the end of a row if the quotes before it come in pairs; csvfile.read_rows refuses files in which a row
    has an odd number of them.
    """
    rows = [file.read(size) + file.readline()]
    is_open, more = rows[0].count(b'"') % 2 == 1, 0
    while is_open and more < LONGEST_FIELD_BYTES and (line := file.readline()):
        rows.append(line)
        more += len(line)
        is_open = line.count(b'"') % 2 == 0
    return b"".join(rows)
