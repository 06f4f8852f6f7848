"""The threshold for a wanted recall: from which probability a row is called M."""

import copy
import logging
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline

from steplib.errors import SettingError
from steplib.model.fitting import without_names
from steplib.model.training import EXTRA_COLUMNS, Array, TrainingRows
from steplib.model.validation import MOST_ROWS, Validation

# A model without a fixed threshold calls a row M if its probability is higher.
DEFAULT = 0.5
# With fewer M, a single one of them would decide.
LEAST_MALIGNANT = 50
# Rounding changes a probability by less.
ROUNDING = 1e-9


def reach_recall(
    model: Pipeline, recall: Decimal | None, rows: TrainingRows, judged: Validation | None, log: logging.Logger
) -> Pipeline:
    """Return the model with the highest threshold at which the recall out of fold is reached, and log its price.

    Where there are too many rows for cross-validation, the model's own probabilities of them serve; the difference is
    then negligible. Raises SettingError if there are too few M among these rows.
    """
    if not recall:
        return model
    own = rows.number > MOST_ROWS or isinstance(model[-1], DummyClassifier)
    if judged:
        target, probability = judged.y_true[judged.is_judged], judged.probability[judged.is_judged]
    else:
        target, probability = _own(model, rows) if own else (np.empty(0, dtype=np.int8), np.empty(0))
    benign, malignant = probability[target == 0], probability[target == 1]
    where = "of the training rows" if own else "out of fold"
    if len(malignant) < LEAST_MALIGNANT:
        which = "" if len(malignant) == rows.classes[1] else " that cross-validation can judge"
        found = f"expected at least {LEAST_MALIGNANT} M among the training rows{which}, found {len(malignant)}"
        raise SettingError(f"MIN_RECALL: {found}; with so few, a single one would decide: leave it empty")
    if isinstance(model[-1], DummyClassifier):
        log.warning("MIN_RECALL is left out, because a DummyClassifier has no threshold")
        return model
    # A little lower, so that rounding decides no row that has just this probability; other rows may have it too.
    threshold = max((lowest := choose(malignant, recall)) - ROUNDING, lowest / 2)
    missed, alarmed = int((malignant < threshold).sum()), int((benign >= threshold).sum())
    price = f"{missed} of {len(malignant)} M missed, {alarmed} of {len(benign)} B called M"
    log.info("MIN_RECALL %s takes the threshold %.4g: %s, %s", recall, threshold, where, price)
    return _fix(model, threshold)


def choose(malignant: Array, recall: Decimal) -> float:
    """Return the highest threshold at which these probabilities of M have the recall; those below it are missed."""
    # In decimals, because 0.9 of 10 are 9.
    may_be_missed = int((1 - recall) * len(malignant))
    return float(np.sort(malignant)[may_be_missed])


def _own(model: Pipeline, rows: TrainingRows) -> tuple[NDArray[np.int8], Array]:
    """Return the targets of the training rows, and the probabilities that the model gives them."""
    nameless, targets, probabilities = without_names(model), [], []
    for part in rows.parts:
        table = part.load()
        targets.append(table[:, -1].astype(np.int8))
        probabilities.append(nameless.predict_proba(table[:, :-EXTRA_COLUMNS])[:, 1].copy())
    return np.concatenate(targets), np.concatenate(probabilities)


def _fix(model: Pipeline, threshold: float) -> Pipeline:
    """Return the model with a fixed threshold, which it keeps wherever it is loaded."""
    name, classifier = model.steps[-1]
    fixed = FixedThresholdClassifier(FrozenEstimator(classifier), threshold=threshold, response_method="predict_proba")
    # The classifier is fitted already; this only sets the attributes of a fitted one.
    fixed.fit(np.zeros((2, 1)), np.array([0, 1], dtype=np.int8))
    found = copy.copy(model)
    found.steps = [*model.steps[:-1], (name, fixed)]
    return found


def split_threshold(model: Pipeline) -> tuple[BaseEstimator, float | None]:
    """Return a model's classifier, and the fixed threshold of its probabilities if it has one."""
    last = model[-1]
    if not isinstance(last, FixedThresholdClassifier | TunedThresholdClassifierCV):
        return last, None
    inner = last.estimator_
    classifier = inner.estimator if type(inner) is FrozenEstimator else inner
    by_probability = last.response_method == "predict_proba" or (
        last.response_method == "auto" and hasattr(inner, "predict_proba")
    )
    if not by_probability or getattr(last, "pos_label", None) not in {None, 1}:
        return classifier, None
    threshold = last.best_threshold_ if isinstance(last, TunedThresholdClassifierCV) else last.threshold
    return classifier, DEFAULT if threshold == "auto" else float(threshold)


def is_called(probability: Array, threshold: float | None) -> NDArray[np.bool_]:
    """Return which rows are called M; without a threshold of the model's own, a tie at 0.5 is B."""
    return probability > DEFAULT if threshold is None else probability >= threshold
