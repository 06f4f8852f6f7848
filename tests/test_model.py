"""Splitting, fitting and scoring, on tables of a few rows."""

import io
import logging
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import train
from sklearn import metrics
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from steplib.errors import DataError, MemoryShortError
from steplib.model import fitting, newton, scoring, wide
from steplib.model.metrics import Scores, score, wilson_interval
from steplib.model.training import Part, read_training_rows
from steplib.table import arrays, batches
from steplib.table.pool import THIS_THREAD
from steplib.table.schema import is_test

LOG = logging.getLogger("test")


def table(rows: int) -> pd.DataFrame:
    """Return a table with two features that separate the classes, with noise."""
    rng = np.random.default_rng(0)
    target = np.arange(rows) % 2
    features = {f"f{i}": rng.normal(size=rows) + target for i in range(2)}
    return pd.DataFrame({"id": [str(i) for i in range(rows)], "target": target, **features})


def fit(data: pd.DataFrame, folder: Path, batch_bytes: int = 1 << 20) -> Pipeline:
    """Fit the model to the training rows of a table."""
    clear = folder / "clear_data.csv"
    data.to_csv(clear, index=False)
    return train.fit(read_training_rows(clear, folder / "rows", batch_bytes), THIS_THREAD, LOG)


def training_rows(data: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are not test rows."""
    return data[[not is_test(record_id) for record_id in data["id"]]]


def test_split_is_by_id_alone() -> None:
    """The id alone decides on which side a record is; about a fifth are test rows."""
    assert sum(is_test(str(i)) for i in range(5000)) == pytest.approx(1000, rel=0.1)
    assert [i for i in ("1", "2", "3", "8", "9", "842302") if is_test(i)] == ["8", "9"]


@pytest.mark.parametrize("batch_bytes", [1 << 20, 200])
def test_fit_uses_training_rows_only_and_is_exact(tmp_path: Path, batch_bytes: int) -> None:
    """Missing values become the mean of the training rows, and the gradient vanishes at the fitted weights."""
    data = table(200)
    data.loc[0, "f0"] = np.nan
    model = fit(data, tmp_path, batch_bytes)
    rows = training_rows(data)
    scaled = model[:-1].transform(rows[["f0", "f1"]])
    probability = model.predict_proba(rows[["f0", "f1"]])[:, 1]
    gradient = scaled.T @ (probability - rows["target"]) + model[-1].coef_[0]

    assert isinstance(model[-1], LogisticRegression)
    assert model[0].statistics_[0] == pytest.approx(rows["f0"].mean(), rel=1e-14)
    assert list(model.feature_names_in_) == ["f0", "f1"]
    assert np.abs(gradient).max() < 1e-12
    assert abs((probability - rows["target"]).sum()) < 1e-12


@pytest.mark.parametrize("batch_bytes", [1 << 20, 500])
def test_model_is_that_of_scikit_learn(tmp_path: Path, batch_bytes: int) -> None:
    """A Pipeline fitted in batches has the attributes, types and numbers of one that scikit-learn fitted."""
    data = table(300).assign(f2=7.0, f3=1e9 + np.arange(300), f4=[np.nan, *range(299)])
    rows = training_rows(data)
    theirs = train.build_model().fit(rows.drop(columns=["id", "target"]), rows["target"].astype("int8"))
    for ours, other in zip(fit(data, tmp_path, batch_bytes), theirs, strict=True):
        assert vars(ours).keys() == vars(other).keys()
        for name, value in vars(other).items():
            if isinstance(value, np.ndarray | np.generic) and name != "n_iter_":
                actual = vars(ours)[name]
                assert (type(actual), actual.dtype, actual.shape) == (type(value), value.dtype, value.shape), name
                assert (actual == value).all() or actual == pytest.approx(value, rel=1e-10, abs=1e-10), name


def test_feature_without_value_among_training_rows_does_no_harm(tmp_path: Path) -> None:
    """A feature with values only in test rows keeps its place and has weight zero."""
    data = table(50).assign(f2=np.nan)
    data.loc[data["id"] == "8", "f2"] = 5.0
    model = fit(data, tmp_path)

    assert model[-1].coef_[0][2] == 0
    assert model.predict(data[["f0", "f1", "f2"]].assign(f2=5.0)).shape == (50,)


def test_singular_fit_falls_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """LinAlgError is logged as a warning, and a DummyClassifier replaces the logistic regression."""

    def singular(*_args: object, **_kwargs: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(LogisticRegression, "fit", singular)
    data = table(50)
    model = fit(data, tmp_path)
    share = training_rows(data)["target"].mean()

    assert isinstance(model[-1], DummyClassifier)
    assert model.predict_proba(data[["f0", "f1"]])[0] == pytest.approx([1 - share, share])
    assert "LinAlgError" in caplog.text


def test_singular_hessian_is_an_error() -> None:
    """If the Hessian allows no step, LinAlgError is raised."""
    singular = newton.Derivatives(1.0, np.ones(2), np.zeros((2, 2)))
    with pytest.raises(np.linalg.LinAlgError):
        newton.minimize(lambda _: singular, np.zeros(2), 10)


@pytest.mark.parametrize("start", [0.0, 50.0, -1000.0])
def test_newton_finds_the_optimum_from_anywhere(start: float) -> None:
    """A step that is too long is halved until the loss decreases."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=(100, 3)), np.ones(100), rng.integers(0, 2, 100)])

    def derivatives_at(weights: np.ndarray) -> newton.Derivatives:
        return newton.add(newton.derivatives(rows, weights), newton.penalty(weights))

    optimum = newton.minimize(derivatives_at, np.full(4, start), 100)
    assert optimum.converged
    assert np.abs(derivatives_at(optimum.weights).gradient).max() < 1e-12


def wide_table(rows: int, features: int) -> pd.DataFrame:
    """Return a table of a few factors and noise: with gaps, two features that are equal, and a constant one."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(rows, 3))
    values = factors @ rng.normal(size=(3, features)) + rng.normal(size=(rows, features)) + 100
    values[rng.random(values.shape) < 0.05] = np.nan
    values[:, 1], values[:, 2] = values[:, 0], 7
    data = pd.DataFrame(values, columns=[f"f{i}" for i in range(features)])
    data.insert(0, "id", [str(i) for i in range(rows)])
    data.insert(1, "target", (factors[:, 0] + rng.normal(size=rows) > 0).astype(int))
    return data


@pytest.mark.parametrize("batch_bytes", [1 << 20, 20_000])
@pytest.mark.parametrize(("rows", "features"), [(8, 300), (60, 900), (400, 500), (1500, 300)])
def test_fit_of_many_features_is_exact(tmp_path: Path, rows: int, features: int, batch_bytes: int) -> None:
    """The gradient vanishes also with more features than rows, and the model is that of scikit-learn."""
    data = wide_table(rows, features)
    ours = fit(data, tmp_path, batch_bytes)
    training_table = training_rows(data)
    values, target = training_table.drop(columns=["id", "target"]), training_table["target"].astype("int8")
    theirs = train.build_model().fit(values, target)
    scaled, error = ours[:-1].transform(values), ours.predict_proba(values)[:, 1] - target

    assert features > fitting.MOST_OF_NARROW
    assert np.abs(scaled.T @ error + ours[-1].coef_[0]).max() < 1e-12
    assert abs(error.sum()) < 1e-12
    assert vars(ours[-1]).keys() == vars(theirs[-1]).keys()
    assert ours[-1].coef_ == pytest.approx(theirs[-1].coef_, abs=1e-8)
    assert ours[-1].intercept_ == pytest.approx(theirs[-1].intercept_, abs=1e-8)
    assert ours[-1].coef_[0, 2] == 0


def test_memory_for_many_features_is_that_of_the_rows(tmp_path: Path) -> None:
    """No square matrix of the features is formed where there are far more of them than rows."""
    clear = tmp_path / "clear_data.csv"
    wide_table(50, 3000).to_csv(clear, index=False)
    rows = read_training_rows(clear, tmp_path / "rows")
    tracemalloc.start()
    try:
        fitting.fit(train.build_model(), rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * rows.number * 3000 * 8


@pytest.mark.parametrize(("rows", "features"), [(400, 500), (1500, 300)])
def test_few_passes_suffice_for_features_that_hang_together(rows: int, features: int) -> None:
    """Where conjugate gradients alone would take hundreds of passes over the rows, a factor of the Hessian helps."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, features)) / np.arange(1, features + 1) @ rng.normal(size=(features, features))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    target = values[:, 0] + rng.normal(size=rows) > 0
    table = np.column_stack([values, np.ones(rows), target])
    loads = []

    def load() -> np.ndarray:
        loads.append(1)
        return table

    optimum = wide.fit([Part(*table.shape, load)], C=1.0)
    gradient = newton.derivatives(table, optimum.weights).gradient + newton.penalty(optimum.weights).gradient
    assert optimum.converged
    assert np.abs(gradient).max() < 1e-11
    assert len(loads) < 100


def test_singular_product_is_an_error() -> None:
    """If the Hessian gives the gradient no curvature, LinAlgError is raised."""
    with pytest.raises(np.linalg.LinAlgError):
        wide.conjugate_gradients(np.zeros_like, newton.Derivatives(1.0, np.ones(2)), np.copy, 10)


@pytest.mark.parametrize("row", [8, 99], ids=["a test row", "a training row"])
def test_number_too_large_to_square_is_refused(tmp_path: Path, row: int) -> None:
    """A number whose square overflows is refused by the name of its feature, in test and training rows alike."""
    data = table(100)
    data.loc[row, "f1"] = -1e300
    assert is_test(str(row)) == (row == 8)
    with pytest.raises(DataError, match="feature f1"):
        fit(data, tmp_path, 200)


def test_scores_are_those_of_scikit_learn() -> None:
    """Each metric equals scikit-learn's, also with tied probabilities."""
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 2, 1000)
    probability = np.clip(np.round(y_true * 0.2 + rng.random(1000) * 0.8, 2), 0, 1)
    y_pred = (probability > 0.5).astype(int)
    found = score(scores_of(y_true, y_pred, probability, train_classes=[2, 1]))

    assert list(found)[:4] == ["accuracy", "precision", "recall", "f1_score"]
    for name in ("accuracy", "precision", "recall", "f1"):
        theirs = getattr(metrics, f"{name}_score")(y_true, y_pred)
        assert found["f1_score" if name == "f1" else name] == theirs
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(y_true, probability), rel=1e-13)
    average_precision = metrics.average_precision_score(y_true, probability)
    assert found["average_precision"] == pytest.approx(average_precision, rel=1e-13)
    assert found["brier_score"] == pytest.approx(metrics.brier_score_loss(y_true, probability), rel=1e-13)
    counts = [found[f"{kind}s"] for kind in ("true_negative", "false_positive", "false_negative", "true_positive")]
    assert counts == metrics.confusion_matrix(y_true, y_pred).ravel().tolist()
    assert found["baseline_accuracy"] == (y_true == 0).mean()
    assert (found["train_rows"], found["test_rows"]) == (3, 1000)


