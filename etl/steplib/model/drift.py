"""Whether new rows are like older ones: tests for each feature, and the sample of a file's rows that they compare.

The tests and their limits were chosen so that they flag about one set of new rows in a hundred in which nothing
changed, and a column in a different unit always (Holm, Scandinavian Journal of Statistics 6, 1979).
"""

import csv
from collections.abc import Iterator, Sequence
from io import SEEK_END, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact, ks_2samp

from steplib.table.arrays import share_of_sample
from steplib.table.csvfile import first_rows
from steplib.table.schema import is_test

ALPHA = 0.01
# What is significant in many rows may still be too small to matter.
LEAST_DISTANCE, LEAST_SHARE = 0.2, 0.1
# Up to so many pairs of values, an exact p takes less than a millisecond; beyond, the asymptotic one is precise enough.
EXACT_PAIRS = 100_000
LEAST_VALUES = 2

Array = NDArray[np.float64]
# Of each feature, NaN where missing: the older values, and the new ones.
Columns = dict[str, tuple[Array, Array]]


def find_drift(columns: Columns) -> list[dict[str, Any]]:
    """Return the features whose new values have a different distribution, by the Kolmogorov-Smirnov test."""
    results = {}
    for name, column in columns.items():
        before, new = (values[~np.isnan(values)] for values in column)
        if min(len(before), len(new)) >= LEAST_VALUES:
            method = "exact" if len(before) * len(new) <= EXACT_PAIRS else "asymp"
            results[name] = ks_2samp(before, new, method=method)
    corrected = _holm([result.pvalue for result in results.values()])
    return [
        {"feature": name, "d": float(result.statistic), "p": p}
        for (name, result), p in zip(results.items(), corrected, strict=True)
        if p < ALPHA and result.statistic >= LEAST_DISTANCE
    ]


def find_missing(counts: dict[str, tuple[int, int, int, int]]) -> list[dict[str, Any]]:
    """Return the features whose share of missing values differs.

    `counts`: of each, how many values are missing, and of how many, before and now.
    """
    results = [compare_shares(*of_feature) for of_feature in counts.values()]
    corrected = _holm([result["p"] for result in results])
    return [
        {"feature": name, **result, "p": p}
        for name, result, p in zip(counts, results, corrected, strict=True)
        if p < ALPHA and abs(result["now"] - result["before"]) >= LEAST_SHARE
    ]


def compare_shares(before: int, rows_before: int, now: int, rows_now: int) -> dict[str, float]:
    """Return the shares that two counts are of their rows, and the p of Fisher's exact test."""
    p = fisher_exact([[before, rows_before - before], [now, rows_now - now]]).pvalue
    return {"before": float(before / rows_before), "now": float(now / rows_now), "p": float(p)}


def _holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's method."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.minimum(np.array(p)[order] * np.arange(len(p), 0, -1), 1))
    return [float(value) for value in corrected]


def sample_training_rows(clear: Path, rows: int) -> Array:
    """Return the features of a clear_data.csv's training rows, (rows, features); of a large file those of a sample.

    The sample has the rows at evenly spaced bytes, so that it takes the same time in a file of any size.
    """
    columns = len(first_rows(clear)[0][1])
    share = share_of_sample(rows, columns - 2)
    with clear.open("rb") as file:
        if share < 1:
            found = _rows_at(file, int(share * rows), columns)
        else:
            found = islice(csv.reader(TextIOWrapper(file, "utf-8", newline="")), 1, None)
        kept = (row[2:] for row in found if not is_test(row[0]))
        values = ([float(cell) if cell else np.nan for cell in row] for row in kept)
        return np.fromiter(values, dtype=np.dtype((np.float64, (columns - 2,))))


def _rows_at(file: BinaryIO, number: int, columns: int) -> Iterator[list[str]]:
    """Yield the cells of the rows that follow evenly spaced bytes, except where a field holds line ends."""
    size = file.seek(0, SEEK_END)
    for position in range(number):
        file.seek(position * size // number)
        file.readline()
        line = file.readline()
        # A line cut inside a quoted field has an odd number of quotes.
        cells = next(csv.reader([line.decode()]), []) if line.count(b'"') % 2 == 0 else []
        if len(cells) == columns:
            yield cells
