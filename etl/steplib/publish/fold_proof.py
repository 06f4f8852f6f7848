"""Proof that cross-validation gives a run's cross_validation.csv."""

import copy
import logging
import tempfile
from pathlib import Path

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from steplib.model.threshold import split_threshold
from steplib.model.training import read_training_rows
from steplib.model.validation import cross_validate, write
from steplib.runs import difference
from steplib.settings import Settings
from steplib.table.pool import Pool

# Other solvers and classifiers may depend on chance.
EXACT_SOLVER = "newton-cholesky"


def check(folder: Path, model: Pipeline, settings: Settings, pool: Pool) -> tuple[str | None, str | None]:
    """Return how the folds, fitted anew, differ from the file, if they do; and why they could not be, if so."""
    classifier, _ = split_threshold(model)
    if not isinstance(classifier, LogisticRegression) or classifier.solver != EXACT_SOLVER:
        return None, f"a fit of {type(classifier).__name__} may depend on chance"
    plain = copy.copy(model)
    plain.steps = [*model.steps[:-1], (model.steps[-1][0], classifier)]
    clear, log = folder / "clear_data.csv", logging.getLogger("steplib.silent")
    log.propagate = False
    with tempfile.TemporaryDirectory() as scratch:
        rows = read_training_rows(clear, Path(scratch) / "rows", settings.batch_bytes, pool)
        judged = cross_validate(plain, rows, clear, settings.batch_bytes, pool, log)
        if judged is None:
            return "rows of a run without cross-validation", None
        write(judged, again := Path(scratch) / "cross_validation.csv")
        return difference.of_tables(folder / "cross_validation.csv", again), None
