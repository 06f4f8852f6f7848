"""The data of a run by class: rows, missing values, quantiles."""

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steplib.table.arrays import read_clear
from steplib.table.batches import WHOLE, Batch, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool
from steplib.table.schema import share_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Quantiles of fewer values could reveal those of single patients.
LEAST_ROWS = 20
# Quantiles of this many rows are precise to about a hundredth in rank; those of a rare class are less so.
SAMPLE = 20_000
MOST_FEATURES = 100

Array = NDArray[np.float64]


class OfClass(NamedTuple):
    """The rows of one class; `missing` and `quantiles` have a row for each feature, in the file's order.

    `quantiles`: (features, 5), NaN without a value; empty for a class that is too small. `sampled`: of how many rows.
    """

    rows: int
    missing: NDArray[np.int64]
    quantiles: Array
    sampled: int


class _Batch(NamedTuple):
    rows: NDArray[np.int64]
    missing: NDArray[np.int64]
    sample: tuple[Array, Array]


def summarize(clear: Csv, rows: int, batch_bytes: int = WHOLE, pool: Pool = THIS_THREAD) -> tuple[OfClass, OfClass]:
    """Return what a clear_data.csv has of B and of M; `rows`: how many it has in all.

    Beyond SAMPLE rows, the id decides which rows the quantiles are of, so that neither batches nor order matter.
    """
    (_, names), (first_line, _) = first_rows(clear)
    features = len(names) - 2
    read = partial(_read, features=features, share=SAMPLE / rows)
    batches = list(pool.map(read, split(clear, batch_bytes, first_line)))
    return _of_class(batches, 0), _of_class(batches, 1)


def _read(batch: Batch, features: int, share: float) -> _Batch:
    table = read_clear(batch, features)
    shown = table.features[:, :MOST_FEATURES]
    chosen = np.array([share_of(record_id) < share for record_id in table.ids], dtype=bool)
    masks = [table.target == i for i in (0, 1)]
    return _Batch(
        rows=np.array([mask.sum() for mask in masks]),
        missing=np.array([np.isnan(shown[mask]).sum(axis=0) for mask in masks]),
        sample=(shown[masks[0] & chosen], shown[masks[1] & chosen]),
    )


def _of_class(batches: list[_Batch], number: int) -> OfClass:
    sample = np.concatenate([batch.sample[number] for batch in batches])
    quantiles = np.array([_quantiles(column) for column in sample.T]) if len(sample) >= LEAST_ROWS else np.empty((0, 5))
    return OfClass(
        rows=int(sum(batch.rows[number] for batch in batches)),
        missing=sum((batch.missing[number] for batch in batches), np.zeros(sample.shape[1], dtype=np.int64)),
        quantiles=quantiles,
        sampled=len(sample),
    )


def _quantiles(column: Array) -> Array:
    present = column[~np.isnan(column)]
    return np.quantile(present, QUANTILES) if len(present) >= LEAST_ROWS else np.full(len(QUANTILES), np.nan)