def scores_of(y_true: np.ndarray, y_pred: np.ndarray, probability: np.ndarray, train_classes: list[int]) -> Scores:
    """Return the scores that evaluate.py collects from these predictions."""
    return Scores(
        benign=probability[y_true == 0],
        malignant=probability[y_true == 1],
        confusion=metrics.confusion_matrix(y_true, y_pred),
        squared_error=float(((probability - y_true) ** 2).sum()),
        train_classes=np.array(train_classes),
    )


def test_wilson_interval() -> None:
    """The interval follows Wilson's formula and stays within 0 and 1."""
    z, n, p = 1.959963984540054, 50, 0.9
    centre, half = (p + z * z / 2 / n), z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5

    assert wilson_interval(45, n) == pytest.approx(
        [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    )
    assert wilson_interval(50, 50)[1] == 1.0


def test_model_that_never_predicts_m_has_precision_zero() -> None:
    """Without a positive prediction the precision is 0, and the step does not fail."""
    found = score(scores_of(np.array([1, 0]), np.array([0, 0]), np.array([0.3, 0.3]), train_classes=[2, 1]))

    assert found["precision"] == 0


def test_test_rows_that_do_not_fit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If memory runs out while the probabilities are sorted, the error names their number."""

    def fail(*_args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("steplib.model.metrics.rank", fail)
    data = table(200)
    model = fit(data, tmp_path)
    rows = 200 - len(training_rows(data))
    with pytest.raises(MemoryShortError, match=f"the probabilities of {rows} test rows") as raised:
        scoring.measure(model, tmp_path / "clear_data.csv", io.BytesIO(), 1000)
    assert raised.value.exit_code == os.EX_OSERR


@pytest.mark.parametrize("small", [0, 1 << 30], ids=["as arrays", "row by row"])
def test_clear_data_reads_back_to_the_same_floats(tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats of any size are read back exactly, an empty field as NaN, and ids as text."""
    monkeypatch.setattr(batches, "SMALL_FILE_BYTES", small)
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**63, 100_000).view("float64")
    numbers = numbers[np.isfinite(numbers)].tolist()
    path = tmp_path / "clear_data.csv"
    rows = [f"NA,0,{number!r},\n" for number in numbers]
    path.write_text("id,target,f0,f1\n" + "".join([*rows, '"0,""0\n7",1,,1.0\n']), encoding="utf-8")
    (batch,) = batches.split(path, 1 << 30, first_line=2)
    ids, target, features = arrays.read_clear(batch, 2)

    assert features[:-1, 0].tolist() == numbers
    assert np.isnan(features[-1, 0])
    assert features[-1, 1] == 1
    assert (ids[0], ids[-1], target.tolist()) == ("NA", '0,"0\n7', [0] * len(numbers) + [1])


