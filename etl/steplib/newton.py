"""Logistic regression to its exact optimum, over any number of rows: Newton steps on sums over batches.

The loss is scikit-learn's: the log loss summed over the rows plus half the squared coefficients, but for the intercept.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MOST_STEPS = 100
MOST_HALVINGS = 50


class Derivatives(NamedTuple):
    """The loss at some weights, its gradient (weights,) and its Hessian (weights, weights)."""

    loss: float
    gradient: "Array"
    hessian: "Array"


class Optimum(NamedTuple):
    """The weights (weights,), the steps that it took, and whether nothing more is to be gained."""

    weights: "Array"
    steps: int
    converged: bool


def derivatives(rows: "Array", weights: "Array") -> Derivatives:
    """Return what some rows add to the loss; rows: (rows, weights + 1), the last column the target, 0 or 1."""
    import numpy as np
    from scipy.special import expit

    features, target = rows[:, :-1], rows[:, -1]
    score = features @ weights
    probability = expit(score)
    loss = float((np.logaddexp(0, score) - target * score).sum())
    weighted = features * np.sqrt(probability * (1 - probability))[:, None]
    return Derivatives(loss, features.T @ (probability - target), weighted.T @ weighted)


def add(a: Derivatives, b: Derivatives) -> Derivatives:
    """Return the sum of what two parts add to the loss."""
    return Derivatives(a.loss + b.loss, a.gradient + b.gradient, a.hessian + b.hessian)


def penalty(weights: "Array") -> Derivatives:
    """Return what the weights themselves add to the loss; the last is the intercept, which adds nothing."""
    import numpy as np

    penalized = np.ones(len(weights))
    penalized[-1] = 0
    return Derivatives(float(np.square(penalized * weights).sum()) / 2, penalized * weights, np.diag(penalized))


def minimize(at: "Callable[[Array], Derivatives]", start: "Array", rows: int) -> Optimum:
    """Return the weights at which the gradient vanishes.

    `at` gives the derivatives at some weights. Where all weights 0 are better than the start, the steps begin there.
    The last step is the one whose gain is lost in the loss's own rounding: since the penalty makes the Hessian at least
    one in each direction, the optimum is no further from there than the square root of that, and much less after it.
    Raises LinAlgError for a singular Hessian.
    """
    import numpy as np
    from scipy import linalg

    weights, now = start, at(start)
    if not now.loss < rows * math.log(2):
        weights = np.zeros_like(start)
        now = at(weights)
    for steps in range(1, MOST_STEPS + 1):
        step = linalg.cho_solve(linalg.cho_factor(now.hessian), now.gradient)
        gain = float(now.gradient @ step)
        if gain <= np.finfo(np.float64).eps * now.loss:
            return Optimum(weights - step, steps, converged=True)
        for _ in range(MOST_HALVINGS):
            then = at(weights - step)
            # But for rounding, it may not go up.
            if then.loss <= now.loss * (1 + 1e-12):
                break
            step /= 2
        weights, now = weights - step, then
    return Optimum(weights, MOST_STEPS, converged=False)
