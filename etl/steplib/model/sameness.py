"""Whether a model that was fitted again is the recorded one, apart from rounding."""

from typing import Any, BinaryIO

import numpy as np
from sklearn.base import BaseEstimator

from steplib.model import joblib

# A different processor or batch size may round the last digits differently.
TOLERANCE = 1e-9
# The number of iterations does not change the predictions.
IGNORED = "n_iter_"


def difference(then: BinaryIO, again: object) -> str | None:
    """Return how a model differs from a pickled one: their numbers within the tolerance, everything else exactly."""
    return None if _are_close(joblib.load(then), again) else "a different model"


def _are_close(a: Any, b: Any) -> bool:  # noqa: ANN401 - whatever a fitted estimator has as an attribute
    if type(a) is not type(b):
        return False
    if isinstance(a, BaseEstimator):
        return _are_close({**vars(a), IGNORED: None}, {**vars(b), IGNORED: None})
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_are_close(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_are_close, a, b))
    if isinstance(a, float | np.ndarray) and np.asarray(a).dtype.kind == "f":
        return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    return bool(joblib.hash(a) == joblib.hash(b))
