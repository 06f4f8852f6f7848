"""The M that the model missed."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline

from steplib.errors import printable
from steplib.model.scoring import Measured
from steplib.model.threshold import is_called, split_threshold

# The ends of the ranges in which the missed are counted.
ENDS = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
MOST_IDS, LONGEST_TEXT = 200, 60


class Missed(NamedTuple):
    """How many missed M have a probability from `low` to `high`."""

    rows: int
    low: float
    high: float


def count(measured: Measured) -> list[Missed]:
    """Count the missed M by probability; none where the classifier does not decide by it.

    Otherwise they are the M with the lowest, as many as the metrics count.
    """
    threshold = measured.metrics["threshold"]
    if threshold is None:
        return []
    cases = (measured.metrics["cross_validated"] or {"all_rows": measured.metrics})["all_rows"]
    # The end is part of a range, because a missed M may be at 0.5, but not above.
    ranges = np.searchsorted(ENDS[1:], measured.malignant[: cases["false_negatives"]])
    counts = np.bincount(ranges, minlength=len(ENDS) - 1).tolist()
    rows = zip(counts, ENDS[:-1], ENDS[1:], strict=True)
    return [Missed(number, low, min(high, threshold)) for number, low, high in rows if number]


def read_ids(run: Path, model: Pipeline, metrics: Mapping[str, Any]) -> list[str]:
    """Return the ids of the missed M in a run's CSVs, those of the lowest probability first, at most MOST_IDS."""
    _, threshold = split_threshold(model)
    names = ["predictions.csv", *(["cross_validation.csv"] if metrics["cross_validated"] else [])]
    found = []
    for name in names:
        with (run / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                probability = float(row["probability"])
                called = row["y_pred"] == "1" if "y_pred" in row else bool(is_called(np.array(probability), threshold))
                if row["y_true"] == "1" and not called:
                    found.append((probability, row["id"]))
    return [shorten(record_id) for _, record_id in sorted(found)[:MOST_IDS]]


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text from the data in one line and not too long; its end stays, because names may begin alike."""
    text, end = printable(text), longest // 3
    return text if len(text) <= longest else f"{text[: longest - end - 1]}…{text[-end:]}"
