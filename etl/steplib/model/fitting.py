"""Fitting a Pipeline to the training rows: logistic regression exactly, batch by batch, any other in memory."""

import copy
import warnings
from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from steplib.model import newton, wide
from steplib.model.moments import scale, variance
from steplib.model.training import EXTRA_COLUMNS, Array, Part, TrainingRows, blocks, group, standardize
from steplib.table.pool import THIS_THREAD, Pool

# The parameters in which a Pipeline that is fitted batch by batch may differ from scikit-learn's defaults.
FREE_PARAMETERS = {
    SimpleImputer: {"keep_empty_features"},
    StandardScaler: set[str](),
    LogisticRegression: {"C", "solver", "tol", "max_iter", "random_state"},
}
# The Hessian of so many features is formed for each Newton step; that of more takes too long.
MOST_OF_NARROW = 256


def fit(model: Pipeline, rows: TrainingRows, pool: Pool = THIS_THREAD, start: Pipeline | None = None) -> Pipeline:
    """Fit a Pipeline to the training rows, in place, and return it. Raises LinAlgError if the fit is singular.

    `start` is one that has been fitted to similar rows: the closer its optimum, the fewer steps.
    """
    if _is_fitted_by_batches(model):
        _assemble(model, rows)
        _minimize(model, rows, pool, start)
    else:
        table = np.concatenate([part.load() for part in rows.parts])
        model.fit(table[:, :-EXTRA_COLUMNS], table[:, -1].astype(np.int8))
        first = model
        while isinstance(first, Pipeline):
            first = first[0]
        first.feature_names_in_ = np.array(rows.features, dtype=object)
    return model


def without_names(estimator: BaseEstimator) -> BaseEstimator:
    """Return a fitted estimator for arrays, whose columns have no names; otherwise scikit-learn would warn of that."""
    estimator = copy.copy(estimator)
    vars(estimator).pop("feature_names_in_", None)
    if isinstance(estimator, Pipeline):
        # A step may also be the word "passthrough".
        parts = [without_names(step) if isinstance(step, BaseEstimator) else step for _, step in estimator.steps]
        estimator.steps = [(name, part) for (name, _), part in zip(estimator.steps, parts, strict=True)]
    # Inside a FixedThresholdClassifier, and a FrozenEstimator in it.
    for name in ("estimator", "estimator_"):
        if isinstance(inner := vars(estimator).get(name), BaseEstimator):
            setattr(estimator, name, without_names(inner))
    return estimator


def use_class_priors(model: Pipeline, rows: TrainingRows) -> Pipeline:
    """Replace the classifier with one that predicts the class frequencies, fit it, and return the model."""
    by_batches = _is_fitted_by_batches(model)
    dummy = DummyClassifier(strategy="prior")
    model.set_params(**{model.steps[-1][0]: dummy})
    if not by_batches:
        return fit(model, rows)
    _assemble(model, rows)
    nothing = np.zeros((2, len(rows.features)))
    dummy.fit(nothing, np.array([0, 1], dtype=np.int8), sample_weight=rows.classes)
    return model


def _is_fitted_by_batches(model: Pipeline) -> bool:
    """Return whether this is the Pipeline whose exact fit is known: impute means, scale, logistic regression."""
    steps = [step for _, step in model.steps]
    return [type(step) for step in steps] == list(FREE_PARAMETERS) and not any(map(_changed_parameters, steps))


def _changed_parameters(step: BaseEstimator) -> set[str]:
    """Return the parameters of a step that differ from the defaults where they may not."""
    defaults = type(step)().get_params()
    # Identity first: NaN, the default of `missing_values`, is not equal to itself.
    same = {name for name, value in step.get_params().items() if value is defaults[name] or value == defaults[name]}
    return {*defaults} - same - FREE_PARAMETERS[type(step)]


