"""What the training rows say of each feature, gathered a batch at a time: how many values, their mean and spread."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Moments(NamedTuple):
    """Of each feature's values, (features,) each: how many, mean, sum of squared deviations, largest by amount.

    Where the machine has longer floats than float64, the middle two are such: else the difference of two batches'
    means would lose the digits that large means with small deviations have in common.
    """

    counts: "NDArray[np.int64]"
    mean: "NDArray[np.longdouble]"
    deviations: "NDArray[np.longdouble]"
    largest: "NDArray[np.float64]"


def none(features: int) -> Moments:
    """Return the moments of no rows."""
    import numpy as np

    nothing = np.zeros(features, dtype=np.longdouble)
    return Moments(np.zeros(features, dtype=np.int64), nothing, nothing, np.zeros(features))


def moments_of(features: "NDArray[np.float64]") -> Moments:
    """Return the moments of some rows; features: (rows, features), NaN where missing."""
    import numpy as np

    missing = np.isnan(features)
    count = len(features) - missing.sum(axis=0)
    # Too large a number makes an infinity here, and is refused when its feature's name is known.
    with np.errstate(over="ignore", invalid="ignore"):
        rough = np.where(missing, 0, features).sum(axis=0) / np.maximum(count, 1)
        apart = np.where(missing, 0, features - rough)
        rest = apart.sum(axis=0) / np.maximum(count, 1)
        deviations = np.square(apart).sum(axis=0) - count * rest**2
        mean = rough.astype(np.longdouble) + rest
    return Moments(count, mean, deviations.astype(np.longdouble), largest_of(features))


def largest_of(features: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the largest value of each feature, by its amount; 0 if it has none."""
    import numpy as np

    largest: NDArray[np.float64] = np.fmax.reduce(np.abs(features), axis=0, initial=0)
    return largest


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of the rows of both (Chan, Golub and LeVeque 1979)."""
    import numpy as np

    count = a.counts + b.counts
    share = b.counts / np.maximum(count, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = b.mean - a.mean
        mean = a.mean + apart * share
        deviations = a.deviations + b.deviations + apart**2 * a.counts * share
    return Moments(count, mean, deviations, np.maximum(a.largest, b.largest))


def variance(moments: Moments, rows: int) -> "NDArray[np.float64]":
    """Return each feature's variance once the gaps are filled with its mean."""
    import numpy as np

    return (moments.deviations / rows).astype(np.float64)


def scale(moments: Moments, rows: int) -> "NDArray[np.float64]":
    """Return what to divide each feature by: its standard deviation, or 1 if it is constant but for rounding.

    What is constant, StandardScaler decides in the same way (scikit-learn 1.9, `_is_constant_feature`).
    """
    import numpy as np

    spread = variance(moments, rows)
    eps = np.finfo(np.float64).eps
    constant = spread <= rows * eps * spread + (rows * moments.mean.astype(np.float64) * eps) ** 2
    return np.where(constant, 1, np.sqrt(spread))
