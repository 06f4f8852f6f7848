"""A model's predictions for the test rows, and their metrics."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from steplib.errors import DataError, MemoryShortError
from steplib.model.fitting import without_names
from steplib.model.metrics import Scores, add_up, count_cases, of_rows, read_scores, score
from steplib.model.threshold import DEFAULT, split_threshold
from steplib.table.arrays import read_clear
from steplib.table.batches import WHOLE, Batch, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool
from steplib.table.rows import quote

CLASSES = np.array([b"0", b"1"])

Array = NDArray[np.float64]


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
    if not any(np.array_equal(held_out.confusion, count_cases(*held_out[:2], limit)) for limit in limits):
        found["threshold"] = None
        msg = "for some test rows, the model's predict does not follow from their probability"
        way_out = (
            "cross-validated rows are judged by the probability, so the metrics of both cannot be compared exactly"
        )
        warnings.warn(f"{msg}; {way_out}", stacklevel=2)
    if validation is None:
        return Measured(found, held_out.benign, held_out.malignant)
    out_of_fold = read_scores(validation, threshold, held_out.train_classes)
    all_rows = add_up([held_out, out_of_fold])._replace(train_classes=held_out.train_classes)
    found["cross_validated"] = {"out_of_fold": of_rows(score(out_of_fold)), "all_rows": of_rows(score(all_rows))}
    return Measured(found, all_rows.benign, all_rows.malignant)


def predict(batch: Batch, model: Pipeline, features: int) -> Predicted:
    """Predict the test rows of a batch of clear_data.csv."""
    table = read_clear(batch, features)
    is_test_row = table.find_test_rows()
    ids = [record_id for record_id, is_test in zip(table.ids, is_test_row, strict=True) if is_test]
    y_true, rows = table.target[is_test_row], table.features[is_test_row]
    y_pred, probability = predict_rows(model, rows) if ids else (np.empty(0, dtype=np.int8), np.empty(0))
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


def predict_rows(model: Pipeline, rows: Array) -> tuple[NDArray[np.int8], Array]:
    """Return the classes and the probabilities of M that a model gives to one row or more."""
    return model.predict(rows), model.predict_proba(rows)[:, 1].copy()
