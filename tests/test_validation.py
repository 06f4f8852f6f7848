"""Cross-validation: against a Pipeline that scikit-learn fits anew for each fold."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import train
from conftest import ROOT, Project, RunUpTo, is_verified, wdbc_rows
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from steplib.model import fitting, metrics, validation
from steplib.model.training import read_training_rows
from steplib.table.pool import THIS_THREAD
from steplib.table.schema import fold_of, is_test

LOG = logging.getLogger("test")


def wdbc() -> pd.DataFrame:
    """Return the embedded data as clear_data.csv has it."""
    data = pd.read_csv(ROOT / "data" / "wdbc.csv", header=None, dtype={0: str})
    names = ["id", "target", *(f"f{i}" for i in range(30))]
    return data.set_axis(names, axis=1).assign(target=lambda table: (table["target"] == "M").astype(int))


def noise(rows: int, features: int, share: float, ids: int | None = None) -> pd.DataFrame:
    """Return a table in which a share of the rows is M; with `ids`, several rows have the same id."""
    rng = np.random.default_rng(rows)
    target = (rng.random(rows) < share).astype(int)
    columns = {f"f{i}": rng.normal(size=rows) + target * (i < 3) for i in range(features)}
    names = [f"p{i % (ids or rows)}" for i in range(rows)]
    return pd.DataFrame({"id": names, "target": target, **columns})


def with_gaps(data: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a tenth of its values missing, and a feature that nearly all rows lack."""
    rng = np.random.default_rng(1)
    features = data.drop(columns=["id", "target"]).mask(lambda table: rng.random(table.shape) < 0.1)
    features.loc[5:, "f0"] = np.nan
    return pd.concat([data[["id", "target"]], features], axis=1)


TABLES = {
    "wdbc": wdbc,
    "gaps": lambda: with_gaps(wdbc()),
    "sorted": lambda: wdbc().sort_values("target", kind="stable").reset_index(drop=True),
    "rare": lambda: noise(900, 4, 0.02),
    "many rows of an id": lambda: noise(600, 3, 0.4, ids=60),
    "tiny": lambda: noise(30, 2, 0.5),
    "wide": lambda: noise(400, 300, 0.4),
    "wider than long": lambda: noise(150, 400, 0.4),
}


def judge(data: pd.DataFrame, folder: Path, batch_bytes: int = 1 << 30, model: Pipeline | None = None) -> Any:
    """Cross-validate on the training rows of a table."""
    clear = folder / "clear_data.csv"
    data.to_csv(clear, index=False)
    rows = read_training_rows(clear, folder / "rows", batch_bytes)
    fitted = fitting.fit(model or train.build_model(), rows)
    return validation.cross_validate(fitted, rows, clear, batch_bytes, THIS_THREAD, LOG)


