"""What changed from one clear_data.csv to another: rows, diagnoses, values, and whether the new rows are like the old.

The tests for drift and their limits were chosen so that they flag about one retraining in a hundred in which nothing
changed, and a column in a different unit always (Holm, Scandinavian Journal of Statistics 6, 1979).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact, ks_2samp

from steplib.errors import printable
from steplib.gate.pairs import number
from steplib.table.arrays import ClearRows, read_clear
from steplib.table.batches import WHOLE, Batch, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool
from steplib.table.schema import share_of

ALPHA = 0.01
# What is significant in many rows may still be too small to matter.
LEAST_DISTANCE, LEAST_SHARE = 0.2, 0.1
# From more rows, or more values, of a file only a sample is compared; so many values take 80 MB.
SAMPLE, MOST_VALUES = 20_000, 10_000_000
# Up to so many pairs of values, an exact p takes less than a millisecond; beyond, the asymptotic one is precise enough.
EXACT_PAIRS = 100_000
LEAST_VALUES = 2
MOST_NAMES = 5

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
# What both files have of a feature, NaN where missing: the values of all rows before, and of the new rows.
Columns = dict[str, tuple[Array, Array]]


def compare(before: Csv, now: Csv, rows: int, batch_bytes: int = WHOLE, pool: Pool = THIS_THREAD) -> dict[str, Any]:
    """Return what changed from one clear_data.csv to another, ready for JSON; `rows`: of the larger one.

    The k-th row of an id is paired with the k-th row of that id; rows without a partner are gone or new. The new rows
    are tested against all rows before; each p of a feature is corrected for the number of features. Of large files, the
    ids decide which rows are compared, so that memory is bounded and neither batches nor order matter.
    """
    names_before, names_now = (first_rows(source)[0][1][2:] for source in (before, now))
    share = min(SAMPLE, MOST_VALUES // max(len(names_before), len(names_now))) / rows
    old, new = (_read(source, share, batch_bytes, pool) for source in (before, now))
    paired_old, paired_new = _pair(old.ids, new.ids)
    is_new = np.ones(len(new.ids), dtype=bool)
    is_new[paired_new] = False
    values_before = dict(zip(names_before, old.features.T, strict=True))
    columns, changed = {}, {}
    for name, values in zip(names_now, new.features.T, strict=True):
        if name in values_before:
            columns[name] = (values_before[name], values[is_new])
            changed[name] = _count_changed(values_before[name][paired_old], values[paired_new])
    # A sample may be empty.
    can_test = is_new.any() and len(old.ids) > 0
    prevalence = _compare_shares(old.target == 1, new.target[is_new] == 1) if can_test else None
    return {
        "rows_compared": {"before": len(old.ids), "now": len(new.ids)},
        "ids_gone": len(old.ids) - len(paired_old),
        "ids_new": int(is_new.sum()),
        "changed_diagnoses": int((old.target[paired_old] != new.target[paired_new]).sum()),
        "changed_values": {name: count for name, count in changed.items() if count},
        "columns_gone": [name for name in names_before if name not in columns],
        "columns_new": [name for name in names_now if name not in columns],
        "drift": _find_drift(columns) if can_test else [],
        "missing": _find_missing(columns) if can_test else [],
        "prevalence": prevalence,
        "prevalence_changed": prevalence is not None and prevalence["p"] < ALPHA,
    }


def _read(source: Csv, share: float, batch_bytes: int, pool: Pool) -> ClearRows:
    """Read a share of the rows, chosen by their ids."""
    (_, names), (first_line, _) = first_rows(source)
    read = partial(_read_batch, features=len(names) - 2, share=share)
    ids, targets, features = zip(*pool.map(read, split(source, batch_bytes, first_line)), strict=True)
    return ClearRows(
        [record_id for part in ids for record_id in part], np.concatenate(targets), np.concatenate(features)
    )


def _read_batch(batch: Batch, features: int, share: float) -> ClearRows:
    table = read_clear(batch, features)
    chosen = np.array([share_of(record_id) < share for record_id in table.ids], dtype=bool)
    ids = [record_id for record_id, is_chosen in zip(table.ids, chosen, strict=True) if is_chosen]
    return ClearRows(ids, table.target[chosen], table.features[chosen])


def _pair(before: Sequence[str], now: Sequence[str]) -> tuple[Rows, Rows]:
    """Return the positions of the rows that both have, in the order of `now`."""
    place = {key: position for position, key in enumerate(number(before))}
    pairs = [(place[key], position) for position, key in enumerate(number(now)) if key in place]
    old, new = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return old, new


def _count_changed(before: Array, now: Array) -> int:
    return int(((before != now) & ~(np.isnan(before) & np.isnan(now))).sum())


def _find_drift(columns: Columns) -> list[dict[str, Any]]:
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


def _find_missing(columns: Columns) -> list[dict[str, Any]]:
    """Return the features of whose new values a different share is missing."""
    results = [_compare_shares(np.isnan(before), np.isnan(new)) for before, new in columns.values()]
    corrected = _holm([result["p"] for result in results])
    return [
        {"feature": name, **result, "p": p}
        for name, result, p in zip(columns, results, corrected, strict=True)
        if p < ALPHA and abs(result["now"] - result["before"]) >= LEAST_SHARE
    ]


def _compare_shares(before: NDArray[np.bool_], new: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of True on both sides, and the p of Fisher's exact test."""
    table = [[side.sum(), len(side) - side.sum()] for side in (before, new)]
    return {"before": float(before.mean()), "now": float(new.mean()), "p": float(fisher_exact(table).pvalue)}


def _holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's method."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.minimum(np.array(p)[order] * np.arange(len(p), 0, -1), 1))
    return [float(value) for value in corrected]


def describe(changes: dict[str, Any]) -> list[tuple[bool, str]]:
    """Return lines for the log, each with whether it is a warning; they quote no value of the data."""
    rows, new, values = changes["rows_compared"], changes["ids_new"], changes["changed_values"]
    most = [f"{printable(name)} {count}" for name, count in sorted(values.items(), key=lambda item: -item[1])]
    line = f"since the data before ({rows['before']} and {rows['now']} rows compared): {new} new rows, "
    line += f"{changes['ids_gone']} gone, {changes['changed_diagnoses']} diagnoses and "
    line += f"{sum(values.values())} values changed" + (f" ({_shorten(most)})" if most else "")
    drift = [
        f"{printable(found['feature'])} (distance {found['d']:.2f})"
        for found in sorted(changes["drift"], key=lambda found: -found["d"])
    ]
    missing = [
        f"{printable(found['feature'])} ({found['before']:.3f} before, {found['now']:.3f} now)"
        for found in sorted(changes["missing"], key=lambda found: found["p"])
    ]
    share = changes["prevalence"]
    prevalence = [f"{share['before']:.3f} before, {share['now']:.3f} now"] if changes["prevalence_changed"] else []
    warnings = [
        ("columns gone", [printable(name) for name in changes["columns_gone"]]),
        ("new columns", [printable(name) for name in changes["columns_new"]]),
        (f"the {new} new rows are distributed differently from the rows before", drift),
        (f"the {new} new rows have a different share of missing values", missing),
        (f"the {new} new rows have a different share of M", prevalence),
    ]
    lines = [(changes["changed_diagnoses"] > 0, line)]
    return lines + [(True, f"{text}: {_shorten(found)}; check the source") for text, found in warnings if found]


def _shorten(names: Sequence[str]) -> str:
    more = [f"and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return ", ".join([*names[:MOST_NAMES], *more])
