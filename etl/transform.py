"""Clean the run's raw_data.csv into clear_data.csv.

Reads     raw_data.csv: record id, diagnosis (B or M), numeric features; with a header line or without.
Writes    clear_data.csv: id,target,<features>; target 1 = M, 0 = B; missing values stay empty;
          exact duplicates and features without any value are left out.
Refuses   with 65, naming line and column but never a value: another diagnosis or none, a feature that is no
          finite number, a missing id, rows of unequal length, repeated column names, broken quotes, another
          encoding, one class only, too few rows to hold out a test part with both classes.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib import duplicates, numerics, step
from steplib.batches import Map, split, workers
from steplib.cleaning import DIGEST_BYTES, MOST_FAULTS_TOLD, Cleaned, Fault, clean_batch
from steplib.csvfile import first_rows
from steplib.dataset import ID, TARGET, TARGET_CODES, Columns, find_columns
from steplib.errors import DataError
from steplib.run import Run
from steplib.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BAD_TARGET = "невалидные данные в target"
TARGET_COLUMN = 2
LONGEST_NAME_TOLD = 60


@dataclass
class Summary:
    """What was read and written; `classes` counts rows by (is a test row, target), in whole unless all four occur."""

    columns: Columns
    rows_read: int = 0
    rows_of_batches: list[int] = field(default_factory=list)
    with_values: set[int] = field(default_factory=set)
    classes: Counter[tuple[bool, int]] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return sum(self.rows_of_batches)

    @property
    def duplicates(self) -> int:
        """How many rows stand in the source before as well."""
        return self.rows_read - self.rows

    @property
    def empty(self) -> list[int]:
        """The places of the features without any value."""
        return [i for i in range(len(self.columns.features)) if i not in self.with_values]

    def add(self, cleaned: Cleaned) -> None:
        """Add what came of a batch."""
        self.rows_read += cleaned.rows_read
        self.rows_of_batches.append(len(cleaned.digests) // DIGEST_BYTES)
        self.with_values |= cleaned.with_values
        self.classes += cleaned.classes


def transform(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Clean raw_data.csv into clear_data.csv."""
    raw = run.input("raw_data.csv")
    with run.scratch() as scratch, workers(settings) as over, run.writing("clear_data.csv") as clear:
        summary = clean_file(raw, clear, scratch, settings.batch_bytes, over)
    features = summary.columns.features
    dropped = [features[i] for i in summary.empty]
    log.info("raw_data.csv: %d rows, header: %s", summary.rows_read, "yes" if summary.columns.has_header else "no")
    if summary.duplicates:
        log.warning("%d exact duplicate rows dropped", summary.duplicates)
    if dropped:
        log.warning("features without any value dropped: %s", ", ".join(dropped))
    log.info("clear_data.csv: %d rows, %d features", summary.rows, len(features) - len(dropped))
    return {
        "duplicates_dropped": summary.duplicates,
        "features_dropped": dropped,
        "rows_read": {"raw_data.csv": summary.rows_read},
        "artifacts": {"clear_data.csv": summary.rows},
    }


def clean_file(raw: Path, clear: Path, scratch: Path, batch_bytes: int, over: Map) -> Summary:
    """Write the clean rows of a file to another. Raises DataError for whatever the step refuses.

    The digests of the rows, by which duplicates are found, take 16 bytes a row in the folder `scratch`.
    """
    head = first_rows(raw)
    columns = find_columns(head)
    first_line = head[int(columns.has_header)][0]
    digests = scratch / "digests"

    def write(leave_out: Collection[int], drops: "Iterable[Collection[int] | NDArray[np.int64]]") -> Summary:
        work = partial(clean_batch, features=len(columns.features), leave_out=leave_out)
        tasks = zip(split(raw, batch_bytes, first_line), drops, strict=False)
        return write_clean(over(work, tasks), columns, leave_out, clear, digests)

    nothing: Iterable[Collection[int]] = repeat(())
    summary = write([], nothing)
    if len(summary.empty) == len(columns.features):
        raise DataError("expected at least one feature with values, found none; check the source")
    drops = repeats_by_batch(digests, summary.rows_of_batches)
    if summary.empty or drops:
        # Known only now that all rows are read; so seldom that a second pass costs less than holding the rows.
        summary = write(summary.empty, drops or nothing)
    check_classes(summary.classes)
    return summary


