"""Rows of a CSV as arrays, a batch at a time, by pyarrow. They give the same rows as rows.py."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from steplib.errors import PYARROW_NEEDS, require_address_space
from steplib.table.batches import Batch
from steplib.table.csvfile import LONGEST_FIELD
from steplib.table.rows import Rows
from steplib.table.schema import MISSING, TARGET_CODES, Columns, is_test

if TYPE_CHECKING:
    import pyarrow as pa

# What str.strip() removes; pyarrow has a different idea of what is blank.
BLANKS = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
MISSING_SPELLINGS = sorted("".join(letters) for text in MISSING for letters in product(*({c, c.upper()} for c in text)))
# Multiples of this, modulo 2^64, are spread evenly: those below a limit choose a sample of that share.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Of larger tables a sample is compared; this many values take 80 MB.
SAMPLE, MOST_VALUES = 20_000, 10_000_000
# The pattern begins with its quote, so that searching is fast; the character before it is checked by a lookbehind.
WHOLE_QUOTED_FIELD = re.compile(rb'"(?<![^,\n]")[^"]*(?:""[^"]*)*"(?![^,\r\n])')


class ClearRows(NamedTuple):
    """Rows of clear_data.csv; target: (rows,) of 0 and 1; features: (rows, features), NaN where missing."""

    ids: Sequence[str]
    target: NDArray[np.int8]
    features: NDArray[np.float64]

    def find_test_rows(self) -> NDArray[np.bool_]:
        """Return which rows are held out, (rows,), by hashing every id."""
        return np.array([is_test(record_id) for record_id in self.ids], dtype=bool)


def read_raw(data: bytes, columns: Columns) -> Rows | None:
    """Read raw rows all at once, or return None where reading them one by one might give a different result.

    So whatever is refused, and whatever is unusual, is left to the rules for single rows.
    """
    import pyarrow as pa
    from pyarrow import compute

    texts = [columns.id] if columns.target is None else [columns.id, columns.target]
    types = dict.fromkeys(texts, "string") | dict.fromkeys(columns.features, "double")
    if not _arrow_agrees_with_csv(data) or (len(types) < len(columns.names) and not _is_utf8(data)):
        return None
    try:
        table = _read_csv(data, len(columns.names), types, MISSING_SPELLINGS)
    except pa.ArrowInvalid:
        return None
    if not table.num_rows:
        return None
    ids, *targets = (compute.utf8_trim(table.column(i), characters=BLANKS) for i in range(len(texts)))
    longest = compute.max(compute.binary_length(table.column(0))).as_py()
    has_ids = compute.min(compute.binary_length(ids)).as_py() > 0
    known = pa.array(sorted(TARGET_CODES) + ([] if columns.is_diagnosed else MISSING_SPELLINGS))
    codes = [compute.index_in(column, known) for column in targets]
    values = _to_matrix(table, len(texts))
    # Missing values are NaN here, so there may be no other NaN, and no infinity.
    missing = sum(column.null_count for column in table.columns[len(texts) :])
    has_numbers = np.count_nonzero(np.isfinite(values)) + missing == values.size
    if any(column.null_count for column in codes) or not has_numbers or not has_ids or longest > LONGEST_FIELD:
        return None
    return Rows(ids.to_pylist(), codes[0].to_pylist() if codes else [0] * len(values), values)


def _is_utf8(data: bytes) -> bool:
    """Return whether csv could read the columns that pyarrow skips."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _arrow_agrees_with_csv(data: bytes) -> bool:
    """Return whether pyarrow reads the line ends, quotes, bytes and long fields of these rows as csv does."""
    lone_cr = b"\r" in data and data.count(b"\r") != data.count(b"\r\n")
    odd_quote = b'"' in data and b'"' in WHOLE_QUOTED_FIELD.sub(b"", data)
    # A number that is longer than csv accepts covers one of these stretches.
    half = LONGEST_FIELD // 2
    long_number = any(data.find(b",", i, i + half) < 0 for i in range(0, len(data) - half, half))
    return b"\0" not in data and not lone_cr and not odd_quote and not long_number


