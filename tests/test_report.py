"""report.html: its numbers against the run's CSVs, what it never shows, and that it is made once."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Project, RunUpTo, copy_runs, is_verified, wdbc_rows
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_auc_score
from steplib.model.scoring import Measured
from steplib.report import by_class, curves, missed, plots
from steplib.report.rounding import show_share
from steplib.table.schema import fold_of, is_test

MOST_BYTES = 300_000


def scores(rows: int, share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of B and of M, each ascending."""
    rng = np.random.default_rng(rows)
    target = rng.random(rows) < share
    probability = 1 / (1 + np.exp(-rng.normal(size=rows) - 2 * target + 1))
    return np.sort(probability[~target]), np.sort(probability[target])


def joined(benign: np.ndarray, malignant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and probabilities."""
    return np.repeat([0, 1], [len(benign), len(malignant)]), np.concatenate([benign, malignant])


def all_rows(run: Path) -> pd.DataFrame:
    """Return the rows that a page is about."""
    return pd.concat([pd.read_csv(run / name) for name in ("cross_validation.csv", "predictions.csv")])


def table_after(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    table = page.split(f"<h2>{heading}</h2>")[1].split("<table>")[1].split("</table>", maxsplit=1)[0]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [
        [re.sub(r"<[^>]+>|\s+", " ", cell).strip() for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)]
        for row in rows
    ]


def test_thresholds_are_those_of_the_files(project: Project) -> None:
    """Each number of the table follows from cross_validation.csv and predictions.csv."""
    project.chain()
    (run,) = project.runs()
    page, rows = (run / "report.html").read_text(encoding="utf-8"), all_rows(run)
    _, *table = table_after(page, "Other thresholds")

    assert [row[0] for row in table if "in use" in row[0]] == ["0.5 (in use)"]
    assert len(table) == 10
    is_m = rows["y_true"] == 1
    for text, *cells in table:
        called = rows["probability"] >= float(text.split()[0])
        shares = [called[is_m].mean(), 1 - called[~is_m].mean(), is_m[called].mean(), 1 - is_m[~called].mean()]
        assert cells == [
            *(f"{share:.3f}" for share in shares),
            str((is_m & ~called).sum()),
            str((~is_m & called).sum()),
        ]


@pytest.mark.parametrize("rows", [300, 100_000])
def test_curves_are_those_of_scikit_learn(rows: int) -> None:
    """The areas are scikit-learn's, though a curve of many rows has few points."""
    benign, malignant = scores(rows)
    target, probability = joined(benign, malignant)
    roc, found = curves.roc(benign, malignant), curves.precision_recall(benign, malignant)
    precision, recall, _ = precision_recall_curve(target, probability)

    assert np.trapezoid(roc.y, roc.x) == pytest.approx(roc_auc_score(target, probability), abs=1e-3)
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert len(roc.x) <= curves.MOST_POINTS + 1
    assert (found.low <= found.y).all()
    assert (found.y <= found.high).all()
    at = {(round(r, 9), round(p, 9)) for r, p in zip(recall, precision, strict=True)}
    assert {(round(r, 9), round(p, 9)) for r, p in zip(found.x, found.y, strict=True)} <= at


def test_recalibration_is_a_logistic_regression() -> None:
    """Slope and intercept are those of an unpenalized logistic regression on logit(p)."""
    benign, malignant = scores(500)
    target, probability = joined(benign, malignant)
    logit = np.log(probability / (1 - probability))[:, None]
    expected = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit, target)

    found = curves.recalibrate(benign, malignant)
    assert found == pytest.approx((expected.coef_[0, 0], expected.intercept_[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("benign", "malignant"), [([0.0, 0.1], [0.9, 1.0]), ([0.4] * 5, [0.4] * 3)], ids=["separated", "constant"]
)
def test_recalibration_that_has_no_optimum(benign: list[float], malignant: list[float]) -> None:
    """Of classes that are separated, or of equal probabilities, there is none."""
    assert curves.recalibrate(np.array(benign), np.array(malignant)) is None


def test_bins_are_all_rows() -> None:
    """Each row is in one bin; equal probabilities are in the same."""
    benign, malignant = (np.round(rows, 1) for rows in scores(700))
    bins = curves.calibrate(benign, malignant)

    assert bins.rows.sum() == 700
    assert (bins.rows * bins.observed).sum() == pytest.approx(len(malignant))
    assert (bins.rows * bins.predicted).sum() == pytest.approx(benign.sum() + malignant.sum())
    assert (np.diff(bins.predicted) > 0).all()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0, "0.000"), (1, "1.000"), (0.5, "0.500"), (0.9994, "0.999"), (0.9995, "0.99950"), (0.0005, "0.001")),
        *((999_932 / 1e6, "0.999932"), (0.00068, "0.001"), (0.00032, "0.00032"), (0.1 * 3 / 0.3, "1.000"), (None, "-")),
    ],
)
def test_shares_are_never_rounded_to_none_or_all(value: float | None, shown: str) -> None:
    """A share has three decimals; near 0 and 1, as many as it needs to differ from them."""
    assert show_share(value) == shown


