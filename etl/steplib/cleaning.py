"""Raw rows to the rows of clear_data.csv, a batch at a time, and what is wrong with them."""

import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import orjson
from xxhash import xxh3_128_digest

from steplib import vectors
from steplib.csvfile import read_rows
from steplib.dataset import MISSING, TARGET_CODES, is_test, read_number
from steplib.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from steplib.batches import Batch

MOST_FAULTS_TOLD = 10
DIGEST_BYTES = 16
SIDES = 2 * len(TARGET_CODES)


class Fault(NamedTuple):
    """What is wrong at one place; lines and columns count from 1, column 0 is the whole line."""

    line: int
    column: int
    found: str


class Rows(NamedTuple):
    """Clean rows: ids, targets, and their features in the form of clear_data.csv: `17.99,,0.1`."""

    ids: Sequence[str]
    targets: Sequence[int]
    features: Sequence[bytes]


class Cleaned(NamedTuple):
    """What came of a batch.

    `lines` go to clear_data.csv, `digests` has 16 bytes for each; `with_values` are the features that have any.
    `classes` counts rows by (is a test row, target), in whole unless each of the four occurs.
    Where `faults` or an `error`, which ends the file, were found, nothing else counts.
    """

    lines: bytes
    digests: bytes
    rows_read: int
    with_values: set[int]
    classes: Counter[tuple[bool, int]]
    faults: list[Fault]
    error: str | None = None


def clean_batch(
    task: "tuple[Batch, Collection[int] | NDArray[np.int64]]", features: int, leave_out: Collection[int]
) -> Cleaned:
    """Clean a batch of raw rows; the task's second part says which of the rows that would be written to drop."""
    batch, drop = task
    data = batch.read()
    faults: list[Fault] = []
    error = None
    fast = None if batch.goes_row_by_row else vectors.read_raw(data, features)
    if fast:
        rows, with_values = _format(fast, leave_out)
    else:
        values, error = _read(data, batch.first_line, features, faults)
        rows, with_values = _format_rows(*values, leave_out)
    if faults or error:
        return Cleaned(b"", b"", 0, set(), Counter(), faults, error)
    lines = to_lines(rows)
    digests = [xxh3_128_digest(line) for line in lines]
    rows_read = len(lines)
    if len(set(digests)) < rows_read or len(drop):
        kept = _kept(digests, drop)
        rows = Rows(*(tuple(compress(column, kept)) for column in rows))  # type: ignore[arg-type]  # mypy joins the types
        lines, digests = list(compress(lines, kept)), list(compress(digests, kept))
    return Cleaned(b"".join(lines), b"".join(digests), rows_read, with_values, count_classes(rows), [])


def _read(
    data: bytes, first_line: int, features: int, faults: list[Fault]
) -> tuple[tuple[list[str], list[int], list[list[float | None]]], str | None]:
    """Read the rows one by one, with all that is wrong with them, up to what makes the rest unreadable."""
    ids: list[str] = []
    targets: list[int] = []
    values: list[list[float | None]] = []
    try:
        for line, cells in read_rows(io.BytesIO(data), first_line):
            if len(cells) != features + 2:
                faults.append(Fault(line, 0, f"{len(cells)} columns, expected {features + 2}"))
            else:
                record_id, target, numbers = parse(line, cells, faults)
                ids.append(record_id)
                targets.append(target)
                values.append(numbers)
            if len(faults) >= MOST_FAULTS_TOLD:
                break
    except DataError as error:
        return (ids, targets, values), str(error)
    return (ids, targets, values), None


def parse(line: int, cells: list[str], faults: list[Fault]) -> tuple[str, int, list[float | None]]:
    """Clean one row of the right length, and add what is wrong with it to the faults."""
    record_id, target, *texts = (cell.strip() for cell in cells)
    if not record_id:
        faults.append(Fault(line, 1, "no record id"))
    if target not in TARGET_CODES:
        faults.append(Fault(line, 2, "missing" if target.lower() in MISSING else "another value"))
    values = [None if text.lower() in MISSING else read_number(text) for text in texts]
    for column, (text, value) in enumerate(zip(texts, values, strict=True), start=3):
        if value is None and text.lower() not in MISSING:
            faults.append(Fault(line, column, "no finite number"))
    return record_id, TARGET_CODES.get(target, 0), values


def to_lines(rows: Rows) -> list[bytes]:
    """Return the rows as lines of clear_data.csv."""
    targets = (b",0,", b",1,")
    return [
        record_id + targets[target] + features + b"\n"
        for record_id, target, features in zip(quote(rows.ids), rows.targets, rows.features, strict=True)
    ]


def quote(texts: Sequence[str]) -> list[bytes]:
    """Return texts as fields of a CSV, quoted if they have to be."""
    joined = "\n".join(texts)
    if not re.search('[",\r]', joined) and joined.count("\n") == len(texts) - 1:
        return joined.encode().split(b"\n")
    special = re.compile('[",\r\n]')
    return [('"' + text.replace('"', '""') + '"' if special.search(text) else text).encode() for text in texts]


def _format(table: "vectors.RawRows", leave_out: Collection[int]) -> tuple[Rows, set[int]]:
    features, with_values = vectors.features_of(table.features, leave_out)
    text = orjson.dumps(features, option=orjson.OPT_SERIALIZE_NUMPY)
    return Rows(table.ids, table.targets, text[2:-2].replace(b"null", b"").split(b"],[")), with_values


def _format_rows(
    ids: list[str], targets: list[int], values: list[list[float | None]], leave_out: Collection[int]
) -> tuple[Rows, set[int]]:
    with_values = {i for row in values for i, value in enumerate(row) if value is not None}
    kept = [i not in leave_out for i in range(len(values[0]))] if values else []
    # The same writer of numbers as for a whole array, so that both give the same bytes.
    texts = [orjson.dumps(list(compress(row, kept)))[1:-1].replace(b"null", b"") for row in values]
    return Rows(ids, targets, texts), with_values


def _kept(digests: list[bytes], drop: "Collection[int] | NDArray[np.int64]") -> list[bool]:
    """Tell which rows stand here for the first time, but for those of them, by their place, that are to be dropped."""
    seen: set[bytes] = set()
    kept = [not (digest in seen or seen.add(digest)) for digest in digests]  # type: ignore[func-returns-value]
    places = [i for i, is_kept in enumerate(kept) if is_kept]
    for place in drop:
        kept[places[place]] = False
    return kept


def count_classes(rows: Rows) -> Counter[tuple[bool, int]]:
    """Count rows by (is a test row, target), until each of the four has occurred: hashing every id takes its time."""
    classes: Counter[tuple[bool, int]] = Counter()
    for record_id, target in zip(rows.ids, rows.targets, strict=True):
        classes[is_test(record_id), target] += 1
        if len(classes) == SIDES:
            break
    return classes
