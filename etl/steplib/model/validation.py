"""Cross-validation: each training row is judged once by a model that never saw it."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from numpy.linalg import LinAlgError
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from steplib.model import fitting
from steplib.model.moments import Moments, empty, merge, moments_of
from steplib.model.training import EXTRA_COLUMNS, Array, Part, TrainingRows
from steplib.table.arrays import read_clear
from steplib.table.batches import split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool
from steplib.table.rows import quote
from steplib.table.schema import FOLDS, fold_of, is_test

# Beyond, there are about 25,000 test rows or more, and ten more fits would take long.
MOST_ROWS = 100_000

Folds = NDArray[np.int64]


class Validation(NamedTuple):
    """What cross-validation found for the training rows, in their order.

    `probability` is NaN in a fold whose model could not be fitted.
    """

    ids: list[str]
    y_true: NDArray[np.int8]
    fold: Folds
    probability: Array

    @property
    def is_judged(self) -> NDArray[np.bool_]:
        """Which rows have a probability."""
        return ~np.isnan(self.probability)

    @property
    def rows(self) -> int:
        """The number of rows that have a probability."""
        return int(np.count_nonzero(self.is_judged))


def cross_validate(  # noqa: PLR0913, PLR0917 - what is judged, by what, and how
    model: Pipeline, rows: TrainingRows, clear: Csv, batch_bytes: int, pool: Pool, log: logging.Logger
) -> Validation | None:
    """Judge the training rows, unless that is left out; log why, and which rows have no result."""
    if rows.number > MOST_ROWS:
        reason = "the test rows of so many give a precise estimate"
        log.info("cross-validation is left out with more than %d training rows: %s", MOST_ROWS, reason)
        return None
    if isinstance(model[-1], DummyClassifier):
        log.warning("cross-validation is left out, because a DummyClassifier gives all rows the same probability")
        return None
    found = judge(model, rows, _read_ids(clear, batch_bytes), pool)
    missing = rows.number - found.rows
    if missing:
        log.warning("cross-validation: %d rows left out, because the model could not be fitted without them", missing)
    if not found.rows:
        return None
    log.info("cross_validation.csv: %d rows in %d folds", found.rows, len({*found.fold[found.is_judged]}))
    return found


def judge(model: Pipeline, rows: TrainingRows, ids: list[str], pool: Pool = THIS_THREAD) -> Validation:
    """Fit the model anew without each of the ten folds, and predict the fold's rows; ids: those of the training rows.

    `model` has been fitted to all rows; each fit starts from its optimum. The id decides the fold (`fold_of`). Imputing
    and scaling are part of each fit.
    """
    fold = np.array([fold_of(record_id) for record_id in ids])
    folds = np.split(fold, np.cumsum([part.rows for part in rows.parts])[:-1])
    moments = [_moments(rows, folds, number) for number in range(FOLDS)]
    probability = np.full(len(ids), np.nan)
    for number in range(FOLDS):
        others = _without(rows, folds, moments, number)
        # One class alone cannot be fitted.
        if (fold == number).any() and others.classes.all():
            # A classifier may refuse so few rows with a ValueError, though it accepts all of them.
            with suppress(LinAlgError, ValueError):
                fitted = fitting.without_names(fitting.fit(clone(model), others, pool, start=model))
                probability[fold == number] = _predict(fitted, rows, folds, number)
    target = np.concatenate([part.load()[:, -1] for part in rows.parts]).astype(np.int8)
    return Validation(ids, target, fold, probability)


def write(validation: Validation, path: Path) -> None:
    """Write the rows that have a probability as cross_validation.csv."""
    judged = validation.is_judged
    columns = [
        quote([record_id for record_id, is_judged in zip(validation.ids, judged, strict=True) if is_judged]),
        *([b"%d" % number for number in values[judged].tolist()] for values in (validation.y_true, validation.fold)),
        orjson.dumps(validation.probability[judged], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b","),
    ]
    lines = [b"id,y_true,fold,probability", *map(b",".join, zip(*columns, strict=True))]
    path.write_bytes(b"\n".join(lines) + b"\n")


def _read_ids(clear: Csv, batch_bytes: int) -> list[str]:
    """Return the ids of the training rows."""
    (_, names), (first_line, _) = first_rows(clear)
    batches = split(clear, batch_bytes, first_line)
    return [
        record_id for batch in batches for record_id in read_clear(batch, len(names) - 2).ids if not is_test(record_id)
    ]


def _moments(rows: TrainingRows, folds: Sequence[Folds], number: int) -> tuple[Moments, NDArray[np.int64]]:
    """Return the moments and class counts of the rows of a fold."""
    moments, classes = empty(len(rows.features)), np.zeros(2, dtype=np.int64)
    for part, fold in zip(rows.parts, folds, strict=True):
        if (fold == number).any():
            table = part.load()[fold == number]
            moments = merge(moments, moments_of(table[:, :-EXTRA_COLUMNS]))
            classes += np.bincount(table[:, -1].astype(np.int8), minlength=2)
    return moments, classes


def _without(
    rows: TrainingRows,
    folds: Sequence[Folds],
    moments: Sequence[tuple[Moments, NDArray[np.int64]]],
    number: int,
) -> TrainingRows:
    """Return the training rows but those of a fold."""
    parts = [
        Part(int((fold != number).sum()), part.columns, partial(_load, part, fold != number))
        for part, fold in zip(rows.parts, folds, strict=True)
    ]
    others = [found for other, found in enumerate(moments) if other != number]
    merged = reduce(merge, (found for found, _ in others))
    classes: NDArray[np.int64] = sum((found for _, found in others), np.zeros(2, dtype=np.int64))
    return rows._replace(parts=[part for part in parts if part.rows], moments=merged, classes=classes)


def _load(part: Part, mask: NDArray[np.bool_]) -> Array:
    return part.load()[mask]


def _predict(model: Pipeline, rows: TrainingRows, folds: Sequence[Folds], number: int) -> Array:
    """Return the probabilities of M of the rows of a fold."""
    found = [
        model.predict_proba(part.load()[fold == number][:, :-EXTRA_COLUMNS])[:, 1]
        for part, fold in zip(rows.parts, folds, strict=True)
        if (fold == number).any()
    ]
    return np.concatenate(found)