def expected(data: pd.DataFrame, model: Pipeline) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the probabilities of Pipelines that scikit-learn fits to the other folds."""
    rows = data[[not is_test(record_id) for record_id in data["id"]]]
    fold = np.array(
        [int.from_bytes(hashlib.sha256(i.encode()).digest()[8:16], "big") * 10 // 2**64 for i in rows["id"]]
    )
    features, target = rows.drop(columns=["id", "target"]), rows["target"]
    found = np.full(len(rows), np.nan)
    for number in np.unique(fold):
        others = fold != number
        if target[others].nunique() == 2:
            fitted = clone(model).fit(features[others], target[others])
            found[~others] = fitted.predict_proba(features[~others])[:, 1]
    return found


@pytest.mark.parametrize("name", TABLES)
def test_each_fold_is_judged_by_the_other_nine(tmp_path: Path, name: str) -> None:
    """The probabilities are those of a model that never saw the fold: imputing, scaling and fitting are inside it."""
    data = TABLES[name]()
    found = judge(data, tmp_path)

    assert found.probability == pytest.approx(expected(data, train.build_model()), abs=1e-7, nan_ok=True)
    assert found.fold.tolist() == [fold_of(record_id) for record_id in found.ids]
    assert len({(i, fold) for i, fold in zip(found.ids, found.fold, strict=True)}) == len(set(found.ids))


def test_batch_size_changes_at_most_a_last_digit(tmp_path: Path) -> None:
    """A different size of the batches gives the same rows, and probabilities that differ by 1e-9 at most."""
    data = with_gaps(wdbc())
    one, many = judge(data, tmp_path), judge(data, tmp_path, batch_bytes=3000)

    assert one.ids == many.ids
    assert one.probability == pytest.approx(many.probability, abs=1e-9)


@pytest.mark.parametrize(
    "classifier",
    [
        HistGradientBoostingClassifier(max_iter=20, random_state=0),
        make_pipeline(SimpleImputer(), AdaBoostClassifier(n_estimators=3, random_state=0)),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_any_other_classifier(tmp_path: Path, classifier: BaseEstimator) -> None:
    """What is not the logistic regression of train.py is fitted by scikit-learn itself in each fold."""
    model = Pipeline([("classify", classifier)])
    data = with_gaps(wdbc())

    assert judge(data, tmp_path, model=clone(model)).probability == pytest.approx(expected(data, model), abs=1e-12)


def test_fold_of_one_class_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If all M have one id, the model without its fold cannot be fitted; the fold's rows are left out and counted."""
    data = noise(60, 2, 0)
    training = [i for i, record_id in enumerate(data["id"]) if not is_test(record_id)][:3]
    data.loc[training, ["id", "target"]] = [data["id"][training[0]], 1]
    with caplog.at_level(logging.INFO):
        found = judge(data, tmp_path)
    left_out = sum(fold_of(i) == fold_of(data["id"][training[0]]) for i in found.ids)

    assert f"cross-validation: {left_out} rows left out" in caplog.text
    validation.write(found, tmp_path / "file")
    assert found.rows == len(found.ids) - left_out
    assert len(pd.read_csv(tmp_path / "file")) == len(found.ids) - left_out


