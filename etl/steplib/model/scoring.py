"""A model's predictions for the test rows, and their metrics."""

import csv
import warnings
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.pipeline import Pipeline

from steplib.errors import DataError, MemoryShortError
from steplib.model.fitting import without_names
from steplib.model.threshold import DEFAULT, is_called, split_threshold
from steplib.table.arrays import read_clear
from steplib.table.batches import WHOLE, Batch, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool
from steplib.table.rows import quote

CONFIDENCE = 0.95
RANK_METRICS = ("roc_auc", "average_precision")
CLASSES = np.array([b"0", b"1"])
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


class Measured(NamedTuple):
    """The metrics for evaluation.json, and the probabilities of M of the rows that a page of the run is about.

    These are all rows, each judged by a model that never saw it, or without cross-validation the test rows; by true
    class, ascending.
    """

    metrics: dict[str, Any]
    benign: Array
    malignant: Array


class Predicted(NamedTuple):
    """The test rows of a batch: the header and lines of predictions.csv, and their scores."""

    header: bytes
    lines: bytes
    scores: Scores


def measure(  # noqa: PLR0913 - what is read, what is written, and how
    model: Pipeline,
    clear: Csv,
    predictions: BinaryIO,
    batch_bytes: int = WHOLE,
    pool: Pool = THIS_THREAD,
    *,
    validation: Path | None = None,
) -> Measured:
    """Write a model's predictions for a clear_data.csv, and return their metrics.

    `validation` is the cross_validation.csv of the training rows, if there is one. Raises DataError if the model was
    fitted to other features; MemoryShortError if the scores do not fit.
    """
    (_, names), (first_line, _) = first_rows(clear)
    if list(model[0].feature_names_in_) != names[2:]:
        msg = "model.pkl: expected a model fitted to the features of clear_data.csv, found different features"
        raise DataError(f"{msg}; run etl/train.py for this run again")
    predict_rows = partial(predict, model=without_names(model), features=len(names) - 2)
    parts: list[Scores] = []
    for predicted in pool.map(predict_rows, split(clear, batch_bytes, first_line)):
        predictions.write(predicted.lines if parts else predicted.header + predicted.lines)
        parts.append(predicted.scores)
    rows = sum(len(part.benign) + len(part.malignant) for part in parts)
    try:
        return _measure(model, add_up(parts), validation)
    except MemoryError as error:
        msg = f"memory: the probabilities of {rows} test rows, {rows * 8 >> 20} MiB, cannot be held and sorted"
        raise MemoryShortError(f"{msg}; give the step more memory") from error


def _measure(model: Pipeline, held_out: Scores, validation: Path | None) -> Measured:
    """Return the metrics of the test rows and, with cross-validation, of the others and of all rows."""
    classifier, threshold = split_threshold(model)
    found = score(held_out)
    found |= {"classifier": type(classifier).__name__, "threshold": DEFAULT if threshold is None else threshold}
    found["cross_validated"] = None
    # Without a threshold of the model's own, a row just at 0.5 may be called either.
    limits = (None, DEFAULT) if threshold is None else (threshold,)
    if not any(np.array_equal(held_out.confusion, _confusion(*held_out[:2], limit)) for limit in limits):
        found["threshold"] = None
        msg = "for some test rows, predict contradicts their probability"
        warnings.warn(f"{msg}, by which cross-validated rows are judged: compare these metrics with care", stacklevel=2)
    if validation is None:
        return Measured(found, held_out.benign, held_out.malignant)
    out_of_fold = _out_of_fold(validation, threshold, held_out.train_classes)
    all_rows = add_up([held_out, out_of_fold])._replace(train_classes=held_out.train_classes)
    found["cross_validated"] = {"out_of_fold": _of_rows(score(out_of_fold)), "all_rows": _of_rows(score(all_rows))}
    return Measured(found, all_rows.benign, all_rows.malignant)


def _confusion(benign: Array, malignant: Array, threshold: float | None) -> NDArray[np.int64]:
    """Return the counts of rows by (target, prediction), as their probabilities decide."""
    return np.array([np.bincount(is_called(rows, threshold), minlength=2) for rows in (benign, malignant)])


def predict(batch: Batch, model: Pipeline, features: int) -> Predicted:
    """Predict the test rows of a batch of clear_data.csv."""
    table = read_clear(batch, features)
    is_test_row = table.find_test_rows()
    ids = [record_id for record_id, is_test in zip(table.ids, is_test_row, strict=True) if is_test]
    y_true, rows = table.target[is_test_row], table.features[is_test_row]
    y_pred, probability = np.empty(0, dtype=np.int8), np.empty(0)
    if ids:
        y_pred, probability = model.predict(rows), model.predict_proba(rows)[:, 1].copy()
    columns = {
        "id": quote(ids),
        "y_true": CLASSES[y_true].tolist(),
        "y_pred": CLASSES[y_pred].tolist(),
        # Each number as a text that reads back to the very same float.
        "probability": orjson.dumps(probability, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if ids else [],
    }
    scores = Scores(
        benign=probability[y_true == 0],
        malignant=probability[y_true == 1],
        confusion=np.bincount(2 * y_true + y_pred, minlength=4).reshape(2, 2),
        squared_error=float(np.square(probability - y_true).sum()),
        train_classes=np.bincount(table.target[~is_test_row], minlength=2),
    )
    lines = b"".join(b",".join(row) + b"\n" for row in zip(*columns.values(), strict=True))
    return Predicted(",".join(columns).encode() + b"\n", lines, scores)


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


def _out_of_fold(validation: Path, threshold: float | None, train_classes: NDArray[np.int64]) -> Scores:
    """Return the scores of the training rows, each from the model that was fitted without its fold."""
    y_true, probability = read_validation(validation)
    benign, malignant = probability[y_true == 0], probability[y_true == 1]
    squared_error = float(np.square(probability - y_true).sum())
    return Scores(benign, malignant, _confusion(benign, malignant, threshold), squared_error, train_classes)


def _of_rows(found: dict[str, Any]) -> dict[str, Any]:
    """Return metrics with the number of rows that they are for, instead of those of the split."""
    rows = found["test_rows"]
    return {name: value for name, value in found.items() if name not in {"train_rows", "test_rows"}} | {"rows": rows}


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
