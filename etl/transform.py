"""Clean the run's raw_data.csv into clear_data.csv.

Reads     raw_data.csv: record id, diagnosis (B or M), numeric features; with a header line or without.
Writes    clear_data.csv: id,target,<features>; target 1 = M, 0 = B; missing values stay empty;
          exact duplicates and features without any value are left out.
Refuses   with 65, naming line and column but never a value: another diagnosis or none, a feature that is no
          finite number, a missing id, rows of unequal length, repeated column names, broken quotes, another
          encoding, one class only, too few rows to hold out a test part with both classes.
"""

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from steplib import step
from steplib.csvfile import Row, read_rows
from steplib.dataset import ID, MISSING, TARGET, TARGET_CODES, Columns, clean_number, find_columns, is_test
from steplib.errors import DataError
from steplib.run import Run
from steplib.settings import Settings

BAD_TARGET = "невалидные данные в target"
TARGET_COLUMN = 2
MOST_FAULTS_TOLD = 10
LONGEST_NAME_TOLD = 60


class Record(NamedTuple):
    """A clean row; a value is the shortest text that reads back to the very same float, or empty."""

    id: str
    target: int
    values: list[str]


class Fault(NamedTuple):
    """What is wrong at one place; lines and columns count from 1, column 0 is the whole line."""

    line: int
    column: int
    found: str


@dataclass
class Summary:
    """What was read and written; `classes` counts rows by (is a test row, target)."""

    columns: Columns
    rows_read: int = 0
    rows: int = 0
    with_values: set[int] = field(default_factory=set)
    classes: Counter[tuple[bool, int]] = field(default_factory=Counter)

    @property
    def duplicates(self) -> int:
        """How many rows stand in the source before as well."""
        return self.rows_read - self.rows

    @property
    def empty(self) -> list[int]:
        """The places of the features without any value."""
        return [i for i in range(len(self.columns.features)) if i not in self.with_values]


def transform(run: Run, _settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Clean raw_data.csv into clear_data.csv."""
    with run.writing("clear_data.csv") as clear:
        summary = clean_file(run.input("raw_data.csv"), clear)
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


def clean_file(raw: Path, clear: Path) -> Summary:
    """Write the clean rows of a file to another. Raises DataError for whatever the step refuses."""
    columns = find_columns(list(islice(read_rows(raw), 2)))
    summary = write_clean(raw, columns, clear, leave_out=[])
    if len(summary.empty) == len(columns.features):
        raise DataError("expected at least one feature with values, found none; check the source")
    if summary.empty:
        # Known only now that all rows are read; so seldom that a second pass costs less than holding the rows.
        write_clean(raw, columns, clear, leave_out=summary.empty)
    check_classes(summary.classes)
    return summary


def write_clean(raw: Path, columns: Columns, clear: Path, leave_out: Collection[int]) -> Summary:
    """Write the clean rows without some features, a row at a time."""
    summary = Summary(columns)
    kept = [i for i in range(len(columns.features)) if i not in leave_out]
    with clear.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([ID, TARGET, *(columns.features[i] for i in kept)])
        for record in unique(records(read_rows(raw), summary)):
            out.writerow([record.id, record.target, *(record.values[i] for i in kept)])
            summary.rows += 1
            summary.classes[is_test(record.id), record.target] += 1
    return summary


def records(rows: Iterable[Row], summary: Summary) -> Iterator[Record]:
    """Yield the rows as records. Raises DataError with the first faults of the file."""
    columns, width = summary.columns, len(summary.columns.names)
    faults: list[Fault] = []
    for line, cells in islice(rows, int(columns.has_header), None):
        summary.rows_read += 1
        if len(cells) == width:
            record, found = parse(line, cells)
            summary.with_values.update(i for i, value in enumerate(record.values) if value)
        else:
            found = [Fault(line, 0, f"{len(cells)} columns, expected {width}")]
        faults += found
        if len(faults) >= MOST_FAULTS_TOLD:
            break
        if not faults:
            yield record
    if faults:
        raise refusal(faults, columns)


def parse(line: int, cells: list[str]) -> tuple[Record, list[Fault]]:
    """Clean one row of the right length, and say what is wrong with it."""
    record_id, target, *features = (cell.strip() for cell in cells)
    faults = [] if record_id else [Fault(line, 1, "no record id")]
    if target not in TARGET_CODES:
        faults.append(Fault(line, 2, "missing" if target.lower() in MISSING else "another value"))
    values = []
    for column, text in enumerate(features, start=3):
        value = "" if text.lower() in MISSING else clean_number(text)
        if value is None:
            faults.append(Fault(line, column, "no finite number"))
        values.append(value or "")
    return Record(record_id, TARGET_CODES.get(target, 0), values), faults


def unique(all_records: Iterable[Record]) -> Iterator[Record]:
    """Leave out what has stood before; a row costs about 100 bytes of memory, whatever its width."""
    seen = set()
    for record in all_records:
        # No cell holds a zero byte, so the joined texts are equal only if all cells are.
        text = "\0".join([record.id, str(record.target), *record.values])
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield record


def refusal(faults: list[Fault], columns: Columns) -> DataError:
    """Make one line of the first faults: places, and what is wrong there, but no value."""
    bad_target = any(fault.column == TARGET_COLUMN for fault in faults)
    told = "; ".join(describe(fault, columns) for fault in faults[:MOST_FAULTS_TOLD])
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