@pytest.mark.parametrize("share", [0.4, 0.01, 0.0005])
@pytest.mark.parametrize("in_use", [None, 0.5, 1e-4, 0.0, 2.0])
def test_net_benefit_of_a_rare_class(share: float, in_use: float | None) -> None:
    """The thresholds reach from below the share of M, and the one in use, to 1; the plot has no warning."""
    benign, malignant = scores(100_000, share)
    thresholds = curves.acting_thresholds(len(malignant) / 100_000, in_use)
    model, treat_all = curves.net_benefit(benign, malignant, thresholds)

    assert 0 < thresholds[0] <= max(min(0.01, share / 9), 1e-5)
    assert thresholds[-1] == pytest.approx(0.99)
    assert (treat_all[0] > 0) & (treat_all[-1] < 0)
    if in_use and in_use < 1:
        assert thresholds[0] < in_use
    assert plots.draw_net_benefit(thresholds, model, treat_all, in_use).startswith("<svg")


@pytest.mark.parametrize(
    ("threshold", "rows", "ranges"),
    [
        (0.5, [0.0, 0.1, 0.11, 0.5, 0.6], [(1, 0, 0.01), (1, 0.05, 0.1), (1, 0.1, 0.2), (1, 0.4, 0.5)]),
        (0.1232, [0.11, 0.1231, 0.5], [(2, 0.1, 0.1232)]),
        (None, [0.2, 0.7], []),
    ],
)
def test_missed_by_probability(
    threshold: float | None, rows: list[float], ranges: list[tuple[int, float, float]]
) -> None:
    """Each missed M is in a range below the threshold, or at it; a classifier without one has no such list."""
    number = sum(found for found, *_ in ranges)
    metrics = {"threshold": threshold, "cross_validated": None, "false_negatives": number}
    assert missed.count(Measured(metrics, np.empty(0), np.array(rows))) == ranges


@pytest.mark.parametrize("batch_bytes", [1 << 30, 700])
def test_data_by_class(tmp_path: Path, batch_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, missing values and quantiles are those of the file; a sample does not depend on the batches."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": [f"p{i}" for i in range(400)], "target": rng.integers(0, 2, 400)})
    data["a"], data["b"] = rng.normal(size=400), np.where(rng.random(400) < 0.3, np.nan, 1.5)
    path = tmp_path / "clear_data.csv"
    data.to_csv(path, index=False)

    for target, found in enumerate(by_class.summarize(path, (200, 200), batch_bytes)):
        rows = data[data["target"] == target]
        assert found.rows == found.sampled == len(rows)
        assert found.missing.tolist() == [0, rows["b"].isna().sum()]
        assert found.quantiles[0] == pytest.approx(np.quantile(rows["a"], by_class.QUANTILES))
    monkeypatch.setattr(by_class, "SAMPLE", 50)
    sampled = by_class.summarize(path, (200, 200), batch_bytes)
    assert [part.sampled for part in sampled] == [50, 50]
    for found, expected in zip(sampled, by_class.summarize(path, (200, 200)), strict=True):
        assert found.quantiles == pytest.approx(expected.quantiles, abs=0)


def test_sample_of_few_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ids have many rows, each class has its full sample, in which every id has its share."""
    monkeypatch.setattr(by_class, "SAMPLE", 1000)
    ids = np.tile(np.arange(40), 500)
    data = pd.DataFrame({"id": ids, "target": np.arange(20_000) % 16 == 0, "a": ids + np.arange(20_000) / 1e6})
    data["target"] = data["target"].astype(int)
    path = tmp_path / "clear_data.csv"
    data.to_csv(path, index=False)
    benign, malignant = by_class.summarize(path, (18_750, 1250))

    assert (benign.sampled, malignant.sampled) == (1000, 1000)
    whole = np.quantile(data["a"][data["target"] == 0], by_class.QUANTILES)
    assert benign.quantiles[0] == pytest.approx(whole, abs=2)


@pytest.mark.parametrize(
    ("ids", "has_any"),
    [(range(20), True), (range(19), False), ([*range(19), *[0] * 400], False), ([*range(20), *[0] * 400], True)],
)
def test_no_quantiles_of_few_patients(tmp_path: Path, ids: Sequence[int], *, has_any: bool) -> None:
    """Those of a class under 20 values, or with values of fewer ids, would nearly show a patient's own values."""
    rows = len(ids)
    data = pd.DataFrame({"id": [*ids, *range(1000, 1040)], "target": [1] * rows + [0] * 40})
    data["a"], data["b"] = np.arange(rows + 40.0), np.where(data["id"] == 1, np.nan, np.arange(rows + 40.0))
    data.to_csv(tmp_path / "clear_data.csv", index=False)
    benign, malignant = by_class.summarize(tmp_path / "clear_data.csv", (40, rows))

    assert not np.isnan(benign.quantiles).any()
    # Without the value of one id, there are too few for "b" in any case.
    assert np.isnan(malignant.quantiles).all(axis=1).tolist() == [not has_any, True]


