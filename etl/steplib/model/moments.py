"""The moments of each feature over the training rows, collected batch by batch."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Moments(NamedTuple):
    """For each feature, (features,) each: number of values, mean, sum of squared deviations, largest magnitude.

    Mean and deviations are long doubles where the machine has them. In float64 the difference of two batches' means
    would lose the digits that large means with small deviations have in common.
    """

    counts: NDArray[np.int64]
    mean: NDArray[np.longdouble]
    deviations: NDArray[np.longdouble]
    largest: NDArray[np.float64]


def empty(features: int) -> Moments:
    """Return the moments of no rows."""
    zeros = np.zeros(features, dtype=np.longdouble)
    return Moments(np.zeros(features, dtype=np.int64), zeros, zeros, np.zeros(features))


def moments_of(features: NDArray[np.float64]) -> Moments:
    """Return the moments of some rows; features: (rows, features), NaN where missing."""
    missing = np.isnan(features)
    count = len(features) - missing.sum(axis=0)
    # A number that is too large becomes infinite here, and is refused once its feature's name is known.
    with np.errstate(over="ignore", invalid="ignore"):
        rough = np.where(missing, 0, features).sum(axis=0) / np.maximum(count, 1)
        apart = np.where(missing, 0, features - rough)
        rest = apart.sum(axis=0) / np.maximum(count, 1)
        deviations = np.square(apart).sum(axis=0) - count * rest**2
        mean = rough.astype(np.longdouble) + rest
    return Moments(count, mean, deviations.astype(np.longdouble), magnitudes(features))


def magnitudes(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest magnitude of each feature; 0 if it has no value."""
    largest: NDArray[np.float64] = np.fmax.reduce(np.abs(features), axis=0, initial=0)
    return largest


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of the rows of both (Chan, Golub and LeVeque 1979)."""
    count = a.counts + b.counts
    share = b.counts / np.maximum(count, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = b.mean - a.mean
        mean = a.mean + apart * share
        deviations = a.deviations + b.deviations + apart**2 * a.counts * share
    return Moments(count, mean, deviations, np.maximum(a.largest, b.largest))


def variance(moments: Moments, rows: int) -> NDArray[np.float64]:
    """Return each feature's variance once its gaps are filled with its mean."""
    return (moments.deviations / rows).astype(np.float64)


def scale(moments: Moments, rows: int) -> NDArray[np.float64]:
    """Return each feature's divisor: its standard deviation, or 1 if it is constant apart from rounding.

    StandardScaler decides in the same way what is constant (scikit-learn 1.9, `_is_constant_feature`).
    """
    spread = variance(moments, rows)
    eps = np.finfo(np.float64).eps
    constant = spread <= rows * eps * spread + (rows * moments.mean.astype(np.float64) * eps) ** 2
    return np.where(constant, 1, np.sqrt(spread))
