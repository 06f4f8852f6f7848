"""The metrics of predictions: of the test rows, and of the training rows each judged out of fold."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn import metrics

from steplib.errors import DataError
from steplib.model.threshold import is_called

CONFIDENCE = 0.95
RANK_METRICS = ("roc_auc", "average_precision")
TARGETS = {"0": 0, "1": 1}

Array = NDArray[np.float64]


class Scores(NamedTuple):
    """What the metrics need: the test rows' probabilities of M, by their true class, and counts.

    `confusion` counts test rows by (target, prediction); `train_classes` all others by target. Added up over batches.
    """

    benign: Array
    malignant: Array
    confusion: NDArray[np.int64]
    squared_error: float
    train_classes: NDArray[np.int64]


def add_up(parts: list[Scores]) -> Scores:
    """Return the scores of all parts, and empty the list to free their memory."""
    benign, malignant, confusion, squared_error, train_classes = zip(*parts, strict=True)
    parts.clear()
    scores = np.concatenate(benign), np.concatenate(malignant)
    return Scores(*scores, sum(confusion), sum(squared_error), sum(train_classes))


def score(scores: Scores) -> dict[str, Any]:
    """Return the metrics of the predictions, the four of the contract first.

    The baseline predicts the majority of the training rows for every test row.
    """
    (tn, fp), (fn, tp) = scores.confusion.tolist()
    rows = tn + fp + fn + tp
    # These metrics depend only on how often each of the four cases occurs.
    cases: dict[str, Any] = {"y_true": [0, 0, 1, 1], "y_pred": [0, 1, 0, 1], "sample_weight": [tn, fp, fn, tp]}
    area, average_precision = rank(scores.benign, scores.malignant)
    majority = int(scores.train_classes.argmax())
    return {
        "accuracy": metrics.accuracy_score(**cases),
        # Precision is undefined for a model that predicts no M; it is reported as 0.
        "precision": metrics.precision_score(**cases, zero_division=0),
        # Out of fold, there may be no M if all of them are in a fold whose model could not be fitted.
        "recall": metrics.recall_score(**cases) if tp + fn else None,
        "f1_score": metrics.f1_score(**cases, zero_division=0),
        "roc_auc": area,
        "average_precision": average_precision,
        "brier_score": scores.squared_error / rows,
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        "accuracy_interval": wilson_interval(tp + tn, rows),
        "recall_interval": wilson_interval(tp, tp + fn) if tp + fn else None,
        "baseline_accuracy": int(scores.confusion[majority].sum()) / rows,
        "train_rows": int(scores.train_classes.sum()),
        "test_rows": rows,
    }


def of_rows(found: dict[str, Any]) -> dict[str, Any]:
    """Return metrics with the number of rows that they are for, instead of those of the split."""
    rows = found["test_rows"]
    return {name: value for name, value in found.items() if name not in {"train_rows", "test_rows"}} | {"rows": rows}


def rank(benign: Array, malignant: Array) -> tuple[float | None, float | None]:
    """Return the area under the ROC curve and the average precision; the arrays are sorted in place.

    Both are None if there are no rows of one class.

    The area is the share of pairs of a B and an M in which the M has the higher probability, ties counting half (Mann
    and Whitney 1947). The average precision is the mean, over each M, of the share of M among the rows that are at
    least as probable. roc_auc_score and average_precision_score give the same, in twelve times the memory.
    """
    benign.sort()
    malignant.sort()
    if not len(benign) or not len(malignant):
        return None, None
    b_below, b_up_to = (np.searchsorted(benign, malignant, side) for side in ("left", "right"))
    area = float((b_below + b_up_to).sum()) / 2 / len(benign) / len(malignant)
    m_from = len(malignant) - np.searchsorted(malignant, malignant, "left")
    precision = m_from / (m_from + len(benign) - b_below)
    return area, float(precision.mean())


def rank_again(found: dict[str, Any], predictions: Path, validation: Path | None) -> dict[str, Any]:
    """Return metrics with those that depend on the order of the probabilities alone taken from a predictions.csv."""

    def read(target: str) -> Array:
        with predictions.open(encoding="utf-8", newline="") as file:
            rows = (row for row in csv.DictReader(file) if row["y_true"] == target)
            return np.fromiter((float(row["probability"]) for row in rows), dtype=np.float64)

    benign, malignant = read("0"), read("1")
    found |= dict(zip(RANK_METRICS, rank(benign, malignant), strict=True))
    if validation:
        y_true, probability = read_validation(validation)
        both = (np.append(held_out, probability[y_true == i]) for i, held_out in enumerate((benign, malignant)))
        found["cross_validated"]["all_rows"] |= dict(zip(RANK_METRICS, rank(*both), strict=True))
    return found


def wilson_interval(successes: int, trials: int) -> list[float]:
    """Return the 95 % interval of a proportion (Wilson 1927): its lower and upper end."""
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


def read_scores(validation: Path, threshold: float | None, train_classes: NDArray[np.int64]) -> Scores:
    """Return the scores of the training rows, each from the model that was fitted without its fold."""
    y_true, probability = read_validation(validation)
    benign, malignant = probability[y_true == 0], probability[y_true == 1]
    squared_error = float(np.square(probability - y_true).sum())
    return Scores(benign, malignant, count_cases(benign, malignant, threshold), squared_error, train_classes)


def read_validation(path: Path) -> tuple[NDArray[np.int8], Array]:
    """Return the targets and the probabilities in a cross_validation.csv. Raises DataError if it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = [(TARGETS[row["y_true"]], float(row["probability"])) for row in csv.DictReader(file)]
        target, probability = zip(*found, strict=True)
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        expected = "expected rows of id,y_true,fold,probability"
        msg = f"{path.name}: {expected}, found something else ({type(error).__name__})"
        raise DataError(f"{msg}; run etl/train.py for this run again") from error
    return np.array(target, dtype=np.int8), np.array(probability)


def count_cases(benign: Array, malignant: Array, threshold: float | None) -> NDArray[np.int64]:
    """Return the counts of rows by (target, prediction), as their probabilities decide."""
    return np.array([np.bincount(is_called(rows, threshold), minlength=2) for rows in (benign, malignant)])
