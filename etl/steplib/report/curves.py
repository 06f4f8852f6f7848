"""The numbers of a run's page. benign, malignant: the probabilities of M of the rows of each class, ascending."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

CONFIDENCE = 0.95
# A plot shows no more points than this; a file may have millions of rows.
MOST_POINTS = 300
BINS = 10
# A probability of exactly 0 or 1 has no logit.
CLIP = 1e-12
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Of the net benefit, unless M is rare.
LOWEST = 0.01
# Newton's method for two parameters converges in a handful of steps, or never: for classes that are separated.
MOST_STEPS, TOLERANCE = 50, 1e-10


class Cases(NamedTuple):
    """How often each of the four cases occurs at some thresholds, (thresholds,); M is positive."""

    threshold: Array
    true_positives: Counts
    false_positives: Counts
    true_negatives: Counts
    false_negatives: Counts


class Curve(NamedTuple):
    """Points of a curve, with the ends of the 95 % interval of each y."""

    x: Array
    y: Array
    low: Array
    high: Array


class Bins(NamedTuple):
    """Rows grouped by probability: their number, their mean probability, and the share of M with its interval."""

    rows: Counts
    predicted: Array
    observed: Array
    low: Array
    high: Array


def count(benign: Array, malignant: Array, thresholds: Array) -> Cases:
    """Count the four cases at each threshold, from which on a row is called M."""
    true_negatives, false_negatives = (np.searchsorted(rows, thresholds, "left") for rows in (benign, malignant))
    return Cases(
        threshold=thresholds,
        true_positives=len(malignant) - false_negatives,
        false_positives=len(benign) - true_negatives,
        true_negatives=true_negatives,
        false_negatives=false_negatives,
    )


def wilson(successes: Counts, trials: Counts) -> tuple[Array, Array]:
    """Return the ends of the 95 % intervals of proportions (Wilson 1927); 0 and 1 where there are no trials."""
    z = norm.isf((1 - CONFIDENCE) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = successes / trials
        middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
        half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # Where all or none succeed, an end is exactly 1 or 0, which rounding would miss.
    return np.where(successes > 0, middle - half, 0.0), np.where(successes < trials, middle + half, 1.0)


def roc(benign: Array, malignant: Array) -> Curve:
    """Return sensitivity over 1 - specificity, from none called M to all."""
    cases = count(benign, malignant, _cuts(benign, malignant))
    low, high = wilson(cases.true_positives, np.full(len(cases.threshold), len(malignant)))
    return Curve(cases.false_positives / len(benign), cases.true_positives / len(malignant), low, high)


def precision_recall(benign: Array, malignant: Array) -> Curve:
    """Return precision over recall, from the highest threshold at which a row is called M to that at which all are."""
    cases = count(benign, malignant, _cuts(benign, malignant)[1:])
    called = cases.true_positives + cases.false_positives
    low, high = wilson(cases.true_positives, called)
    return Curve(cases.true_positives / len(malignant), cases.true_positives / called, low, high)


def _cuts(benign: Array, malignant: Array) -> Array:
    """Return the thresholds of a curve, descending: infinity, then at most MOST_POINTS of the probabilities."""
    found = np.unique(np.concatenate([_thin(benign), _thin(malignant)]))[::-1]
    return np.concatenate([[np.inf], found])


def _thin(rows: Array) -> Array:
    """Return at most half of MOST_POINTS rows, evenly spaced, with the first and the last."""
    if len(rows) <= MOST_POINTS // 2:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST_POINTS // 2).round().astype(np.int64)]


def calibrate(benign: Array, malignant: Array) -> Bins:
    """Group the rows into ten bins of about equally many; equal probabilities are in the same bin."""
    both = np.sort(np.concatenate([benign, malignant]))
    edges = np.unique(both[np.arange(1, BINS) * len(both) // BINS])
    # A bin begins with its edge, so the first one, if nothing is below its edge, is empty.
    starts = [np.concatenate([[0], np.searchsorted(rows, edges, "left"), [len(rows)]]) for rows in (benign, malignant)]
    rows, hits = np.diff(starts[0]) + np.diff(starts[1]), np.diff(starts[1])
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (benign, malignant)]
    total = sum(np.diff(part[at]) for part, at in zip(sums, starts, strict=True))
    is_filled = rows > 0
    rows, hits, total = rows[is_filled], hits[is_filled], np.asarray(total)[is_filled]
    return Bins(rows, total / rows, hits / rows, *wilson(hits, rows))


def recalibrate(benign: Array, malignant: Array) -> tuple[float, float] | None:
    """Return slope and intercept of a logistic regression of the outcome on logit(p); None if there is no optimum.

    1 and 0 are perfect; a slope below 1 means that the probabilities are too extreme (Cox 1958).
    """
    x = logit(np.clip(np.concatenate([benign, malignant]), CLIP, 1 - CLIP))
    y = np.repeat([0.0, 1.0], [len(benign), len(malignant)])
    weights = np.zeros(2)
    for _ in range(MOST_STEPS):
        p = expit(weights[0] * x + weights[1])
        weight = p * (1 - p)
        gradient = np.array([(y - p) @ x, (y - p).sum()])
        hessian = np.array([[weight @ x**2, weight @ x], [weight @ x, weight.sum()]])
        if np.linalg.cond(hessian) > 1 / np.finfo(float).eps:
            return None
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < TOLERANCE:
            return float(weights[0]), float(weights[1])
    return None


def acting_thresholds(prevalence: float, in_use: float | None) -> Array:
    """Return thresholds from 0.01 to 0.99; where M is rare or the one in use low, from lower on, by equal factors."""
    lowest = min(prevalence / 10, in_use / 2 if in_use and in_use > 0 else 1)
    return np.arange(LOWEST, 1, 0.01) if lowest >= LOWEST else np.geomspace(lowest, 0.99, MOST_POINTS)


def net_benefit(benign: Array, malignant: Array, thresholds: Array) -> tuple[Array, Array]:
    """Return the net benefit of the model and of treating all, at thresholds below 1 (Vickers and Elkin 2006)."""
    cases, rows = count(benign, malignant, thresholds), len(benign) + len(malignant)
    odds = thresholds / (1 - thresholds)
    model = cases.true_positives / rows - cases.false_positives / rows * odds
    return model, len(malignant) / rows - len(benign) / rows * odds
