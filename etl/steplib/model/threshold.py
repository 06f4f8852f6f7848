"""The threshold for a wanted recall: above which probability a row is called M."""

import logging
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from steplib.errors import SettingError
from steplib.model.training import EXTRA_COLUMNS, Array, TrainingRows

if TYPE_CHECKING:
    from steplib.model.validation import Validation

# With fewer M, a single one of them would decide.
LEAST_MALIGNANT = 50


def reach_recall(
    model: Pipeline, recall: Decimal | None, rows: TrainingRows, judged: "Validation | None", log: logging.Logger
) -> Pipeline:
    """Return the model with the highest threshold at which the recall out of fold is reached, and log its price.

    Without cross-validation the model's own probabilities of the training rows serve: there are so many that the
    difference is nothing. Raises SettingError if there are too few M among them.
    """
    if not recall:
        return model
    if rows.classes[1] < LEAST_MALIGNANT:
        found = f"expected at least {LEAST_MALIGNANT} M among the training rows, found {rows.classes[1]}"
        raise SettingError(f"MIN_RECALL: {found}; with so few, a single one would decide: leave it empty")
    if isinstance(model[-1], DummyClassifier):
        log.warning("MIN_RECALL is left out, because a DummyClassifier has no threshold")
        return model
    target, probability = _own(model, rows) if judged is None else (judged.y_true, judged.probability)
    known = ~np.isnan(probability)
    benign, malignant = (probability[known & (target == i)] for i in (0, 1))
    threshold = choose(malignant, recall)
    missed, alarmed = int((malignant < threshold).sum()), int((benign >= threshold).sum())
    how = "out of fold" if judged else "of the training rows"
    price = f"{missed} of {len(malignant)} M missed, {alarmed} of {len(benign)} B called M"
    log.info("MIN_RECALL %s takes the threshold %.4g: %s, %s", recall, threshold, how, price)
    return _fix(model, threshold)


def choose(malignant: Array, recall: Decimal) -> float:
    """Return the highest threshold at which these probabilities of M have the recall; those below it are missed."""
    # In decimals, because 0.9 of 10 are 9.
    may_be_missed = int((1 - recall) * len(malignant))
    return float(np.sort(malignant)[may_be_missed])


def _own(model: Pipeline, rows: TrainingRows) -> tuple[Array, Array]:
    """Return the targets of the training rows, and the probabilities that the model gives them."""
    found = []
    for part in rows.parts:
        table = part.load()
        frame = model[:-1].transform(table[:, :-EXTRA_COLUMNS]) if len(model) > 1 else table[:, :-EXTRA_COLUMNS]
        found.append(np.column_stack([table[:, -1], model[-1].predict_proba(frame)[:, 1]]))
    both = np.concatenate(found)
    return both[:, 0], both[:, 1]


def _fix(model: Pipeline, threshold: float) -> Pipeline:
    """Return the model with a fixed threshold, which it keeps wherever it is loaded."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import FixedThresholdClassifier

    name, classifier = model.steps[-1]
    fixed = FixedThresholdClassifier(FrozenEstimator(classifier), threshold=threshold, response_method="predict_proba")
    fixed.fit(np.zeros((2, classifier.n_features_in_)), np.array([0, 1], dtype=np.int8))
    return Pipeline([*model.steps[:-1], (name, fixed)])


def split_threshold(model: Pipeline) -> tuple[BaseEstimator, float | None]:
    """Return a model's classifier, and its threshold if it has a fixed one."""
    last = model[-1]
    if type(last).__name__ != "FixedThresholdClassifier":
        return last, None
    return last.estimator.estimator, float(last.threshold)
