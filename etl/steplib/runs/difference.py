"""How results that were made again differ from the recorded ones, apart from rounding."""

import csv
import json
import sys
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from steplib.runs import manifest

# A different batch size, processor or version of scikit-learn may round the last digits differently.
TOLERANCE = 1e-9
# These depend on which probabilities are equal, which rounding can change; they follow from the predictions alone.
RANK_METRICS = ("roc_auc", "average_precision")


def of_tables(then: Path, again: Path) -> str | None:
    """Compare two CSVs; see of_rows."""
    with again.open(encoding="utf-8", newline="") as file:
        return of_rows(file, then)


def of_rows(again: Iterable[str], then: Path) -> str | None:
    """Compare lines of a CSV with a file: ids, in the first column, exactly, numbers within the tolerance."""
    columns: list[str] = []
    with then.open(encoding="utf-8", newline="") as file:
        try:
            for number, (a, b) in enumerate(zip_longest(csv.reader(again), csv.reader(file, strict=True))):
                columns = columns or a or []
                if a is None or b is None or len(a) != len(b):
                    return f"a different number of rows or columns in row {number}"
                for name, now, before in zip(columns, a, b, strict=True):
                    if now != before and (name == columns[0] or not are_close(float(now), float(before))):
                        return f"a different {name} in row {number}"
        except (csv.Error, ValueError) as error:
            return f"a file that is not a table of predictions ({type(error).__name__})"
    return None


def of_metric_files(then: Path, again: Path) -> str | None:
    """Compare two evaluation.json files whose predictions have been compared already."""
    now, before = (dict(json.loads(path.read_bytes())) for path in (again, then))
    return of_metrics(_with_ranks(now, before), before)


def _with_ranks(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return metrics with the recorded values of those that rounding can change, in nested tables too."""
    return {
        name: before.get(name)
        if name in RANK_METRICS
        else _with_ranks(value, before[name])
        if isinstance(value, dict) and isinstance(before.get(name), dict)
        else value
        for name, value in now.items()
    }


def of_metrics(again: dict[str, Any], then: dict[str, Any]) -> str | None:
    """Compare metrics with recorded ones: numbers within the tolerance, everything else exactly."""
    for name in [*manifest.METRICS, *then]:
        if name not in then or name not in again or not are_close(again[name], then[name]):
            return f"a different {name}"
    return None


def are_close(again: object, then: object) -> bool:
    """Compare numbers within the tolerance, lists item by item, everything else exactly."""
    if isinstance(again, list) and isinstance(then, list):
        return len(again) == len(then) and all(are_close(*pair) for pair in zip(again, then, strict=True))
    if isinstance(again, dict) and isinstance(then, dict):
        # A later version may add to what was recorded.
        return again.keys() >= then.keys() and all(are_close(again[name], then[name]) for name in then)
    if isinstance(again, float) and isinstance(then, int | float) and abs(then) <= sys.float_info.max:
        return abs(again - then) <= TOLERANCE
    return again == then
