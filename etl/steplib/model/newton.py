"""Fitting logistic regression to its exact optimum, over any number of rows: Newton steps on sums over batches.

The loss is scikit-learn's: the log loss summed over the rows, plus half the squared coefficients divided by C; the
intercept is not penalized.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit

Array = NDArray[np.float64]
MOST_STEPS = 100
MOST_HALVINGS = 50


class Derivatives(NamedTuple):
    """The loss at some weights, its gradient (weights,) and its Hessian (weights, weights), empty if not formed."""

    loss: float
    gradient: Array
    hessian: Array = np.empty(0)


class Optimum(NamedTuple):
    """The weights (weights,), the number of steps taken, and whether they have converged."""

    weights: Array
    steps: int
    converged: bool


# Returns the Newton step from some weights and the derivatives there.
Solve = Callable[[Array, Derivatives], Array]


def derivatives(rows: Array, weights: Array) -> Derivatives:
    """Return what some rows add to the loss; rows: (rows, weights + 1), the last column the target, 0 or 1."""
    features, target = rows[:, :-1], rows[:, -1]
    score = features @ weights
    probability = expit(score)
    loss = float((np.logaddexp(0, score) - target * score).sum())
    weighted = features * np.sqrt(probability * (1 - probability))[:, None]
    return Derivatives(loss, features.T @ (probability - target), weighted.T @ weighted)


def add(a: Derivatives, b: Derivatives) -> Derivatives:
    """Return the sum of what two parts add to the loss."""
    return Derivatives(a.loss + b.loss, a.gradient + b.gradient, a.hessian + b.hessian)


def strengths(weights: int, C: float = 1.0) -> Array:  # noqa: N803 - scikit-learn's name
    """Return how strongly each weight is penalized; the last is the intercept, which is not."""
    found = np.full(weights, 1 / C)
    found[-1] = 0
    return found


def penalty(weights: Array, C: float = 1.0) -> Derivatives:  # noqa: N803
    """Return what the weights themselves add to the loss."""
    strength = strengths(len(weights), C)
    return Derivatives(float((strength * np.square(weights)).sum()) / 2, strength * weights, np.diag(strength))


def solve_by_factor(_weights: Array, now: Derivatives) -> Array:
    """Return the Newton step from the derivatives at some weights. Raises LinAlgError for a singular Hessian."""
    step: Array = linalg.cho_solve(linalg.cho_factor(now.hessian), now.gradient)
    return step


def minimize(
    derivatives_at: Callable[[Array], Derivatives], start: Array, rows: int, solve: Solve = solve_by_factor
) -> Optimum:
    """Return the weights at which the gradient vanishes.

    If the loss at the start is no lower than with all weights 0, the steps begin there. The last step is the one whose
    gain is lost in the rounding of the loss itself: the penalty makes the Hessian at least 1/C in each direction, so
    the optimum is no further from there than the square root of C times that gain, and much closer after the step.
    Raises LinAlgError for a singular Hessian.
    """
    weights, now = start, derivatives_at(start)
    if not now.loss < rows * math.log(2):
        weights = np.zeros_like(start)
        now = derivatives_at(weights)
    for steps in range(1, MOST_STEPS + 1):
        step = solve(weights, now)
        gain = float(now.gradient @ step)
        if gain <= np.finfo(np.float64).eps * now.loss:
            return Optimum(weights - step, steps, converged=True)
        for _ in range(MOST_HALVINGS):
            then = derivatives_at(weights - step)
            # Apart from rounding, the loss must not rise.
            if then.loss <= now.loss * (1 + 1e-12):
                break
            step /= 2
        weights, now = weights - step, then
    return Optimum(weights, MOST_STEPS, converged=False)