def test_page_shows_no_patient(project: Project, tmp_path: Path) -> None:
    """The page has no script, no address to fetch from, no id and no row; REPORT_IDS=1 names the missed M alone."""
    header, *rows = wdbc_rows()
    data = tmp_path / "patients.csv"
    data.write_text("\n".join([header, *(f"case{row}" for row in rows)]) + "\n", encoding="utf-8")
    project.chain(DATA_URL=str(data))
    project.chain(DATA_URL=str(data), REPORT_IDS="1")
    pages = [(run / "report.html").read_text(encoding="utf-8") for run in project.runs()]
    judged = all_rows(project.runs()[0])
    ids = judged["id"][(judged["y_true"] == 1) & (judged["probability"] <= 0.5)]

    assert [set(re.findall("case[0-9]+", page)) for page in pages] == [set(), set(ids)]
    assert len(ids) == 8
    for page in pages:
        assert len(page) < MOST_BYTES
        assert not re.search(r"<script|<link|@import|(src|href)=\"(?!#)", page)
        assert str(project.root) not in page
        # Measurements of a patient have more digits than a quantile; coordinates in a plot may equal one by chance.
        measured = {value for row in rows for value in row.split(",")[2:] if len(value.replace(".", "").strip("0")) > 4}
        assert not measured & set(re.findall(r"[0-9.]+", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)))


def test_page_is_made_once(project: Project) -> None:
    """A repeated evaluate leaves the page of a finished run alone, and the same settings give the same numbers."""
    log = project.chain()
    (run,) = project.runs()
    page = (run / "report.html").read_bytes()
    assert project.step("evaluate", log, REPORT_IDS="1").returncode == 0

    assert (run / "report.html").read_bytes() == page
    assert json.loads((run / "manifest.json").read_bytes())["artifacts"]["report.html"]["step"] == "evaluate"
    assert (project.root / "results" / "report.html").read_bytes() == page
    assert is_verified(project.step("runs", "verify", run.name))


def test_page_does_not_depend_on_the_user(project: Project, run_up_to: RunUpTo, tmp_path: Path) -> None:
    """Neither a backend, nor a matplotlibrc, nor a home folder that cannot be written changes the page."""
    log = run_up_to("train")
    backup = tmp_path / "train"
    copy_runs(project.root, backup)
    assert project.step("evaluate", log).returncode == 0
    (run,) = project.runs()
    page = (run / "report.html").read_bytes()
    for part in ("results", "logs"):
        shutil.rmtree(project.root / part)
    copy_runs(backup, project.root)
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\naxes.facecolor: red\nlines.linewidth: 9\nbackend: none\nsvg.fonttype: path\n",
        encoding="utf-8",
    )
    (temporary := tmp_path / "temporary").mkdir()
    user = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "HOME": "/dev/null", "TMPDIR": str(temporary)}
    done = project.step("evaluate", log, cwd=tmp_path, **user)

    assert done.returncode == 0, done.stderr
    assert (run / "report.html").read_bytes() == page
    assert not list(temporary.iterdir())
    assert "WARNING" not in done.stderr
    assert "atplotlib" not in done.stderr


def test_page_of_a_classifier_that_decides_in_its_own_way(project: Project) -> None:
    """It says so, and does not derive the probabilities of the missed M."""
    script = project.root / "etl" / "train.py"
    text, usual = script.read_text(encoding="utf-8"), "LogisticRegression(**SOLVER, random_state=SEED)"
    own = f'FixedThresholdClassifier({usual}, threshold=2.0, response_method="decision_function")'
    imported = "    from sklearn.linear_model import LogisticRegression\n"
    text = text.replace(imported, f"{imported}    from sklearn.model_selection import FixedThresholdClassifier\n")
    script.write_text(text.replace(usual, own), encoding="utf-8")
    project.chain(REPORT_IDS="1")
    (run,) = project.runs()
    page = (run / "report.html").read_text(encoding="utf-8")

    assert json.loads((run / "evaluation.json").read_bytes())["threshold"] is None
    assert "its decision does not follow from the probability" in page
    assert "The missed M by their probability" not in page
    assert "The ids of the missed M: " in page


