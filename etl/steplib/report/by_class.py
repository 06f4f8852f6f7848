"""The data of a run by class: rows, missing values, quantiles."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steplib.table.arrays import hash_rows, read_clear
from steplib.table.batches import WHOLE, Batch, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Quantiles of fewer values, or of fewer ids, could reveal those of single patients.
LEAST_ROWS = 20
# Of each class; quantiles of this many rows are precise to about a hundredth in rank.
SAMPLE = 20_000
MOST_FEATURES = 100

Array = NDArray[np.float64]


class OfClass(NamedTuple):
    """The rows of one class; `missing` and `quantiles` have a row for each feature, in the file's order.

    `quantiles`: (features, 5), NaN where there are too few values or ids; `sampled`: of how many rows they are.
    """

    rows: int
    missing: NDArray[np.int64]
    quantiles: Array
    sampled: int


class _Part(NamedTuple):
    """Rows of one class; `ids`, `values` and `keys`, which are as good as random, are those of a sample."""

    rows: int
    missing: NDArray[np.int64]
    ids: NDArray[np.object_]
    values: Array
    keys: Array


def summarize(
    clear: Csv, expected: tuple[float, float], batch_bytes: int = WHOLE, pool: Pool = THIS_THREAD
) -> tuple[OfClass, OfClass]:
    """Return what a clear_data.csv has of B and of M; `expected`: about how many rows of each.

    The quantiles are those of at most SAMPLE rows of a class. The row alone decides whether it is among them, so that
    neither batches nor order matter.
    """
    (_, names), (first_line, _) = first_rows(clear)
    # A few more than are kept, since the number of rows is not exact.
    read = partial(_read, features=len(names) - 2, shares=[1.1 * SAMPLE / rows for rows in expected])
    benign, malignant = zip(*pool.map(read, split(clear, batch_bytes, first_line)), strict=True)
    return _of_class(benign), _of_class(malignant)


def _read(batch: Batch, features: int, shares: list[float]) -> tuple[_Part, _Part]:
    table = read_clear(batch, features)
    # By all values: the rows of an id would be a sample of few patients where each has many.
    keys = hash_rows(table.features) / 2.0**64
    ids, shown = np.array(table.ids, dtype=object), table.features[:, :MOST_FEATURES]

    def select(target: int) -> _Part:
        mask = table.target == target
        chosen = mask & (keys < shares[target])
        missing = np.isnan(shown[mask]).sum(axis=0)
        return _Part(int(mask.sum()), missing, ids[chosen], shown[chosen], keys[chosen])

    return select(0), select(1)


def _of_class(parts: Sequence[_Part]) -> OfClass:
    """Add up the parts of one class; the sample keeps the SAMPLE rows of the lowest keys."""
    ids, values, keys = (np.concatenate([part[i] for part in parts]) for i in (2, 3, 4))
    kept = np.argsort(keys)[:SAMPLE]
    _, patients = np.unique(ids[kept], return_inverse=True)
    quantiles = np.array([_quantiles(column, patients) for column in values[kept].T])
    rows, missing = sum(part.rows for part in parts), np.sum([part.missing for part in parts], axis=0)
    return OfClass(rows, missing, quantiles, len(kept))


def _quantiles(column: Array, patients: NDArray[np.int64]) -> Array:
    is_present = ~np.isnan(column)
    # At least as many values as ids.
    if len(np.unique(patients[is_present])) < LEAST_ROWS:
        return np.full(len(QUANTILES), np.nan)
    return np.quantile(column[is_present], QUANTILES)
