"""Fit the classifier on the run's training rows.

Reads     clear_data.csv: the rows that their id does not make test rows.
Writes    model.pkl: one scikit-learn Pipeline (impute, scale, logistic regression), pickled with joblib.
Refuses   with 65: a clear_data.csv other than transform.py wrote, numbers too large to compute with;
          with 71: data that does not fit into memory.
Warns     when the fit is singular (LinAlgError): a DummyClassifier takes the place of the logistic regression.
"""

import logging
from typing import TYPE_CHECKING, Any

from steplib import openblas, step
from steplib.dataset import SPLIT, read_clear_data, split
from steplib.errors import DataError
from steplib.run import Run
from steplib.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

SEED = 0
# To the exact optimum: scikit-learn's default, lbfgs, stops before it, and elsewhere on another machine.
SOLVER: dict[str, Any] = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 100}
# Its square, summed over any number of rows, is still a finite float.
LARGEST_VALUE = 1e140


def train(run: Run, _settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Fit the model on the training rows of clear_data.csv and pickle it."""
    openblas.start()
    import joblib

    model = build_model()
    data = read_clear_data(run.input("clear_data.csv"))
    check_size(data)
    (_, features, target), _ = split(data)
    model = fit(model, features, target, log)
    with run.writing("model.pkl") as part:
        joblib.dump(model, part)
    classifier = type(model[-1]).__name__
    log.info("model.pkl: %s fitted on %d rows, %d features", classifier, *features.shape)
    facts = {"train_rows": len(features), "classifier": classifier, "solver": SOLVER, "seed": SEED, "split": SPLIT}
    return facts | {"artifacts": {"model.pkl": None}}


def check_size(data: "pd.DataFrame") -> None:
    """Raise DataError for a feature whose mean or variance would not be a finite float."""
    extremes = data.drop(columns=data.columns[:2]).abs().max()
    for name in extremes.index[extremes > LARGEST_VALUE]:
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


def fit(model: "Pipeline", features: "pd.DataFrame", target: "pd.Series[int]", log: logging.Logger) -> "Pipeline":
    """Fit the model; if that is singular, the classifier that knows only how often each class occurs.

    features: (rows, features), NaN where missing; target: (rows,) of 0 and 1.
    """
    from numpy.linalg import LinAlgError
    from sklearn.dummy import DummyClassifier

    try:
        return model.fit(features, target)
    except LinAlgError:
        log.warning("LinAlgError: the fit is singular; a DummyClassifier takes the place of the logistic regression")
        return model.set_params(classify=DummyClassifier(strategy="prior")).fit(features, target)


if __name__ == "__main__":
    step.main(__file__, __doc__, train)