def _assemble(model: Pipeline, rows: TrainingRows) -> None:
    """Set the fitted attributes of imputer and scaler from the moments of the rows.

    Only this function and `_minimize` know them; a test compares the result with scikit-learn's own.
    """
    impute, scaler = model[0], model[1]
    mean = rows.moments.mean.astype(np.float64)
    scaler.fit(impute.fit_transform(np.zeros((1, len(mean)))))
    impute.feature_names_in_ = np.array(rows.features, dtype=object)
    impute.statistics_, scaler.mean_ = mean, mean.copy()
    scaler.var_, scaler.scale_ = variance(rows.moments, rows.number), scale(rows.moments, rows.number)
    scaler.n_samples_seen_ = type(scaler.n_samples_seen_)(rows.number)


def _minimize(model: Pipeline, rows: TrainingRows, pool: Pool, start: Pipeline | None) -> None:
    """Fit the classifier, and set its fitted attributes."""
    scaler, classifier = model[1], model[2]
    scaling = {"mean": scaler.mean_, "scale": scaler.scale_}
    classifier.classes_, classifier.n_features_in_ = np.array([0, 1], dtype=np.int8), len(rows.features)
    weights = None if start is None else _weights(start, scaler)
    if len(rows.features) > MOST_OF_NARROW:
        optimum = wide.fit(standardize(rows, **scaling), classifier.C, pool, weights)
    else:
        if weights is None:
            weights = _warm_start(classifier, np.concatenate(list(blocks(rows.parts[0], **scaling))))
        optimum = _minimize_narrow(weights, classifier.C, rows, pool, **scaling)
    if not optimum.converged:
        msg = f"the fit did not converge in {optimum.steps} Newton steps; check the features for extreme values"
        warnings.warn(msg, ConvergenceWarning, stacklevel=2)
    classifier.coef_, classifier.intercept_ = optimum.weights[None, :-1].copy(), optimum.weights[-1:].copy()
    classifier.n_iter_ = np.array([optimum.steps], dtype=np.int32)


def _weights(model: Pipeline, scaler: StandardScaler) -> Array:
    """Return the weights of a fitted model for features that are scaled by a different scaler."""
    scaled = model[2].coef_[0] / model[1].scale_
    intercept = model[2].intercept_[0] + scaled @ (scaler.mean_ - model[1].mean_)
    return np.append(scaled * scaler.scale_, intercept)


def _minimize_narrow(  # noqa: PLR0913, PLR0917 - what a loss and its minimum depend on
    start: Array,
    C: float,  # noqa: N803 - scikit-learn's name
    rows: TrainingRows,
    pool: Pool,
    mean: Array,
    scale: Array,
) -> newton.Optimum:
    """Return the optimum, by Newton steps over all rows."""
    groups = group(rows.parts)

    def derivatives_at(weights: Array) -> newton.Derivatives:
        found = pool.map(partial(_derivatives, weights=weights, mean=mean, scale=scale), groups)
        return reduce(newton.add, found, newton.penalty(weights, C))

    return newton.minimize(derivatives_at, start, rows.number)


def _warm_start(classifier: LogisticRegression, rows: Array) -> Array:
    """Return the weights that scikit-learn fits to some scaled rows, as the start of the steps over all rows."""
    features, target = rows[:, :-EXTRA_COLUMNS], rows[:, -1].astype(np.int8)
    if target.min() == target.max():
        # One class alone cannot be fitted; two dummy rows start the search from zero weights.
        features, target = np.zeros((2, features.shape[1])), np.array([0, 1], dtype=np.int8)
    with warnings.catch_warnings():
        # Whether it converges here does not matter yet.
        warnings.simplefilter("ignore")
        classifier.fit(features, target)
    return np.append(classifier.coef_[0], classifier.intercept_)


def _derivatives(parts: Sequence[Part], weights: Array, mean: Array, scale: Array) -> newton.Derivatives:
    """Return what the rows of some parts add to the loss."""
    scaled = (block for part in parts for block in blocks(part, mean, scale))
    return reduce(newton.add, (newton.derivatives(block, weights) for block in scaled))
