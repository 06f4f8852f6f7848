"""Splitting, fitting and scoring, on tables of a few rows."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import train
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from steplib import scoring
from steplib.dataset import is_test, read_clear_data, split
from steplib.errors import DataError

LOG = logging.getLogger("test")


def table(rows: int) -> pd.DataFrame:
    """Return a table with two features that tell the classes apart, noisily."""
    rng = np.random.default_rng(0)
    target = np.arange(rows) % 2
    features = {f"f{i}": rng.normal(size=rows) + target for i in range(2)}
    return pd.DataFrame({"id": [str(i) for i in range(rows)], "target": target, **features})


def test_split_is_by_id_alone() -> None:
    """A record stays on its side whatever stands around it; about a fifth are test rows."""
    (train_ids, _, _), (test_ids, features, target) = split(table(5000))

    assert set(test_ids) == {str(i) for i in range(5000) if is_test(str(i))}
    assert not set(train_ids) & set(test_ids)
    assert len(test_ids) == len(features) == len(target) == pytest.approx(1000, rel=0.1)
    assert [i for i in ("1", "2", "3", "8", "9", "842302") if is_test(i)] == ["8", "9"]


def test_fit_uses_only_what_it_is_given() -> None:
    """Gaps are filled by the mean of the rows at hand, and the optimum is exact."""
    data = table(200)
    data.loc[0, "f0"] = np.nan
    model = train.fit(train.build_model(), data[["f0", "f1"]], data["target"], LOG)
    scaled = model[:-1].transform(data[["f0", "f1"]])
    probability = model.predict_proba(data[["f0", "f1"]])[:, 1]
    gradient = scaled.T @ (probability - data["target"]) + model[-1].coef_[0]

    assert isinstance(model[-1], LogisticRegression)
    assert model[0].statistics_[0] == pytest.approx(data["f0"][1:].mean())
    assert list(model.feature_names_in_) == ["f0", "f1"]
    assert np.abs(gradient).max() < 1e-8


def test_feature_without_value_among_training_rows_does_no_harm() -> None:
    """A feature that only test rows have keeps its place and has no weight."""
    data = table(50).assign(f2=np.nan)
    model = train.fit(train.build_model(), data[["f0", "f1", "f2"]], data["target"], LOG)

    assert model[-1].coef_[0][2] == 0
    assert model.predict(data[["f0", "f1", "f2"]].assign(f2=5.0)).shape == (50,)


def test_singular_fit_falls_back(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """LinAlgError is a warning, and a DummyClassifier takes the place of the logistic regression."""

    def singular(*_args: object, **_kwargs: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(LogisticRegression, "fit", singular)
    data = table(50)
    model = train.fit(train.build_model(), data[["f0", "f1"]], data["target"], LOG)

    assert isinstance(model[-1], DummyClassifier)
    assert model.predict_proba(data[["f0", "f1"]])[0] == pytest.approx([0.5, 0.5])
    assert "LinAlgError" in caplog.text


def test_number_too_large_to_square_is_refused() -> None:
    """A finite number whose square is not gives a refusal that names the feature."""
    data = table(10)
    data.loc[3, "f1"] = -1e300
    with pytest.raises(DataError, match="feature f1"):
        train.check_size(data)


def test_scores_are_those_of_the_predictions() -> None:
    """Each metric, on six rows counted by hand."""
    predictions = pd.DataFrame(
        {"y_true": [1, 1, 1, 0, 0, 0], "y_pred": [1, 1, 0, 0, 0, 1], "probability": [0.9, 0.8, 0.4, 0.2, 0.1, 0.6]}
    )
    metrics = scoring.score(predictions, pd.Series([0, 0, 1]))

    assert list(metrics)[:4] == ["accuracy", "precision", "recall", "f1_score"]
    assert metrics["accuracy"] == metrics["precision"] == metrics["recall"] == pytest.approx(2 / 3)
    assert [metrics[f"{kind}s"] for kind in ("true_positive", "false_positive", "true_negative", "false_negative")] == [
        *(2, 1, 2, 1)
    ]
    assert metrics["roc_auc"] == pytest.approx(8 / 9)
    assert metrics["brier_score"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.04 + 0.01 + 0.36) / 6)
    assert metrics["baseline_accuracy"] == 0.5
    assert (metrics["train_rows"], metrics["test_rows"]) == (3, 6)


def test_wilson_interval() -> None:
    """The interval is Wilson's, by its formula, and stays within 0 and 1."""
    z, n, p = 1.959963984540054, 50, 0.9
    centre, half = (p + z * z / 2 / n), z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5

    assert scoring.wilson_interval(45, n) == pytest.approx(
        [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    )
    assert scoring.wilson_interval(50, 50)[1] == 1.0


def test_model_that_never_says_m_has_precision_zero() -> None:
    """No positive prediction is a poor model, not a failure of the step."""
    predictions = pd.DataFrame({"y_true": [1, 0], "y_pred": [0, 0], "probability": [0.3, 0.3]})

    assert scoring.score(predictions, pd.Series([0, 0, 1]))["precision"] == 0


def test_clear_data_reads_back_to_the_same_floats(tmp_path: Path) -> None:
    """Every float that transform.py writes, of any size, is read as the very same, an empty one as NaN, ids as text."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**63, 100_000).view("float64")
    numbers = numbers[np.isfinite(numbers)].tolist()
    path = tmp_path / "clear_data.csv"
    rows = [f"NA,0,{number!r},\n" for number in numbers]
    path.write_text("id,target,f0,f1\n" + "".join([*rows, "007,1,,1.0\n"]), encoding="utf-8")
    data = read_clear_data(path)

    assert data["f0"].tolist()[:-1] == numbers
    assert np.isnan(data["f0"].iloc[-1])
    assert (data["id"].iloc[0], data["id"].iloc[-1]) == ("NA", "007")
