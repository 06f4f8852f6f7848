"""Rows of a CSV as arrays, a batch at a time, by pyarrow: what takes long a row at a time."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from steplib.batches import Batch
from steplib.csvfile import LONGEST_FIELD
from steplib.dataset import MISSING, TARGET_CODES, is_test

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# As str.strip() takes them; pyarrow has another idea of what is blank.
BLANKS = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
MISSING_SPELLINGS = sorted("".join(letters) for text in MISSING for letters in product(*({c, c.upper()} for c in text)))
# Its quote stands first, so that searching for it is fast; what is before that is looked at from behind it.
WHOLE_QUOTED_FIELD = re.compile(rb'"(?<![^,\n]")[^"]*(?:""[^"]*)*"(?![^,\r\n])')


class RawRows(NamedTuple):
    """Raw rows that nothing is wrong with; features: (rows, features), NaN where missing."""

    ids: list[str]
    targets: list[int]
    features: "NDArray[np.float64]"


class ClearRows(NamedTuple):
    """Rows of clear_data.csv; target: (rows,) of 0 and 1; features: (rows, features), NaN where missing."""

    ids: Sequence[str]
    target: "NDArray[np.int8]"
    features: "NDArray[np.float64]"

    @property
    def is_test_row(self) -> "NDArray[np.bool_]":
        """Which rows are held out, (rows,)."""
        import numpy as np

        return np.array([is_test(record_id) for record_id in self.ids], dtype=bool)


def read_raw(data: bytes, features: int) -> RawRows | None:
    """Read raw rows all at once; None where that could be other than reading them row by row.

    So everything that is refused, and all that is unusual, is left to the row-by-row rules.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import compute

    if not _is_usual(data):
        return None
    try:
        table = _read_csv(data, ["string", "string"] + features * ["double"], MISSING_SPELLINGS)
    except pa.ArrowInvalid:
        return None
    if not table.num_rows:
        return None
    ids, targets = (compute.utf8_trim(table.column(i), characters=BLANKS) for i in (0, 1))
    longest = compute.max(compute.binary_length(table.column(0))).as_py()
    has_ids = compute.min(compute.binary_length(ids)).as_py() > 0
    codes = compute.index_in(targets, pa.array(sorted(TARGET_CODES)))
    values = _to_matrix(table, 2)
    # What is missing is NaN, so no other NaN, and no infinity, may be there.
    missing = sum(table.column(i).null_count for i in range(2, features + 2))
    has_numbers = np.count_nonzero(np.isfinite(values)) + missing == values.size
    if codes.null_count or not has_numbers or not has_ids or longest > LONGEST_FIELD:
        return None
    return RawRows(ids.to_pylist(), codes.to_pylist(), values)


def _is_usual(data: bytes) -> bool:
    """Tell whether pyarrow takes the line ends, quotes, bytes and long fields of these rows as csv does."""
    lone_cr = b"\r" in data and data.count(b"\r") != data.count(b"\r\n")
    odd_quote = b'"' in data and b'"' in WHOLE_QUOTED_FIELD.sub(b"", data)
    # A number that is longer than csv takes covers one of these stretches.
    half = LONGEST_FIELD // 2
    long_number = any(data.find(b",", i, i + half) < 0 for i in range(0, len(data) - half, half))
    return b"\0" not in data and not lone_cr and not odd_quote and not long_number


def features_of(features: "NDArray[np.float64]", leave_out: Collection[int]) -> "tuple[NDArray[np.float64], set[int]]":
    """Return the columns but for some, and which columns have any value."""
    import numpy as np

    with_values = set(np.flatnonzero(~np.isnan(features).all(axis=0)).tolist())
    if leave_out:
        features = np.ascontiguousarray(np.delete(features, sorted(leave_out), axis=1))
    return features, with_values


def read_clear(batch: Batch, features: int) -> ClearRows:
    """Read rows of clear_data.csv, every float as the very same that was written."""
    import numpy as np

    if not batch.goes_row_by_row:
        table = _read_csv(batch.read(), ["string", "int8"] + features * ["double"], [""])
        return ClearRows(table.column(0).to_pylist(), table.column(1).to_numpy(), _to_matrix(table, 2))
    rows = list(csv.reader(io.StringIO(batch.read().decode(), newline=""), strict=True))
    values = [[float(cell) if cell else np.nan for cell in row[2:]] for row in rows]
    target = np.array([int(row[1]) for row in rows], dtype=np.int8)
    return ClearRows([row[0] for row in rows], target, np.array(values, dtype=np.float64).reshape(len(rows), features))


def _read_csv(data: bytes, types: list[str], missing: list[str]) -> "pa.Table":
    """Return a pyarrow table. Raises pyarrow.ArrowInvalid for rows that do not have these columns."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(i) for i in range(len(types))]
    if data.startswith(codecs.BOM_UTF8):
        # Part of an id here, but pyarrow would skip it; not so after a blank line.
        data = b"\n" + data
    return arrow_csv.read_csv(
        pa.BufferReader(data),
        # One thread and one block: the batch is what is worked on side by side.
        arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
        arrow_csv.ParseOptions(newlines_in_values=b'"' in data),
        arrow_csv.ConvertOptions(column_types=dict(zip(names, types, strict=True)), null_values=missing),
    )


def _to_matrix(table: "pa.Table", first: int) -> "NDArray[np.float64]":
    import numpy as np

    matrix = np.empty((table.num_rows, table.num_columns - first))
    for i in range(first, table.num_columns):
        matrix[:, i - first] = table.column(i).to_numpy()
    return matrix