def one_id_for_all_training_m(project: Project) -> dict[str, str]:
    """Write a table in which all M of the training rows have one id; there are M among the test rows too."""
    rows = [row.split(",", 1) for row in wdbc_rows()]
    malignant = [record_id for record_id, rest in rows if rest.startswith("M")]
    one = next(record_id for record_id in malignant if not is_test(record_id))
    lines = [
        f"{one if rest.startswith('M') and not is_test(record_id) else record_id},{rest}" for record_id, rest in rows
    ]
    (project.root / "one.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"DATA_URL": "one.csv"}


def test_no_malignant_row_can_be_judged_out_of_fold(project: Project) -> None:
    """If all M of the training rows have one id, what is undefined out of fold is null, and the run is whole."""
    settings = one_id_for_all_training_m(project)
    log = project.chain(**settings)
    (run,) = project.runs()
    validated = json.loads((run / "evaluation.json").read_bytes())["cross_validated"]
    undefined = {name for name, value in validated["out_of_fold"].items() if value is None}

    assert undefined == {"recall", "recall_interval", "roc_auc", "average_precision"}
    assert not pd.read_csv(run / "cross_validation.csv")["y_true"].any()
    assert validated["all_rows"]["recall"] == 1
    assert validated["all_rows"]["rows"] == validated["out_of_fold"]["rows"] + 124
    assert "rows left out, because the model could not be fitted without them" in Path(log).read_text(encoding="utf-8")
    assert is_verified(project.step("runs", "verify", run.name))
    assert project.step("evaluate", log, **settings).returncode == 0


def test_recall_without_malignant_rows_out_of_fold(project: Project) -> None:
    """MIN_RECALL counts the M that cross-validation could judge: none here, exit 78."""
    settings = one_id_for_all_training_m(project) | {"MIN_RECALL": "0.9"}
    log = project.run_steps(("data_loader", "transform"), **settings)
    done = project.step("train", log, **settings)

    assert done.returncode == 78
    assert "at least 50 M among the training rows that cross-validation can judge, found 0" in done.stderr


def test_classifier_that_refuses_a_fold(tmp_path: Path) -> None:
    """A ValueError in a fold leaves out its rows alone."""
    data = noise(200, 2, 0.5)

    class Refuses(LogisticRegression):
        """Refuses rows without the largest value of the first feature, which is in one fold."""

        def fit(self, X: Any, y: Any) -> "Refuses":  # noqa: N803 - scikit-learn's name
            if X[:, 0].max() < data["f0"][[not is_test(i) for i in data["id"]]].max():
                raise ValueError
            return super().fit(X, y)

    found = judge(data, tmp_path, model=Pipeline([("classify", Refuses())]))

    assert 0 < found.rows < len(found.ids)
    assert len({*found.fold[~found.is_judged]}) == 1


def test_train_without_cross_validation_takes_its_file_away(project: Project) -> None:
    """When train is repeated in an unfinished run and no longer cross-validates, nothing of the old file is used."""
    project.chain()
    own_link = project.root / "results" / "shown_to_the_board.pkl"
    own_link.symlink_to(project.runs()[0] / "model.pkl")
    log = project.run_steps(("data_loader", "transform", "train"))
    (run,) = [run for run in project.runs() if run.name in log]
    assert (project.root / "results" / "cross_validation.csv").resolve() == run / "cross_validation.csv"
    project.shorten_wait("MOST_ROWS = 100_000", "MOST_ROWS = 100")
    project.step("train", log)
    assert not (project.root / "results" / "cross_validation.csv").exists()
    project.step("evaluate", log)

    assert "cross_validation.csv" not in json.loads((run / "manifest.json").read_bytes())["artifacts"]
    assert json.loads((run / "evaluation.json").read_bytes())["cross_validated"] is None
    assert is_verified(project.step("runs", "verify", run.name))
    assert not (run / "cross_validation.csv").exists()
    assert own_link.exists()


def test_results_show_one_run_only(project: Project) -> None:
    """A run that trains again after a later one shows no cross_validation.csv beside the later one's results."""
    log = project.run_steps(("data_loader", "transform"))
    project.shorten_wait("MOST_ROWS = 100_000", "MOST_ROWS = 100")
    project.chain()
    project.shorten_wait("MOST_ROWS = 100", "MOST_ROWS = 100_000")
    assert project.step("train", log).returncode == 0

    assert (project.runs()[0] / "cross_validation.csv").exists()
    assert not (project.root / "results" / "cross_validation.csv").exists()


def test_many_rows_are_not_cross_validated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit, the log says why."""
    monkeypatch.setattr(validation, "MOST_ROWS", 100)
    with caplog.at_level(logging.INFO):
        assert judge(noise(200, 2, 0.5), tmp_path) is None
    assert "cross-validation is left out with more than 100 training rows" in caplog.text


def test_estimates_are_those_of_the_files(project: Project, run_up_to: RunUpTo) -> None:
    """The metrics out of fold and of all rows follow from cross_validation.csv and predictions.csv."""
    run_up_to("evaluate")
    (run,) = project.runs()
    evaluation = json.loads((run / "evaluation.json").read_bytes())
    folds, held_out = pd.read_csv(run / "cross_validation.csv"), pd.read_csv(run / "predictions.csv")

    assert list(folds.columns) == ["id", "y_true", "fold", "probability"]
    assert (len(folds), len(held_out)) == (445, 124)
    assert not set(folds["id"]) & set(held_out["id"])
    for name, rows in {"out_of_fold": folds, "all_rows": pd.concat([folds, held_out])}.items():
        found, correct = evaluation["cross_validated"][name], (rows["probability"] > 0.5) == rows["y_true"]
        assert found["rows"] == len(rows)
        assert found["accuracy"] == pytest.approx(correct.mean(), rel=1e-12)
        assert found["true_positives"] == (correct & (rows["y_true"] == 1)).sum()
        assert found["brier_score"] == pytest.approx(((rows["probability"] - rows["y_true"]) ** 2).mean(), rel=1e-12)
        area, precision = metrics.rank(*(rows["probability"][rows["y_true"] == i].to_numpy(copy=True) for i in (0, 1)))
        assert (found["roc_auc"], found["average_precision"]) == pytest.approx((area, precision), rel=1e-12)
        assert found["accuracy_interval"] == metrics.wilson_interval(int(correct.sum()), len(rows))
    assert evaluation["cross_validated"]["all_rows"]["true_positives"] == 204


def test_large_file_has_no_estimates(project: Project) -> None:
    """Without cross-validation there is no file, and evaluation.json says null."""
    project.shorten_wait("MOST_ROWS = 100_000", "MOST_ROWS = 100")
    project.chain()
    (run,) = project.runs()

    assert not (run / "cross_validation.csv").exists()
    assert json.loads((run / "evaluation.json").read_bytes())["cross_validated"] is None
    assert project.step("runs", "verify", run.name).returncode == 0