@pytest.mark.parametrize(("lost", "is_alike"), [(10, True), (60, False)])
def test_page_of_rows_that_could_not_be_judged(project: Project, tmp_path: Path, lost: int, *, is_alike: bool) -> None:
    """It counts them, and does not recommend the others if the share of M differs."""
    numbers = range(10_000)
    held_out = [number for number in numbers if is_test(str(number))]
    fold = [number for number in numbers if number not in set(held_out) and fold_of(str(number)) == 3]
    others = [number for number in numbers if number not in {*held_out, *fold}]
    # All M of the training rows are in one fold.
    malignant, benign = {*held_out[:90], *fold[:lost]}, {*held_out[90:160], *fold[60:100], *others[:290]}
    rows = [
        f"{number},{'M' if number in malignant else 'B'},{number % 89},{number % 97}" for number in malignant | benign
    ]
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["id,diagnosis,a,b", *rows]) + "\n", encoding="utf-8")
    project.chain(DATA_URL=str(data))
    page = (project.runs()[0] / "report.html").read_text(encoding="utf-8")

    assert f"<b>{40 + lost} training rows, {lost} of them M, are missing</b>" in page
    assert ("<b>Believe the first column:</b>" in page) == is_alike
    assert ("<b>Do not believe the first column:</b> of its rows, 20 % are M" in page) == (not is_alike)
    assert f"cross-validated, except for {40 + lost} rows" in page
    assert "ten folds" not in page


@pytest.mark.parametrize("width", [1000, 400])
def test_page_in_a_browser(
    project: Project, chromium: Any, tmp_path: Path, width: int, pytestconfig: pytest.Config
) -> None:
    """The page fits a desktop and a telephone, loads nothing, shows six plots, and prints."""
    project.chain()
    page = chromium.new_page(viewport={"width": width, "height": 790})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: asked.append(message.text))
    page.goto(f"file://{project.runs()[0]}/report.html")

    assert len(asked) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [plot.bounding_box() for plot in page.locator("figure > svg").all()]
    assert len(boxes) == 6
    # A column that is too narrow would make a cell high.
    assert all(cell.bounding_box()["height"] < 160 for cell in page.locator("td").all()[:300])
    assert all(box["width"] > 250 and box["height"] > 150 and box["x"] + box["width"] <= width for box in boxes)
    assert page.pdf(format="A4").startswith(b"%PDF")
    is_wanted = pytestconfig.getoption("--pictures") and width == 1000
    page.screenshot(path=(ROOT / "images" if is_wanted else tmp_path) / "report.png")


@pytest.mark.parametrize("name", [90 * "W", 60 * "细胞", "перимиетр <b>x</b> $x_1$"])
def test_names_of_any_length_and_script(project: Project, chromium: Any, tmp_path: Path, name: str) -> None:
    """Long names neither run past the window nor out of their plot, nor do they collide, nor is there a warning."""
    names = [f"{name} {i}" for i in range(30)]
    data = tmp_path / "named.csv"
    data.write_text("\n".join([",".join(["id", "diagnosis", *names]), *wdbc_rows()]) + "\n", encoding="utf-8")
    log = project.chain(DATA_URL=str(data))
    page = chromium.new_page(viewport={"width": 1000, "height": 790})
    page.goto(f"file://{project.runs()[0]}/report.html")

    assert "WARNING" not in Path(log).read_text(encoding="utf-8")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.scrollWidth <= t.clientWidth)")
    plot = page.locator("figure[aria-label^=Weights] > svg")
    labels = [label for label in plot.locator("text").all() if name[:3] in label.text_content()]
    assert len({label.text_content() for label in labels}) == 30
    assert all(label.bounding_box()["x"] >= plot.bounding_box()["x"] for label in labels)


@pytest.mark.parametrize("value", ["2", "yes", "-1"])
def test_setting_that_is_neither(project: Project, value: str) -> None:
    """REPORT_IDS is 0 or 1; anything else is exit 78."""
    done = project.step("data_loader", REPORT_IDS=value)

    assert done.returncode == 78
    assert "REPORT_IDS (set by the environment): expected a whole number from 0 to 1" in done.stderr