def read_clear(batch: Batch, features: int) -> ClearRows:
    """Read rows of clear_data.csv, every float exactly as it was written."""
    if not batch.is_of_small_file:
        require_address_space(PYARROW_NEEDS)
        types = {0: "string", 1: "int8"} | dict.fromkeys(range(2, features + 2), "double")
        table = _read_csv(batch.read(), features + 2, types, [""])
        return ClearRows(table.column(0).to_pylist(), table.column(1).to_numpy(), _to_matrix(table, 2))
    rows = list(csv.reader(io.StringIO(batch.read().decode(), newline=""), strict=True))
    values = [[float(cell) if cell else np.nan for cell in row[2:]] for row in rows]
    target = np.array([int(row[1]) for row in rows], dtype=np.int8)
    return ClearRows([row[0] for row in rows], target, np.array(values, dtype=np.float64).reshape(len(rows), features))


def share_of_sample(rows: int, features: int) -> float:
    """Return the share of the rows of a table that a comparison uses; 1 or more: all."""
    return min(SAMPLE, MOST_VALUES // features) / rows


def share_of(record_id: bytes) -> float:
    """Return a number from 0 to 1 that is as good as random and depends on the id alone, to choose a sample by."""
    return xxh3_64_intdigest(record_id) / (1 << 64)


def read_sample(batch: Batch, features: int, share: float) -> ClearRows:
    """Read a share of the rows of clear_data.csv, chosen by their ids; only these are parsed, unless ids are quoted."""
    data = batch.read()
    if share < 1 and b'"' not in data:
        chosen = [line for line in data.splitlines(keepends=True) if share_of(line[: line.index(b",")]) < share]
        batch = Batch(b"".join(chosen), 0, sum(map(len, chosen)), 1)
    table = read_clear(batch, features)
    mask = np.array([share_of(record_id.encode()) < share for record_id in table.ids], dtype=bool)
    ids = [record_id for record_id, is_chosen in zip(table.ids, mask, strict=True) if is_chosen]
    return ClearRows(ids, table.target[mask], table.features[mask])


def hash_rows(features: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return a hash of each row's values, (rows,), as good as random, to choose a sample by."""
    bits = np.ascontiguousarray(features).view(np.uint64)
    # Small whole numbers have their bits at the top, which a product would lose.
    mixed = bits >> np.uint64(32)
    mixed ^= bits
    mixed *= _factors(features.shape[1])
    found: NDArray[np.uint64] = mixed.sum(axis=1, dtype=np.uint64)
    found ^= found >> np.uint64(32)
    return found * GOLDEN


@cache
def _factors(features: int) -> NDArray[np.uint64]:
    """Return random odd numbers, always the same ones."""
    return np.random.default_rng(0).integers(1 << 64, size=features, dtype=np.uint64, endpoint=False) | np.uint64(1)


def _read_csv(data: bytes, columns: int, types: dict[int, str], missing: list[str]) -> "pa.Table":
    """Return the columns at some positions, in the order of `types`, as a pyarrow table.

    Raises pyarrow.ArrowInvalid for rows that do not have this number of columns, or values of these types.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(position) for position in range(columns)]
    of_names = {str(position): kind for position, kind in types.items()}
    if data.startswith(codecs.BOM_UTF8):
        # Here it is part of an id, but pyarrow would skip it, except after a blank line.
        data = b"\n" + data
    return arrow_csv.read_csv(
        pa.BufferReader(data),
        # One thread and one block: the batches are what is processed in parallel.
        arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
        arrow_csv.ParseOptions(newlines_in_values=b'"' in data),
        arrow_csv.ConvertOptions(column_types=of_names, include_columns=[*of_names], null_values=missing),
    )


def _to_matrix(table: "pa.Table", first: int) -> NDArray[np.float64]:
    """Return the columns from `first` on as an array, (rows, columns), NaN where missing."""
    (rows,) = table.select(range(first, table.num_columns)).combine_chunks().to_batches()
    matrix: NDArray[np.float64] = rows.to_tensor(null_to_nan=True).to_numpy()
    return matrix
