"""MIN_RECALL: the threshold that reaches a wanted recall, and what it costs."""

import json
from decimal import Decimal
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import Project, is_verified, wdbc_rows
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from steplib.model import threshold


@pytest.mark.parametrize(
    ("recall", "missed"), [("0.9", 1), ("0.91", 0), ("0.8", 2), ("0.85", 1), ("0.999", 0), ("0.001", 9)]
)
def test_highest_threshold_that_reaches_the_recall(recall: str, missed: int) -> None:
    """Of ten M, as many are missed as the recall allows, counted in decimals; a row at the threshold is called M."""
    probability = np.random.default_rng(0).permutation(np.arange(1, 11) / 100)
    chosen = threshold.choose(probability, Decimal(recall))

    assert (probability < chosen).sum() == missed
    assert chosen in probability


@pytest.mark.parametrize("batch_bytes", ["4194304", "20000"])
def test_model_keeps_its_threshold(project: Project, batch_bytes: str) -> None:
    """The model predicts by the threshold wherever it is loaded, and all metrics are by it."""
    log = project.chain(MIN_RECALL="0.98", BATCH_BYTES=batch_bytes)
    (run,) = project.runs()
    model = joblib.load(run / "model.pkl")
    clear = pd.read_csv(run / "clear_data.csv", dtype={"id": str})
    features = clear.drop(columns=["id", "target"])
    evaluation = json.loads((run / "evaluation.json").read_bytes())
    chosen = evaluation["threshold"]

    assert chosen == pytest.approx(0.123, abs=5e-4)
    assert "MIN_RECALL 0.98 takes the threshold 0.12" in Path(log).read_text(encoding="utf-8")
    assert "out of fold, 3 of 171 M missed, 28 of 274 B called M" in Path(log).read_text(encoding="utf-8")
    assert (model.predict(features) == (model.predict_proba(features)[:, 1] >= chosen)).all()
    held_out, folds = pd.read_csv(run / "predictions.csv"), pd.read_csv(run / "cross_validation.csv")
    assert (held_out["y_pred"] == (held_out["probability"] >= chosen)).all()
    assert (evaluation["false_negatives"], evaluation["false_positives"]) == (0, 10)
    found = evaluation["cross_validated"]["out_of_fold"]
    assert (found["false_negatives"], found["false_positives"]) == (3, 28)
    assert found["recall"] == pytest.approx(((folds["probability"] >= chosen) & (folds["y_true"] == 1)).sum() / 171)
    assert evaluation["classifier"] == "LogisticRegression"
    assert is_verified(project.step("runs", "verify", run.name))
    assert project.step("train", log, MIN_RECALL="0.98").returncode == 0
    assert project.step("train", log).returncode == 64


@pytest.mark.parametrize("value", ["1", "0", "-0.5", "1.2", "98", "98%", "nan", "0,9", "1e-1", "0.0"])
def test_recall_that_is_none(project: Project, value: str) -> None:
    """Anything but a number between 0 and 1 is exit 78."""
    done = project.step("data_loader", MIN_RECALL=value)

    assert done.returncode == 78
    assert "MIN_RECALL (set by the environment): expected a number between 0 and 1, such as 0.98" in done.stderr


