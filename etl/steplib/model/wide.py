"""Fitting logistic regression to many features, for which a Hessian at each Newton step would take too long.

Conjugate gradients find the steps by products with the Hessian, each of them a pass over the rows (Nocedal and Wright,
Numerical Optimization, 7.1). After a number of passes the Hessian is formed and factored, and then preconditions the
steps. Far more features than rows are first reduced to as many as there are rows.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from operator import add

import numpy as np
from numpy.linalg import LinAlgError
from scipy import linalg
from scipy.linalg import blas, lapack
from scipy.special import expit

from steplib.model import newton
from steplib.model.newton import Derivatives, Optimum
from steplib.model.training import EXTRA_COLUMNS, Array, Part, cut, group
from steplib.table.pool import THIS_THREAD, Pool

# From so many times more features than rows, reducing them takes less time than it saves.
FAR_MORE = 1.5
# The Hessian is first formed after a pass for each 64 of its columns, and again after one for each 16. It takes as long
# as a pass for each 30 or so; the first one saves the most passes.
FIRST_AFTER, AGAIN_AFTER = 64, 16
# What may remain of the squared gradient after a step, as a fraction.
LOOSEST = 0.1
# For a step with a new factor, where a few passes suffice.
MOST_PASSES = 100

Map = Callable[[Array], Array]


def fit(
    parts: Sequence[Part],
    C: float,  # noqa: N803 - scikit-learn's name
    pool: Pool = THIS_THREAD,
    start: Array | None = None,
) -> Optimum:
    """Return the optimum for standardized rows. Raises LinAlgError for a singular Hessian.

    More than FAR_MORE times as many features as rows are held in memory. The penalty keeps their weights in the space
    of the rows: with the features' transpose as Q R, they are Q times the weights for R's transpose as features.
    """
    rows, features = sum(part.rows for part in parts), parts[0].columns - EXTRA_COLUMNS
    if features <= FAR_MORE * rows:
        return _minimize(parts, C, pool, start)
    loaded = [part.load() for part in parts]
    table = np.concatenate([part[:, :-EXTRA_COLUMNS] for part in loaded])
    extra = np.concatenate([part[:, -EXTRA_COLUMNS:] for part in loaded])
    is_constant = ~table.any(axis=0)
    (reflectors, factors), triangle = linalg.qr(table.T, overwrite_a=True, mode="raw", check_finite=False)
    optimum = _minimize(cut(np.column_stack([triangle.T, extra])), C, THIS_THREAD)
    column = np.append(optimum.weights[:-1], np.zeros(features - rows))[:, None]
    weights = lapack.dormqr("L", "N", reflectors, factors, column, lwork=features)[0][:, 0]
    weights[is_constant] = 0
    return optimum._replace(weights=np.append(weights, optimum.weights[-1]))


def _minimize(parts: Sequence[Part], C: float, pool: Pool, start: Array | None = None) -> Optimum:  # noqa: N803
    """Return the optimum by Newton steps, without a start from weights of 0."""
    groups, rows = group(parts), sum(part.rows for part in parts)
    strengths = newton.strengths(parts[0].columns - 1, C)

    def derivatives_at(weights: Array) -> Derivatives:
        penalty = Derivatives(float(strengths @ np.square(weights)) / 2, strengths * weights)
        return reduce(newton.add, pool.map(partial(_slope, weights=weights), groups), penalty)

    def product(weights: Array, direction: Array) -> Array:
        found = pool.map(partial(_product, weights=weights, direction=direction), groups)
        return reduce(add, found, strengths * direction)

    solve = _solver(product, partial(_factor, parts, strengths), len(strengths))
    return newton.minimize(derivatives_at, np.zeros_like(strengths) if start is None else start, rows, solve)


def _slope(parts: Sequence[Part], weights: Array) -> Derivatives:
    """Return what the rows of some parts add to the loss and its gradient."""
    found = Derivatives(0.0, np.zeros_like(weights))
    for features, target in _columns(parts):
        score = features @ weights
        loss = float((np.logaddexp(0, score) - target * score).sum())
        found = newton.add(found, Derivatives(loss, features.T @ (expit(score) - target)))
    return found


def _product(parts: Sequence[Part], weights: Array, direction: Array) -> Array:
    """Return what the rows of some parts add to the product of the Hessian and a direction."""
    found = np.zeros_like(weights)
    for features, _ in _columns(parts):
        probability = expit(features @ weights)
        found += features.T @ (probability * (1 - probability) * (features @ direction))
    return found


def _columns(parts: Sequence[Part]) -> Iterator[tuple[Array, Array]]:
    """Yield the features, with the intercept, and the target of each part."""
    for part in parts:
        rows = part.load()
        yield rows[:, :-1], rows[:, -1]


def _factor(parts: Sequence[Part], strengths: Array, weights: Array) -> Map:
    """Return the solution of equations with the Hessian as a function, from its factor. Raises LinAlgError."""
    hessian = np.zeros((len(strengths), len(strengths)), order="F")
    np.fill_diagonal(hessian, strengths)
    for features, _ in _columns(parts):
        probability = expit(features @ weights)
        weighted = features * np.sqrt(probability * (1 - probability))[:, None]
        # In place, and only the upper triangle.
        hessian = blas.dsyrk(1.0, weighted.T, 1.0, hessian, overwrite_c=True)
    return partial(linalg.cho_solve, linalg.cho_factor(hessian, overwrite_a=True), check_finite=False)


def _solver(product: Callable[[Array, Array], Array], factor: Callable[[Array], Map], columns: int) -> newton.Solve:
    """Return a function that finds Newton steps, and factors the Hessian when its passes have become too many."""
    precondition: Map = np.copy
    passes, most = 0, columns // FIRST_AFTER

    def solve(weights: Array, now: Derivatives) -> Array:
        nonlocal precondition, passes, most
        step, used = conjugate_gradients(partial(product, weights), now, precondition, most - passes)
        passes += used
        if passes >= most:
            precondition, passes, most = factor(weights), 0, columns // AGAIN_AFTER
            step, _ = conjugate_gradients(partial(product, weights), now, precondition, MOST_PASSES)
        return step

    return solve


def conjugate_gradients(product: Map, now: Derivatives, precondition: Map, most: int) -> tuple[Array, int]:
    """Return the Newton step and the number of products it took, or where it was after `most` of them.

    The less the loss can still gain, the more exact the step, so that the last steps double the correct digits.
    Raises LinAlgError for a singular Hessian.
    """
    step, residual = np.zeros_like(now.gradient), now.gradient
    direction = precondition(residual)
    size = first = float(residual @ direction)
    used, gain = 0, 0.0
    while used < most and size > first * min(LOOSEST, gain / now.loss):
        image = product(direction)
        curvature = float(direction @ image)
        if not curvature > 0:
            raise LinAlgError("the Hessian is singular")
        step = step + size / curvature * direction
        residual = residual - size / curvature * image
        rest = precondition(residual)
        size, before = float(residual @ rest), size
        direction = rest + size / before * direction
        used, gain = used + 1, float(now.gradient @ step)
    return step, used
