"""Turning raw rows into rows of clear_data.csv, a batch at a time, and the faults found."""

import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import orjson
from xxhash import xxh3_128_digest

from steplib.errors import PYARROW_NEEDS, DataError, require_address_space
from steplib.table.batches import Batch
from steplib.table.csvfile import read_rows
from steplib.table.faults import MOST_FAULTS, Fault
from steplib.table.schema import MISSING, TARGET_CODES, Columns, is_test, read_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGEST_BYTES = 16
SIDES = 2 * len(TARGET_CODES)


class Rows(NamedTuple):
    """Rows of a batch, None or NaN where a value is missing; `error` is that at which reading stopped.

    `targets` are all 0 if the columns have none.
    """

    ids: list[str]
    targets: list[int]
    values: "list[list[float | None]] | NDArray[np.float64]"
    faults: Sequence[Fault] = ()
    error: str | None = None


class Cleaned(NamedTuple):
    """A batch after cleaning; `lines` go to clear_data.csv, `digests` has 16 bytes for each row read.

    `with_values` are the features that have any value; `classes` counts rows by (is a test row, target), completely
    unless all four occur. Where there are `faults` or an `error`, nothing else counts.
    """

    lines: bytes
    digests: bytes
    rows_read: int
    rows: int
    with_values: set[int]
    classes: Counter[tuple[bool, int]]
    faults: Sequence[Fault] = ()
    error: str | None = None


def clean_batch(task: tuple[Batch, Collection[int]], columns: Columns, leave_out: Collection[int]) -> Cleaned:
    """Clean a batch of raw rows.

    The task's second part holds the positions of rows to drop; `leave_out` those of features.
    """
    batch, drop = task
    raw = read_batch(batch, columns)
    if raw.faults or raw.error:
        return Cleaned(b"", b"", 0, 0, set(), Counter(), raw.faults, raw.error)
    lines = _to_lines(raw, leave_out)
    digests = b"".join(map(xxh3_128_digest, lines))
    dropped = set(drop)
    kept = [line for index, line in enumerate(lines) if index not in dropped] if dropped else lines
    classes = _count_classes(raw, dropped)
    return Cleaned(b"".join(kept), digests, len(lines), len(kept), _with_values(raw.values), classes)


def read_batch(batch: Batch, columns: Columns) -> Rows:
    """Read a batch of rows from outside, with their faults."""
    data = batch.read()
    rows = None if batch.is_of_small_file else _read_as_arrays(data, columns)
    return rows or _read_one_by_one(data, batch.first_line, columns)


def _read_as_arrays(data: bytes, columns: Columns) -> Rows | None:
    require_address_space(PYARROW_NEEDS)
    # Imported here so that small files do not pay for numpy and pyarrow.
    from steplib.table import arrays

    return arrays.read_raw(data, columns)


def _read_one_by_one(data: bytes, first_line: int, columns: Columns) -> Rows:
    """Read rows one by one and collect their faults, up to an error that makes the rest unreadable."""
    ids: list[str] = []
    targets: list[int] = []
    values: list[list[float | None]] = []
    faults: list[Fault] = []
    error = None
    try:
        for line, cells in read_rows(io.BytesIO(data), first_line):
            if len(cells) != len(columns.names):
                faults.append(Fault(line, 0, f"{len(cells)} columns instead of {len(columns.names)}"))
            else:
                record_id, target, numbers = _parse(line, cells, columns, faults)
                ids.append(record_id)
                targets.append(target)
                values.append(numbers)
            if len(faults) >= MOST_FAULTS:
                break
    except DataError as end:
        error = str(end)
    return Rows(ids, targets, values, faults, error)


def _parse(line: int, cells: list[str], columns: Columns, faults: list[Fault]) -> tuple[str, int, list[float | None]]:
    """Clean one row of the right length, and add its faults to `faults`."""
    cells = [cell.strip() for cell in cells]
    record_id, target = cells[columns.id], "" if columns.target is None else cells[columns.target]
    if not record_id:
        faults.append(Fault(line, columns.id + 1, "no record id"))
    if columns.target is not None and target not in TARGET_CODES:
        is_missing = target.lower() in MISSING
        if columns.is_diagnosed or not is_missing:
            faults.append(Fault(line, columns.target + 1, "missing" if is_missing else "neither B nor M"))
    values = []
    for position in columns.features:
        is_missing = (text := cells[position]).lower() in MISSING
        values.append(None if is_missing else read_number(text))
        if values[-1] is None and not is_missing:
            faults.append(Fault(line, position + 1, "not a finite number"))
    return record_id, TARGET_CODES.get(target, 0), values


def _to_lines(raw: Rows, leave_out: Collection[int]) -> list[bytes]:
    """Return the rows as lines of clear_data.csv, without some features."""
    if not raw.ids:
        return []
    values = raw.values
    if leave_out:
        kept = [index for index in range(len(values[0])) if index not in leave_out]
        values = [[row[i] for i in kept] for row in values] if isinstance(values, list) else values.take(kept, axis=1)
    # `[[17.99,null],[1.5,2.0]]`, from a list or an array alike.
    numbers = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].replace(b"null", b"").split(b"],[")
    targets = (b",0,", b",1,")
    return [
        record_id + targets[target] + row + b"\n"
        for record_id, target, row in zip(quote(raw.ids), raw.targets, numbers, strict=True)
    ]


def _with_values(values: "list[list[float | None]] | NDArray[np.float64]") -> set[int]:
    """Return the indices of the features that have any value."""
    if isinstance(values, list):
        return {index for row in values for index, value in enumerate(row) if value is not None}
    return set((values == values).any(axis=0).nonzero()[0].tolist())  # noqa: PLR0124 - NaN alone differs from itself


def quote(texts: Sequence[str]) -> list[bytes]:
    """Return texts as fields of a CSV, quoted where necessary."""
    joined = "\n".join(texts)
    if not re.search('[",\r]', joined) and joined.count("\n") == len(texts) - 1:
        return joined.encode().split(b"\n")
    special = re.compile('[",\r\n]')
    return [('"' + text.replace('"', '""') + '"' if special.search(text) else text).encode() for text in texts]


def _count_classes(raw: Rows, dropped: Collection[int]) -> Counter[tuple[bool, int]]:
    """Count rows by (is a test row, target); stop once all four have been seen, because hashing every id is slow."""
    classes: Counter[tuple[bool, int]] = Counter()
    for index, (record_id, target) in enumerate(zip(raw.ids, raw.targets, strict=True)):
        if index not in dropped:
            classes[is_test(record_id), target] += 1
        if len(classes) == SIDES:
            break
    return classes