@pytest.mark.parametrize(
    "steps",
    [
        [("classify", HistGradientBoostingClassifier(max_iter=5))],
        [
            ("impute", SimpleImputer()),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(class_weight="balanced")),
        ],
    ],
    ids=["another classifier", "another parameter"],
)
def test_any_other_pipeline_is_fitted_by_scikit_learn(tmp_path: Path, steps: list[tuple[str, Any]]) -> None:
    """A Pipeline that cannot be fitted batch by batch gets the training rows in memory, and can be scored."""
    data = table(400)
    data.loc[0, "f0"] = np.nan
    clear = tmp_path / "clear_data.csv"
    data.to_csv(clear, index=False)
    training_table = training_rows(data)
    theirs = clone(Pipeline(steps)).fit(training_table[["f0", "f1"]], training_table["target"])
    ours = fitting.fit(Pipeline(steps), read_training_rows(clear, tmp_path / "rows", 1000))
    features = data[["f0", "f1"]]

    assert ours.predict_proba(features) == pytest.approx(theirs.predict_proba(features), rel=1e-12)
    assert scoring.measure(ours, clear, io.BytesIO()).metrics["classifier"] == type(steps[-1][1]).__name__


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_strength_of_the_penalty_is_respected(tmp_path: Path, C: float) -> None:  # noqa: N803 - scikit-learn's name
    """A different C is fitted batch by batch, to the optimum that scikit-learn finds."""
    clear = tmp_path / "clear_data.csv"
    table(400).to_csv(clear, index=False)
    models = [train.build_model().set_params(classify__C=C) for _ in range(2)]
    rows = training_rows(table(400))
    theirs = models[0].fit(rows[["f0", "f1"]], rows["target"])
    ours = fitting.fit(models[1], read_training_rows(clear, tmp_path / "rows", 1000))

    assert ours[-1].coef_ == pytest.approx(theirs[-1].coef_, rel=1e-9)
