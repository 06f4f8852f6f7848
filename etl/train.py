"""Fit the classifier to the run's training rows.

Reads     clear_data.csv: the training rows (the id decides).
Writes    model.pkl: one scikit-learn Pipeline (impute, scale, logistic regression), pickled with joblib;
          cross_validation.csv: id,y_true,fold,probability for up to 100,000 training rows.
Refuses   with 65: a clear_data.csv that transform.py did not write, numbers too large to compute with;
          with 71: too little memory even for one batch; with 78: MIN_RECALL with fewer than 50 M.
Warns     when the fit is singular (LinAlgError): a DummyClassifier replaces the logistic regression.
"""

import logging
from typing import TYPE_CHECKING, Any

from steplib import step
from steplib.runs.difference import of_tables
from steplib.runs.run import Run
from steplib.settings import Settings
from steplib.table.pool import Pool, open_pool
from steplib.table.schema import SPLIT

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from steplib.model.training import TrainingRows

SEED = 0
# Reaches the exact optimum; scikit-learn's default, lbfgs, stops short of it, at a point that differs between machines.
SOLVER: dict[str, Any] = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 100}


def build_model() -> "Pipeline":
    """Return the unfitted model; missing values are filled and features scaled with statistics of the training rows."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline(
        [
            ("impute", SimpleImputer(keep_empty_features=True)),  # also if a feature's only values are in test rows
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(**SOLVER, random_state=SEED)),
        ]
    )


def train(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Fit the model to the training rows of clear_data.csv, pickle it, and cross-validate it."""
    from steplib.model import joblib, ranges, sameness, threshold, training, validation

    clear = run.input("clear_data.csv")
    with run.scratch() as scratch, open_pool(settings.workers, settings.dask_scheduler) as pool:
        rows = training.read_training_rows(clear, scratch / "rows", settings.batch_bytes, pool)
        model = fit(rows, pool, log)
        classifier, parameters = type(model[-1]).__name__, model[-1].get_params()
        log.info("model.pkl: %s fitted to %d rows, %d features", classifier, rows.number, len(rows.features))
        about_rows = ranges.describe(rows)
        judged = validation.cross_validate(model, rows, clear, settings.batch_bytes, pool, log)
        model = threshold.reach_recall(model, settings.min_recall, rows, judged, log)
    with run.writing("model.pkl", lambda *_: sameness.difference(run.open_input("model.pkl"), model)) as part:
        joblib.dump(model, part)
    if judged is not None:
        with run.writing("cross_validation.csv", of_tables) as part:
            validation.write(judged, part)
    return {
        **about_rows,
        "classifier": classifier,
        "solver": {name: parameters[name] for name in SOLVER if name in parameters},
        "min_recall": settings.min_recall and str(settings.min_recall),
        "threshold": threshold.split_threshold(model)[1],
        "seed": SEED,
        "split": SPLIT,
        "batch_bytes": settings.batch_bytes,
        "artifacts": {"model.pkl": None} | ({"cross_validation.csv": judged.rows} if judged is not None else {}),
    }


def fit(rows: "TrainingRows", pool: Pool, log: logging.Logger) -> "Pipeline":
    """Return the model fitted to the rows, or to their class frequencies alone if the fit is singular."""
    from numpy.linalg import LinAlgError
    from steplib.model import fitting

    try:
        return fitting.fit(build_model(), rows, pool)
    except LinAlgError:
        log.warning("LinAlgError: the fit is singular; a DummyClassifier replaces the logistic regression")
        return fitting.use_class_priors(build_model(), rows)


if __name__ == "__main__":
    step.main(__file__, __doc__, train)
