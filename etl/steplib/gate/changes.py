"""What changed from one clear_data.csv to another: rows, diagnoses, values; whether new rows are like the old."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steplib.errors import printable, shorten
from steplib.gate.pairs import number
from steplib.model.drift import ALPHA, compare_shares, find_drift, find_missing
from steplib.table.arrays import ClearRows, read_sample, share_of_sample
from steplib.table.batches import WHOLE, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def compare(before: Csv, now: Csv, rows: int, batch_bytes: int = WHOLE, pool: Pool = THIS_THREAD) -> dict[str, Any]:
    """Return what changed from one clear_data.csv to another, ready for JSON; `rows`: of the larger one.

    The k-th row of an id is paired with the k-th row of that id; rows without a partner are gone or new. The new rows
    are tested against all rows before; each p of a feature is corrected for the number of features. Of large files, the
    ids decide which rows are compared, so that memory is bounded and neither batches nor order matter.
    """
    names_before, names_now = (first_rows(source)[0][1][2:] for source in (before, now))
    share = share_of_sample(rows, max(len(names_before), len(names_now)))
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
    prevalence = None
    if can_test:
        m_before, m_now = int((old.target == 1).sum()), int((new.target[is_new] == 1).sum())
        prevalence = compare_shares(m_before, len(old.ids), m_now, int(is_new.sum()))
    missing = {
        name: (int(np.isnan(then).sum()), len(then), int(np.isnan(values).sum()), len(values))
        for name, (then, values) in columns.items()
    }
    return {
        "rows_compared": {"before": len(old.ids), "now": len(new.ids)},
        "ids_gone": len(old.ids) - len(paired_old),
        "ids_new": int(is_new.sum()),
        "changed_diagnoses": int((old.target[paired_old] != new.target[paired_new]).sum()),
        "changed_values": {name: count for name, count in changed.items() if count},
        "columns_gone": [name for name in names_before if name not in columns],
        "columns_new": [name for name in names_now if name not in columns],
        "drift": find_drift(columns) if can_test else [],
        "missing": find_missing(missing) if can_test else [],
        "prevalence": prevalence,
        "prevalence_changed": prevalence is not None and prevalence["p"] < ALPHA,
    }


def _read(source: Csv, share: float, batch_bytes: int, pool: Pool) -> ClearRows:
    """Read a share of the rows, chosen by their ids."""
    (_, names), (first_line, _) = first_rows(source)
    read = partial(read_sample, features=len(names) - 2, share=share)
    ids, targets, features = zip(*pool.map(read, split(source, batch_bytes, first_line)), strict=True)
    return ClearRows(
        [record_id for part in ids for record_id in part], np.concatenate(targets), np.concatenate(features)
    )


def _pair(before: Sequence[str], now: Sequence[str]) -> tuple[Rows, Rows]:
    """Return the positions of the rows that both have, in the order of `now`."""
    place = {key: position for position, key in enumerate(number(before))}
    pairs = [(place[key], position) for position, key in enumerate(number(now)) if key in place]
    old, new = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return old, new


def _count_changed(before: Array, now: Array) -> int:
    return int(((before != now) & ~(np.isnan(before) & np.isnan(now))).sum())


def describe(changes: dict[str, Any]) -> list[tuple[bool, str]]:
    """Return lines for the log, each with whether it is a warning; they quote no value of the data."""
    rows, new, values = changes["rows_compared"], changes["ids_new"], changes["changed_values"]
    most = [f"{printable(name)} {count}" for name, count in sorted(values.items(), key=lambda item: -item[1])]
    line = f"since the data before ({rows['before']} and {rows['now']} rows compared): {new} new rows, "
    line += f"{changes['ids_gone']} gone, {changes['changed_diagnoses']} diagnoses and "
    line += f"{sum(values.values())} values changed" + (f" ({shorten(most)})" if most else "")
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
    return lines + [(True, f"{text}: {shorten(found)}; check the source") for text, found in warnings if found]
