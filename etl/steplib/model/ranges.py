"""The range of each feature's values among the training rows, by which new cases are compared with them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steplib.model.training import EXTRA_COLUMNS, Array, TrainingRows

# Not the extremes, which are values of single patients.
LOW, HIGH = 0.005, 0.995
# Percentiles of fewer values are too close to the extremes.
LEAST_VALUES = 20
# The percentiles of more rows are those of a sample, precise to about a thousandth in rank.
SAMPLE = 20_000

# Of a feature: its LOW and HIGH percentile, None if there are too few values, and the share of missing values.
Range = dict[str, float | None]


def describe(rows: TrainingRows) -> dict[str, Any]:
    """Return the number of training rows, and the range of each feature, for the manifest.

    Positions alone decide which rows are sampled, so batches do not matter.
    """
    chosen = np.arange(rows.number)
    if rows.number > SAMPLE:
        chosen = np.unique(np.random.default_rng(0).integers(rows.number, size=SAMPLE))
    sample = np.concatenate(list(_take(rows, chosen)))
    missing = 1 - rows.moments.counts / rows.number
    columns = zip(rows.features, sample.T, missing.tolist(), strict=True)
    ranges = {name: {**_percentiles(values), "missing": share} for name, values, share in columns}
    return {"train_rows": rows.number, "features": ranges}


def _take(rows: TrainingRows, chosen: NDArray[np.int64]) -> Iterator[Array]:
    """Yield the features of the rows at these positions."""
    start = 0
    for part in rows.parts:
        first, end = np.searchsorted(chosen, [start, start + part.rows])
        yield part.load()[chosen[first:end] - start, :-EXTRA_COLUMNS]
        start += part.rows


def _percentiles(values: Array) -> Range:
    found = values[~np.isnan(values)]
    if len(found) < LEAST_VALUES:
        return {"low": None, "high": None}
    low, high = np.quantile(found, [LOW, HIGH])
    return {"low": float(low), "high": float(high)}
