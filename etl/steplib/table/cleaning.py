"""Cleaning a raw table: columns, rows, duplicates, and what is refused."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise, repeat
from typing import BinaryIO

from steplib.errors import NUMPY_NEEDS, DataError, require_address_space
from steplib.table.batches import WHOLE, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.faults import BAD_TARGET, MOST_FAULTS, Fault, refusal
from steplib.table.pool import THIS_THREAD, Pool
from steplib.table.rows import DIGEST_BYTES, Cleaned, clean_batch
from steplib.table.schema import ID, TARGET, TARGET_CODES, Columns, find_columns


@dataclass
class Summary:
    """What was read and written; `classes` counts rows by (is a test row, target), completely unless all four occur."""

    columns: Columns
    rows: int = 0
    batches: list[int] = field(default_factory=list)
    with_values: set[int] = field(default_factory=set)
    classes: Counter[tuple[bool, int]] = field(default_factory=Counter)

    @property
    def rows_read(self) -> int:
        """Number of rows of the source; `batches` has that of each batch."""
        return sum(self.batches)

    @property
    def duplicates(self) -> int:
        """Number of rows dropped as exact duplicates."""
        return self.rows_read - self.rows

    @property
    def empty(self) -> list[int]:
        """The indices of the features without any value."""
        return [i for i in range(len(self.columns.features)) if i not in self.with_values]

    @property
    def dropped(self) -> list[str]:
        """The names of the features without any value."""
        return [self.columns.feature_names[i] for i in self.empty]

    def add(self, cleaned: Cleaned) -> None:
        """Add the counts of a batch."""
        self.rows += cleaned.rows
        self.batches.append(cleaned.rows_read)
        self.with_values |= cleaned.with_values
        self.classes += cleaned.classes


def clean(raw: Csv, clear: BinaryIO, digests: BinaryIO, batch_bytes: int = WHOLE, pool: Pool = THIS_THREAD) -> Summary:
    """Write the clean rows of a table. Raises DataError for whatever transform.py refuses.

    `clear` and `digests` are files, on disk or in memory, open for reading and writing; the digests of the rows, by
    which duplicates are found, take 16 bytes each.
    """
    head = first_rows(raw)
    columns = find_columns(head)
    first_line = head[int(columns.has_header)][0]

    def run_pass(leave_out: Collection[int], drops: Iterable[Collection[int]]) -> Summary:
        work = partial(clean_batch, columns=columns, leave_out=leave_out)
        results = pool.map(work, zip(split(raw, batch_bytes, first_line), drops, strict=False))
        return _write_batches(results, columns, leave_out, clear, digests)

    nothing: Iterable[Collection[int]] = repeat(())
    summary = run_pass([], nothing)
    if len(summary.empty) == len(columns.features):
        raise DataError("expected at least one feature with values, found none; check the source")
    repeats = _repeats_by_batch(digests, summary.batches)
    if summary.empty or repeats:
        # Known only now that all rows have been read; rare enough that a second pass costs less than holding the rows.
        summary = run_pass({*summary.empty}, repeats or nothing)
    check_classes(summary.classes)
    return summary


def _write_batches(
    results: Iterable[Cleaned], columns: Columns, leave_out: Collection[int], clear: BinaryIO, digests: BinaryIO
) -> Summary:
    """Write the batches' lines and digests from the beginning of both files."""
    summary = Summary(columns)
    faults: list[Fault] = []
    for file in (clear, digests):
        file.seek(0)
        file.truncate()
    clear.write(header([ID, TARGET, *(name for i, name in enumerate(columns.feature_names) if i not in leave_out)]))
    for cleaned in results:
        faults += cleaned.faults
        if len(faults) >= MOST_FAULTS:
            break
        if cleaned.error:
            raise DataError(cleaned.error)
        clear.write(cleaned.lines)
        digests.write(cleaned.digests)
        summary.add(cleaned)
    if faults:
        raise refusal(faults, columns)
    return summary


def header(names: list[str]) -> bytes:
    """Return the header line of clear_data.csv."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue().encode()


def _repeats_by_batch(digests: BinaryIO, batches: list[int]) -> Iterator[Collection[int]] | None:
    """Return for each batch the indices of its rows that repeat an earlier row, or None if there are no repeats."""
    if len(batches) == 1:
        # Without numpy, whose import takes longer than cleaning a small file.
        digests.seek(0)
        content = digests.read()
        starts = range(0, len(content), DIGEST_BYTES)
        first = {content[start : start + DIGEST_BYTES]: start // DIGEST_BYTES for start in reversed(starts)}
        repeated = {*range(len(starts))} - {*first.values()}
        return iter([repeated]) if repeated else None
    require_address_space(NUMPY_NEEDS)
    from steplib.table.duplicates import find_repeats

    ends = [0, *accumulate(batches)]
    repeats = find_repeats(digests, ends[-1])
    if not len(repeats):
        return None
    cuts = repeats.searchsorted(ends).tolist()
    return (repeats[i:j] - start for (i, j), start in zip(pairwise(cuts), ends, strict=False))


def check_classes(classes: Counter[tuple[bool, int]]) -> None:
    """Raise DataError unless both B and M are found among the test rows and among the training rows."""
    for name, code in TARGET_CODES.items():
        if classes[False, code] + classes[True, code] == 0:
            raise DataError(f"{BAD_TARGET}: expected both B and M, found no {name}; check the source")
    if min(classes[part, code] for part in (False, True) for code in TARGET_CODES.values()) == 0:
        counts = ", ".join(
            f"{classes[part, code]} {name} among the {place} rows"
            for part, place in ((False, "training"), (True, "test"))
            for name, code in TARGET_CODES.items()
        )
        raise DataError(f"too few rows: expected B and M on both sides of the split by id, found {counts}; add rows")