def test_too_few_malignant_rows(project: Project) -> None:
    """With fewer than 50 M among the training rows, a single one would decide: exit 78."""
    rows = [row for row in wdbc_rows() if ",B," in row] + [row for row in wdbc_rows() if ",M," in row][:55]
    (project.root / "few.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    settings = {"DATA_URL": "few.csv", "MIN_RECALL": "0.9"}
    log = project.run_steps(("data_loader", "transform"), **settings)
    done = project.step("train", log, **settings)

    assert done.returncode == 78, done.stderr
    assert "MIN_RECALL: expected at least 50 M among the training rows, found 48; with" in done.stderr
    assert project.step("train", log, DATA_URL="few.csv").returncode == 0


def test_without_cross_validation(project: Project) -> None:
    """Where cross-validation is left out for size, the model's own probabilities of the training rows serve."""
    project.shorten_wait("MOST_ROWS = 100_000", "MOST_ROWS = 100")
    log = project.chain(MIN_RECALL="0.98")
    (run,) = project.runs()
    evaluation = json.loads((run / "evaluation.json").read_bytes())

    assert "of the training rows, 3 of 171 M missed" in Path(log).read_text(encoding="utf-8")
    assert 0 < evaluation["threshold"] < 0.5
    assert evaluation["cross_validated"] is None
    assert is_verified(project.step("runs", "verify", run.name))


def test_tied_rows_beyond_the_limit(project: Project) -> None:
    """The threshold is just below the probability that many rows share, so that no rounding decides them."""
    lines = [f"p{i},{'M' if i % 3 == 0 else 'B'},{i % 5 + (i % 3 == 0)}" for i in range(600)]
    (project.root / "tied.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    project.shorten_wait("MOST_ROWS = 100_000", "MOST_ROWS = 100")
    called = []
    for batch_bytes in ("4194304", "500", "77"):
        project.chain(DATA_URL="tied.csv", MIN_RECALL="0.9", BATCH_BYTES=batch_bytes)
        run = project.runs()[-1]
        called.append(pd.read_csv(run / "predictions.csv")["y_pred"].tolist())
        threshold_in_use = json.loads((run / "evaluation.json").read_bytes())["threshold"]
        closest = np.abs(pd.read_csv(run / "predictions.csv")["probability"] - threshold_in_use).min()
        assert 1e-10 < closest < 1e-8

    assert called[0] == called[1] == called[2]


@pytest.mark.parametrize(
    "first_steps",
    [
        "",
        '("impute", SimpleImputer(keep_empty_features=True)), ',
        '("prepare", Pipeline([("impute", SimpleImputer()), ("scale", StandardScaler())])), ("none", "passthrough"), ',
    ],
)
def test_other_classifier_with_a_recall(project: Project, first_steps: str) -> None:
    """A classifier of one's own gets its threshold in the same way, as the only step too, and without a warning."""
    script = project.root / "etl" / "train.py"
    text = script.read_text(encoding="utf-8")
    start, end = text.index("    return Pipeline("), text.index("def train(")
    classifier = '("classify", HistGradientBoostingClassifier(max_iter=20, random_state=SEED))'
    body = (
        "    from sklearn.ensemble import HistGradientBoostingClassifier\n\n"
        f"    return Pipeline([{first_steps}{classifier}])\n\n\n"
    )
    script.write_text(text[:start] + body + text[end:], encoding="utf-8")
    log = project.chain(MIN_RECALL="0.98")
    (run,) = project.runs()
    evaluation = json.loads((run / "evaluation.json").read_bytes())
    held_out = pd.read_csv(run / "predictions.csv")

    assert "WARNING" not in Path(log).read_text(encoding="utf-8")
    assert evaluation["classifier"] == "HistGradientBoostingClassifier"
    assert evaluation["cross_validated"]["out_of_fold"]["false_negatives"] <= 3
    assert (held_out["y_pred"] == (held_out["probability"] >= evaluation["threshold"])).all()
    assert json.loads((run / "manifest.json").read_bytes())["steps"]["train"]["threshold"] == evaluation["threshold"]
    assert is_verified(project.step("runs", "verify", run.name))
    assert project.step("train", log, MIN_RECALL="0.98").returncode == 0


def test_own_threshold_of_a_model() -> None:
    """A threshold counts only if it is one of probabilities; 0 is one too."""
    rows, target = np.arange(20.0)[:, None], np.arange(20) % 2
    fixed = FixedThresholdClassifier(LogisticRegression(), threshold=0.0, response_method="predict_proba")
    scores = FixedThresholdClassifier(LogisticRegression(), threshold=0.0, response_method="decision_function")

    usual = FixedThresholdClassifier(LogisticRegression(), threshold=0.2)
    of_b = FixedThresholdClassifier(LogisticRegression(), threshold=0.9, response_method="predict_proba", pos_label=0)
    classifiers = {fixed: 0.0, scores: None, LogisticRegression(): None, usual: 0.2, of_b: None}
    for classifier, expected in classifiers.items():
        found, value = threshold.split_threshold(Pipeline([("classify", classifier.fit(rows, target))]))
        assert value == expected
        assert found.coef_.shape == (1, 1)


def test_predict_that_contradicts_the_probability(project: Project) -> None:
    """If predict does not follow the probability, cross-validated rows are judged differently; a warning says so."""
    script = project.root / "etl" / "train.py"
    text = script.read_text(encoding="utf-8")
    wrapped = "FixedThresholdClassifier(LogisticRegression(**SOLVER, random_state=SEED), threshold=2.0, "
    wrapped += 'response_method="decision_function")'
    text = text.replace("LogisticRegression(**SOLVER, random_state=SEED))", f"{wrapped})")
    text = text.replace(
        "import Pipeline\n", "import Pipeline\n    from sklearn.model_selection import FixedThresholdClassifier\n", 2
    )
    script.write_text(text, encoding="utf-8")
    log = Path(project.chain())

    assert "for some test rows, the model's predict does not follow from their probability" in log.read_text(
        encoding="utf-8"
    )
    (run,) = project.runs()
    assert json.loads((run / "evaluation.json").read_bytes())["threshold"] is None


def test_default_threshold(project: Project) -> None:
    """Without MIN_RECALL, the threshold is 0.5, and the model is a plain Pipeline."""
    project.chain()
    (run,) = project.runs()

    assert json.loads((run / "evaluation.json").read_bytes())["threshold"] == 0.5
    assert type(joblib.load(run / "model.pkl")[-1]).__name__ == "LogisticRegression"