def write_clean(
    results: Iterable[Cleaned], columns: Columns, leave_out: Collection[int], clear: Path, digests: Path
) -> Summary:
    """Write what came of the batches, but for some features, and the digests of the rows."""
    summary = Summary(columns)
    faults: list[Fault] = []
    with clear.open("wb") as out, digests.open("wb") as out_digests:
        out.write(header([ID, TARGET, *(name for i, name in enumerate(columns.features) if i not in leave_out)]))
        for cleaned in results:
            faults += cleaned.faults
            if len(faults) >= MOST_FAULTS_TOLD:
                break
            if cleaned.error:
                raise DataError(cleaned.error)
            out.write(cleaned.lines)
            out_digests.write(cleaned.digests)
            summary.add(cleaned)
    if faults:
        raise refusal(faults[:MOST_FAULTS_TOLD], columns)
    return summary


def header(names: list[str]) -> bytes:
    """Return the header line of clear_data.csv."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue().encode()


def repeats_by_batch(digests: Path, rows_of_batches: list[int]) -> "Iterator[NDArray[np.int64]] | None":
    """Return for each batch which of its rows stand in a batch before as well; nothing if none does."""
    if len(rows_of_batches) <= 1:
        # A batch drops its own repeats.
        return None
    numerics.start_numpy()
    ends = [0, *accumulate(rows_of_batches)]
    repeats = duplicates.later_repeats(digests, ends[-1])
    if not len(repeats):
        return None
    places = repeats.searchsorted(ends).tolist()
    return (repeats[i:j] - start for (i, j), start in zip(pairwise(places), ends, strict=False))


def refusal(faults: list[Fault], columns: Columns) -> DataError:
    """Make one line of the first faults: places, and what is wrong there, but no value."""
    bad_target = any(fault.column == TARGET_COLUMN for fault in faults)
    told = "; ".join(describe(fault, columns) for fault in faults)
    lead = f"{BAD_TARGET}: expected B or M" if bad_target else "invalid data"
    taken = "; line 1 was taken for data, not for names" if faults[0].line == 1 else ""
    rest = f" (the first {MOST_FAULTS_TOLD}; there may be more)" if len(faults) >= MOST_FAULTS_TOLD else ""
    return DataError(f"{lead}; found at {told}{rest}{taken}. Correct these places at the source")


def describe(fault: Fault, columns: Columns) -> str:
    """Name the place and what is wrong there."""
    if not fault.column:
        return f"line {fault.line}: {fault.found}"
    name = columns.names[fault.column - 1][:LONGEST_NAME_TOLD]
    return f"line {fault.line}, column {fault.column} ({name}): {fault.found}"


def check_classes(classes: Counter[tuple[bool, int]]) -> None:
    """Raise DataError unless B and M are both found among the test rows and among the training rows."""
    for name, code in TARGET_CODES.items():
        if classes[False, code] + classes[True, code] == 0:
            raise DataError(f"{BAD_TARGET}: expected both B and M, found not one {name}; check the source")
    if min(classes[part, code] for part in (False, True) for code in TARGET_CODES.values()) == 0:
        counts = ", ".join(
            f"{classes[part, code]} {name} among the {place} rows"
            for part, place in ((False, "training"), (True, "test"))
            for name, code in TARGET_CODES.items()
        )
        raise DataError(f"too few rows: expected B and M on both sides of the split by id, found {counts}; add rows")


if __name__ == "__main__":
    step.main(__file__, __doc__, transform)
