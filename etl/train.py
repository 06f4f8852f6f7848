"""Fit the classifier on the run's training rows, all of them at once or batch by batch: the same model.

Reads     clear_data.csv: the rows that their id does not make test rows.
Writes    model.pkl: one scikit-learn Pipeline (impute, scale, logistic regression), pickled with joblib.
Refuses   with 65: a clear_data.csv other than transform.py wrote, numbers too large to compute with;
          with 71: when memory is too short even for a batch.
Warns     when the fit is singular (LinAlgError): a DummyClassifier takes the place of the logistic regression.
"""

import logging
import warnings
from collections.abc import Sequence
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib import moments, newton, numerics, step, training
from steplib.batches import Map, split, workers
from steplib.csvfile import first_rows
from steplib.dataset import SPLIT
from steplib.errors import DataError
from steplib.run import Run
from steplib.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

SEED = 0
# To the exact optimum: scikit-learn's default, lbfgs, stops before it, and elsewhere on another machine.
SOLVER: dict[str, Any] = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 100}
# Its square, summed over any number of rows, is still a finite float.
LARGEST_VALUE = 1e140


def train(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Fit the model on the training rows of clear_data.csv and pickle it."""
    numerics.start()
    import joblib

    clear = run.input("clear_data.csv")
    with run.scratch() as scratch, workers(settings) as over:
        model, rows = fit(clear, scratch, settings.batch_bytes, over, log)
    with run.writing("model.pkl") as part:
        joblib.dump(model, part)
    classifier = type(model[-1]).__name__
    log.info("model.pkl: %s fitted on %d rows, %d features", classifier, rows, model[0].n_features_in_)
    facts = {"train_rows": rows, "classifier": classifier, "solver": SOLVER, "seed": SEED, "split": SPLIT}
    return facts | {"batch_bytes": settings.batch_bytes} | {"artifacts": {"model.pkl": None}}


def fit(clear: Path, scratch: Path, batch_bytes: int, over: Map, log: logging.Logger) -> "tuple[Pipeline, int]":
    """Return the model fitted on the training rows of clear_data.csv, and how many they are.

    `scratch` is a folder for the rows' numbers: 8 bytes for each feature of each row.
    """
    import numpy as np

    (_, names), (first_line, _) = first_rows(clear)
    features = names[2:]
    rows_file = scratch / "rows"
    rows_file.touch()
    store = partial(training.store, first_line=first_line, features=len(features), path=str(rows_file))
    told, classes, parts = moments.none(len(features)), np.zeros(2, dtype=np.int64), []
    for stored in over(store, split(clear, batch_bytes, first_line)):
        told, classes = moments.merge(told, stored.moments), classes + stored.classes
        parts += [stored.part] if stored.part.rows else []
    check_size(told, features)
    model = prepare(features, told, rows := int(classes.sum()))
    try:
        classify(model, parts, over, log)
    except np.linalg.LinAlgError:
        log.warning("LinAlgError: the fit is singular; a DummyClassifier takes the place of the logistic regression")
        know_only_classes(model, classes)
    return model, rows


def check_size(told: moments.Moments, features: Sequence[str]) -> None:
    """Raise DataError for a feature whose mean or variance would not be a finite float."""
    for name, largest in zip(features, told.largest, strict=True):
        if largest > LARGEST_VALUE:
            msg = f"feature {name}: expected numbers up to {LARGEST_VALUE:g}, found a larger one; correct the source"
            raise DataError(msg)


def build_model() -> "Pipeline":
    """Return the unfitted model; missing values are filled and features scaled by what the training rows say."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline(
        [
            # A feature that only test rows have keeps its place, so that all rows have the same features.
            ("impute", SimpleImputer(keep_empty_features=True)),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(**SOLVER, random_state=SEED)),
        ]
    )


def prepare(features: Sequence[str], told: moments.Moments, rows: int) -> "Pipeline":
    """Return the model, its first two steps fitted: they are given what the rows said, batch by batch."""
    import numpy as np

    model = build_model()
    impute, scale, _ = (fitted for _, fitted in model.steps)
    scale.fit(impute.fit_transform(np.zeros((1, len(features)))))
    impute.feature_names_in_ = np.array(features, dtype=object)
    impute.statistics_, scale.mean_ = told.mean.astype(np.float64), told.mean.astype(np.float64)
    scale.var_, scale.scale_ = moments.variance(told, rows), moments.scale(told, rows)
    scale.n_samples_seen_ = type(scale.n_samples_seen_)(rows)
    return model


def classify(model: "Pipeline", parts: Sequence[training.Part], over: Map, log: logging.Logger) -> None:
    """Fit the last step of the model: by scikit-learn to the first part, from there by Newton steps to all of them."""
    import numpy as np

    _, scaler, classifier = (fitted for _, fitted in model.steps)
    scaling = {"mean": scaler.mean_, "scale": scaler.scale_}
    fit_to_rows(classifier, np.concatenate(list(training.blocks(parts[0], **scaling))))
    groups, rows = training.group(parts), sum(part.rows for part in parts)

    def at(weights: "NDArray[np.float64]") -> newton.Derivatives:
        found = over(partial(training.derivatives, weights=weights, **scaling), groups)
        return reduce(newton.add, found, newton.penalty(weights))

    optimum = newton.minimize(at, np.append(classifier.coef_[0], classifier.intercept_), rows)
    if not optimum.converged:
        log.warning("the fit has not reached its optimum after %d steps", optimum.steps)
    classifier.coef_, classifier.intercept_ = optimum.weights[None, :-1].copy(), optimum.weights[-1:].copy()
    classifier.n_iter_ = np.array([optimum.steps], dtype=np.int32)


def fit_to_rows(classifier: "LogisticRegression", rows: "NDArray[np.float64]") -> None:
    """Fit by scikit-learn to some scaled rows: where the steps to the optimum of all rows begin."""
    import numpy as np

    features, target = rows[:, : -training.MORE_COLUMNS], rows[:, -1].astype(np.int8)
    if target.min() == target.max():
        # Rows of one class say nothing: these make all weights 0.
        features, target = np.zeros((2, features.shape[1])), np.array([0, 1], dtype=np.int8)
    with warnings.catch_warnings():
        # Whether it comes to an end here does not matter yet.
        warnings.simplefilter("ignore")
        classifier.fit(features, target)


def know_only_classes(model: "Pipeline", classes: "NDArray[np.int64]") -> None:
    """Let the model's last step know only how often each class occurs."""
    import numpy as np
    from sklearn.dummy import DummyClassifier

    nothing = np.zeros((2, model[0].n_features_in_))
    dummy = DummyClassifier(strategy="prior").fit(nothing, np.array([0, 1], dtype=np.int8), sample_weight=classes)
    model.set_params(classify=dummy)


if __name__ == "__main__":
    step.main(__file__, __doc__, train)
