"""A model's predictions of the test rows, and their metrics: evaluate.py writes them, verify.py compares them."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from steplib import vectors
from steplib.batches import Batch, Map, split
from steplib.cleaning import quote
from steplib.csvfile import first_rows
from steplib.errors import DataError, MemoryShortError
from steplib.ranking import rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

CONFIDENCE = 0.95
# Of predictions.csv.
COLUMNS = ("id", "y_true", "y_pred", "probability")


class Scores(NamedTuple):
    """What the metrics need: of the test rows the probabilities of 1, by their true class, and counts.

    `confusion` counts rows by (target, prediction); `train_classes` all others by target. Added up over batches.
    """

    of_b: "NDArray[np.float64]"
    of_m: "NDArray[np.float64]"
    confusion: "NDArray[np.int64]"
    squared_error: float
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
    # Compared once and for all: the batches are arrays, without names, which scikit-learn would remark on each time.
    del model[0].feature_names_in_
    predict_rows = partial(predict, model=model, features=len(names) - 2)
    with predictions.open("wb") as file:
        file.write(",".join(COLUMNS).encode() + b"\n")
        parts = []
        for predicted in over(predict_rows, split(clear, batch_bytes, first_line)):
            file.write(predicted.lines)
            parts.append(predicted.scores)
    rows = sum(len(part.of_b) + len(part.of_m) for part in parts)
    try:
        return score(add_up(parts)) | {"classifier": type(model[-1]).__name__}
    except MemoryError as error:
        msg = f"expected memory for the probabilities of {rows} test rows, {rows * 8 >> 20} MiB, and to sort them"
        raise MemoryShortError(f"{msg}, found too little; give more") from error


def predict(batch: Batch, model: "Pipeline", features: int) -> Predicted:
    """Predict the test rows of a batch of clear_data.csv."""
    import numpy as np

    table = vectors.read_clear(batch, features)
    is_test_row = table.is_test_row
    train_classes = np.bincount(table.target[~is_test_row], minlength=2)
    ids = [record_id for record_id, is_in in zip(table.ids, is_test_row, strict=True) if is_in]
    y_true, rows = table.target[is_test_row], table.features[is_test_row]
    if not ids:
        nothing = np.empty(0)
        return Predicted(b"", Scores(nothing, nothing, np.zeros((2, 2), dtype=np.int64), 0, train_classes))
    y_pred, probability = model.predict(rows), model.predict_proba(rows)[:, 1].copy()
    confusion = np.bincount(2 * y_true + y_pred, minlength=4).reshape(2, 2)
    squared_error = float(np.square(probability - y_true).sum())
    scores = Scores(probability[y_true == 0], probability[y_true == 1], confusion, squared_error, train_classes)
    return Predicted(_to_lines(ids, y_true, y_pred, probability), scores)


def _to_lines(
    ids: list[str], y_true: "NDArray[np.int8]", y_pred: "NDArray[np.int8]", probability: "NDArray[np.float64]"
) -> bytes:
    """Return rows of predictions.csv."""
    numbers = orjson.dumps(probability, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    columns = zip(quote(ids), y_true.tolist(), y_pred.tolist(), numbers, strict=True)
    return b"".join(b"%b,%d,%d,%b\n" % row for row in columns)


def add_up(parts: list[Scores]) -> Scores:
    """Return the scores of all parts, and let go of each."""
    import numpy as np

    of_b, of_m, confusion, squared_error, train_classes = zip(*parts, strict=True)
    parts.clear()
    return Scores(np.concatenate(of_b), np.concatenate(of_m), sum(confusion), sum(squared_error), sum(train_classes))


def score(scores: Scores) -> dict[str, Any]:
    """Return the metrics of the predictions, the four of the contract first.

    The baseline predicts the majority of the training rows for every test row.
    """
    from sklearn import metrics

    (tn, fp), (fn, tp) = scores.confusion.tolist()
    rows = tn + fp + fn + tp
    # Four cases, each as often as it occurs, are all that these metrics see of the rows.
    cases: dict[str, Any] = {"y_true": [0, 0, 1, 1], "y_pred": [0, 1, 0, 1], "sample_weight": [tn, fp, fn, tp]}
    area, average_precision = rank(scores.of_b, scores.of_m)
    majority = int(scores.train_classes.argmax())
    return {
        "accuracy": metrics.accuracy_score(**cases),
        # A model that calls no case M has no precision; 0 says so without stopping the run.
        "precision": metrics.precision_score(**cases, zero_division=0),
        "recall": metrics.recall_score(**cases),
        "f1_score": metrics.f1_score(**cases),
        "roc_auc": area,
        "average_precision": average_precision,
        "brier_score": scores.squared_error / rows,
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        "accuracy_interval": wilson_interval(tp + tn, rows),
        "recall_interval": wilson_interval(tp, tp + fn),
        "baseline_accuracy": int(scores.confusion[majority].sum()) / rows,
        "train_rows": int(scores.train_classes.sum()),
        "test_rows": rows,
    }


def wilson_interval(successes: int, trials: int) -> list[float]:
    """Return the 95 % interval of a share (Wilson 1927): its lower and upper end."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]
