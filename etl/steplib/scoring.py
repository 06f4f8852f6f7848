"""A model's predictions of the test rows, and their metrics: evaluate.py writes them, verify.py compares them."""

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from steplib import vectors
from steplib.batches import Batch, Map, split
from steplib.cleaning import quote
from steplib.csvfile import first_rows
from steplib.dataset import is_test
from steplib.errors import DataError, MemoryShortError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

CONFIDENCE = 0.95
# Two targets of a byte, a probability of eight, and the copies that sorting them takes.
BYTES_OF_SCORES = 64
# Of predictions.csv.
COLUMNS = ("id", "y_true", "y_pred", "probability")


class Scores(NamedTuple):
    """Of the test rows, (rows,) each: target, prediction, probability of 1; of all others, how many are 0 and 1."""

    y_true: "NDArray[np.int8]"
    y_pred: "NDArray[np.int8]"
    probability: "NDArray[np.float64]"
    train_classes: "NDArray[np.int64]"


class Predicted(NamedTuple):
    """The test rows of a batch: as lines of predictions.csv, and their scores."""

    lines: bytes
    scores: Scores


def measure(model: "Pipeline", clear: Path, predictions: Path, batch_bytes: int, over: Map) -> dict[str, Any]:
    """Write predictions.csv of a model and clear_data.csv, and return the metrics, those of evaluation.json.

    Raises DataError if the model was fitted to other features; MemoryShortError if the scores do not fit.
    """
    (_, names), (first_line, _) = first_rows(clear)
    if list(model[0].feature_names_in_) != names[2:]:
        raise DataError(f"model.pkl: expected a model of the features of {clear.name}, found other ones; train it anew")
    predict_rows = partial(predict, model=model, features=len(names) - 2)
    with predictions.open("wb") as file:
        file.write(",".join(COLUMNS).encode() + b"\n")
        parts = []
        for predicted in over(predict_rows, split(clear, batch_bytes, first_line)):
            file.write(predicted.lines)
            parts.append(predicted.scores)
    rows = sum(len(part.y_true) for part in parts)
    try:
        return score(_concatenate(parts)) | {"classifier": type(model[-1]).__name__}
    except MemoryError as error:
        size = f"{rows} test rows, of which some {rows * BYTES_OF_SCORES >> 20} MiB are held for the metrics"
        raise MemoryShortError(f"expected memory for {size}, found too little; give more") from error


def predict(batch: Batch, model: "Pipeline", features: int) -> Predicted:
    """Predict the test rows of a batch of clear_data.csv."""
    import numpy as np

    table = vectors.read_clear(batch, features)
    is_test_row = np.array([is_test(record_id) for record_id in table.ids], dtype=bool)
    train_classes = np.bincount(table.target[~is_test_row], minlength=2)
    ids = [record_id for record_id, is_in in zip(table.ids, is_test_row, strict=True) if is_in]
    target, rows = table.target[is_test_row], table.features[is_test_row]
    if not ids:
        nothing = np.empty(0)
        return Predicted(b"", Scores(target, target, nothing, train_classes))
    with warnings.catch_warnings():
        # The names have been compared; an array has none.
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        scores = Scores(target, model.predict(rows), model.predict_proba(rows)[:, 1].copy(), train_classes)
    return Predicted(_to_lines(ids, scores), scores)


def _to_lines(ids: list[str], scores: Scores) -> bytes:
    """Return the scores as lines of predictions.csv."""
    probability = orjson.dumps(scores.probability, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    columns = zip(quote(ids), scores.y_true.tolist(), scores.y_pred.tolist(), probability, strict=True)
    return b"".join(b"%b,%d,%d,%b\n" % row for row in columns)


def _concatenate(parts: list[Scores]) -> Scores:
    import numpy as np

    y_true, y_pred, probability, train_classes = zip(*parts, strict=True)
    scores = (np.concatenate(y_true), np.concatenate(y_pred), np.concatenate(probability))
    return Scores(*scores, np.sum(train_classes, axis=0))


def score(scores: Scores) -> dict[str, Any]:
    """Return the metrics of the predictions, the four of the contract first.

    The baseline predicts the majority of the training rows for every test row.
    """
    from sklearn import metrics

    y_true, y_pred, probability, train_classes = scores
    tn, fp, fn, tp = (int(count) for count in metrics.confusion_matrix(y_true, y_pred, labels=[0, 1]).ravel())
    majority = (tp + fn) if train_classes[1] > train_classes[0] else (tn + fp)
    # A model that calls no case M has no precision; 0 says so without stopping the run.
    return {
        "accuracy": metrics.accuracy_score(y_true, y_pred),
        "precision": metrics.precision_score(y_true, y_pred, zero_division=0),
        "recall": metrics.recall_score(y_true, y_pred),
        "f1_score": metrics.f1_score(y_true, y_pred),
        "roc_auc": metrics.roc_auc_score(y_true, probability),
        "average_precision": metrics.average_precision_score(y_true, probability),
        "brier_score": metrics.brier_score_loss(y_true, probability),
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        "accuracy_interval": wilson_interval(tp + tn, len(y_true)),
        "recall_interval": wilson_interval(tp, tp + fn),
        "baseline_accuracy": majority / len(y_true),
        "train_rows": int(train_classes.sum()),
        "test_rows": len(y_true),
    }


def wilson_interval(successes: int, trials: int) -> list[float]:
    """Return the 95 % interval of a share (Wilson 1927): its lower and upper end."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]
