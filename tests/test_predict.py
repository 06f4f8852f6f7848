"""Scoring new cases: the numbers, the columns, what is refused, which model, what is written, what is warned of."""

import csv
import hashlib
import io
import json
import math
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from conftest import Completed, Project, RunUpTo, wait_until, wdbc_rows
from steplib.table.schema import WDBC_FEATURES, is_test

Table = list[list[str]]
NAMES = ["id", "diagnosis", *WDBC_FEATURES]


@pytest.fixture
def trained(project: Project, run_up_to: RunUpTo) -> Project:
    """Return a project with a run in use."""
    run_up_to("evaluate")
    return project


def wdbc() -> Table:
    """Return the cells of the embedded data, the header line first."""
    return [NAMES, *csv.reader(wdbc_rows()[1:] if wdbc_rows()[0].startswith("id") else wdbc_rows())]


def write(project: Project, rows: Table, name: str = "cases.csv") -> Path:
    """Write a CSV."""
    path = project.root / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def predict(project: Project, *arguments: object, **settings: str) -> tuple[Table, dict[str, Any], str]:
    """Score cases, which must succeed; return the output's rows without header, its sidecar, and stderr."""
    done = project.step("predict", *map(str, arguments), **settings)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    output = Path(line)
    content, sidecar = output.read_bytes(), json.loads(output.with_name(f"{output.name}.json").read_bytes())
    assert sidecar["output"]["sha256"] == hashlib.sha256(content).hexdigest()
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    assert header == ["id", "y_pred", "probability"]
    assert sidecar["rows"] == len(rows)
    return rows, sidecar, done.stderr


def refuse(project: Project, code: int, *arguments: object, **settings: str) -> str:
    """Score cases, which must fail; return the only line of stderr that is an error."""
    done = project.step("predict", *map(str, arguments), **settings)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    return line


def expected(project: Project, cases: Table) -> list[list[str]]:
    """Return what scikit-learn gives, the features in the model's order, "" where missing."""
    model = joblib.load(project.root / "results" / "latest" / "model.pkl")
    model[0].__dict__.pop("feature_names_in_")
    features = np.array([[float(cell or "nan") for cell in row[2:]] for row in cases])
    columns = zip(cases, model.predict(features), model.predict_proba(features)[:, 1], strict=True)
    return [[row[0], str(called), float(probability).hex()] for row, called, probability in columns]


def as_hex(rows: Table) -> list[list[str]]:
    """Return the rows with each probability as the exact float that it reads back to."""
    return [[record_id, called, float(probability).hex()] for record_id, called, probability in rows]


@pytest.mark.parametrize("repeats", [1, 12], ids=["small", "large"])
def test_equal_to_scikit_learn(trained: Project, repeats: int) -> None:
    """In any order of columns, with gaps, odd ids and surplus columns, each number is scikit-learn's own."""
    cases = [row[:] for row in wdbc()[1:] * repeats]
    rng = random.Random(0)
    for row in cases:
        row[rng.randrange(2, 32)] = ""
    cases[3][0], cases[4][0], cases[5][0] = 'a,"b"', "line\nend", "больной"
    order = list(range(32))
    rng.shuffle(order)
    spelled = [[row[0], row[1], *(cell or rng.choice(["", "NA", "?", " null "]) for cell in row[2:])] for row in cases]
    shuffled = [["site", *(row[i] for i in order)] for row in [NAMES, *spelled]]
    shuffled[1][0], shuffled[2][0] = "Zürich, \nnorth", "x" * 200

    rows, sidecar, stderr = predict(trained, write(trained, shuffled), BATCH_BYTES="900000000")

    assert as_hex(rows) == expected(trained, cases)
    assert sidecar["columns_ignored"] == ["site", "diagnosis"]
    assert "ignored columns: site" in stderr


@pytest.mark.parametrize("settings", [{"BATCH_BYTES": "1000"}, {"WORKERS": "1"}, {"BATCH_BYTES": "100000"}])
def test_batches_do_not_matter(trained: Project, settings: dict[str, str]) -> None:
    """Smaller batches and fewer workers give the same classes, and probabilities up to the last bits."""
    source = write(trained, wdbc() + wdbc()[1:] * 11)
    whole = predict(trained, source)[0]
    rows, sidecar, _ = predict(trained, source, **settings)

    assert [row[:2] for row in rows] == [row[:2] for row in whole]
    assert all(math.isclose(float(a[2]), float(b[2]), rel_tol=1e-12) for a, b in zip(rows, whole, strict=True))
    assert sidecar["features"] == predict(trained, source)[1]["features"]


@pytest.mark.parametrize("kept", [range(32), [0, *range(2, 32)]], ids=["diagnosis", "no diagnosis"])
@pytest.mark.parametrize("diagnosis", ["M", "", "?"])
def test_without_a_header(trained: Project, kept: list[int], diagnosis: str) -> None:
    """Without a header line, the columns are id and features, with or without a diagnosis, which may be missing."""
    cases = [[row[0], diagnosis, *row[2:]] for row in wdbc()[1:]]

    rows, sidecar, _ = predict(trained, write(trained, [[row[i] for i in kept] for row in cases]))

    assert as_hex(rows) == expected(trained, cases)
    assert sidecar["columns_ignored"] == ["diagnosis"] * (1 in kept)


def test_ids_without_the_column_id(trained: Project) -> None:
    """Without a column id, the first one has the ids; an id may occur twice, and the end of a Kaggle header is cut."""
    header = ["patient", *WDBC_FEATURES[::-1], ""]
    cases = [wdbc()[1], wdbc()[1], wdbc()[2]]

    rows, _, _ = predict(trained, write(trained, [header, *([row[0], *row[:1:-1]] for row in cases)]))

    assert as_hex(rows) == expected(trained, cases)


def changed(row: int, column: int, text: str) -> Callable[[Table], Table]:
    """Return a function that changes one cell."""

    def change(rows: Table) -> Table:
        rows[row][column] = text
        return rows

    return change


REFUSED: dict[str, tuple[Callable[[Table], Table], str]] = {
    "word": (changed(4, 7, "Zq7x"), "line 5, column 8 (compactness_mean): not a finite number"),
    "infinity": (changed(4, 7, "inf"), "line 5, column 8 (compactness_mean): not a finite number"),
    "too large": (changed(4, 7, "1e150"), "feature compactness_mean: expected numbers up to 1e+140"),
    "no id": (changed(4, 0, " "), "line 5, column 1 (id): no record id"),
    "longer row": (lambda rows: [*rows[:3], [*rows[3], "1"], *rows[4:]], "line 4: 33 columns instead of 32"),
    "shorter row": (lambda rows: [*rows[:3], rows[3][:-1], *rows[4:]], "line 4: 31 columns instead of 32"),
    "no feature, fewer columns": (
        lambda rows: [[*row[:1], *row[2:9], *row[10:]] for row in rows],
        "found none for concave_points_mean;",
    ),
    "a number as a name": (
        lambda rows: [[*row[:9], "2024", *row[10:]] for row in rows],
        "none for concave_points_mean;",
    ),
    "no feature": (lambda rows: [row[:9] + row[10:] for row in rows], "found none for concave_points_mean;"),
    "renamed": (lambda rows: [["id", "diagnosis", *("xyz" for _ in range(30))], *rows[1:]], "found neither"),
    "repeated name": (lambda rows: [[*row, row[5]] for row in rows], "found the same name in columns 6 and 33"),
    "no ids": (lambda rows: [row[2:] for row in rows], "expected a column named id"),
    "diagnosis first": (lambda rows: [row[1:] for row in rows], "found diagnosis in column 1"),
    "header alone": (lambda rows: rows[:1], "found a header line alone"),
    "a column more": (lambda rows: [["8", *row] for row in rows[1:]], "found 33; add a header"),
    "shifted": (lambda rows: [[row[0], "0.5", *row[2:]] for row in rows[1:]], "neither B nor M"),
    "columns short": (lambda rows: [row[:12] for row in rows[1:]], "found 12; add a header"),
}


@pytest.mark.parametrize("repeats", [1, 12], ids=["small", "large"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_place(trained: Project, name: str, repeats: int) -> None:
    """What cannot be scored is refused by its line and column, and no value is shown; the earlier output stays."""
    change, text = REFUSED[name]
    rows = [row[:] for row in wdbc()]
    source = write(trained, rows)
    predict(trained, source)
    outputs = {path: path.read_bytes() for path in (trained.root / "results" / "predictions").glob("[!.]*")}
    rows = [row[:] for row in wdbc() + wdbc()[1:] * (repeats - 1)]
    write(trained, change(rows))

    error = refuse(trained, 65, source)

    assert text in error
    assert not {"Zq7x", "1e150", "inf", "xyz"} & set(error.replace(";", " ").replace(",", " ").split())
    assert {path: path.read_bytes() for path in (trained.root / "results" / "predictions").glob("[!.]*")} == outputs


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"<html>",
        b'{"a": 1}',
        b"PK\x03\x04",
        b"\xff\xfei\0d\0",
        b"id;a;b\n1;2;3\n",
        b"id\n1\n",
        b"id,a\xff,b\n",
    ],
)
def test_not_a_csv(trained: Project, content: bytes) -> None:
    """Anything but a CSV is refused."""
    (trained.root / "cases.csv").write_bytes(content)

    assert "SOURCE" in (error := refuse(trained, 65, "cases.csv")) or "not a CSV" in error


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("missing.csv", 78, "SOURCE: expected a file at missing.csv, found nothing"),
        (".", 78, "SOURCE: expected a file at ., found a folder"),
        ("gopher://x/y", 78, "SOURCE: expected http(s)://"),
        (f"http://127.0.0.1:9/{'x' * 300}?sig={'Zq7Secret' * 500}", 75, "could not be reached"),
        ("http://127.0.0.1:9/cases.csv?sig=Zq7Secret", 75, "http://127.0.0.1:9/cases.csv: could not be reached"),
    ],
)
def test_source_that_cannot_be_read(trained: Project, source: str, code: int, text: str) -> None:
    """A source that is not there is reported as that, without secrets."""
    error = refuse(trained, code, source)

    assert text in error
    assert "Zq7Secret" not in error


def test_setting_names_the_source(trained: Project) -> None:
    """Without SOURCE, PREDICT_URL is scored; in .env, a relative path starts from the root."""
    write(trained, wdbc())
    elsewhere = trained.root / "elsewhere"
    elsewhere.mkdir()
    (trained.root / ".env").write_text("PREDICT_URL=cases.csv\n", encoding="utf-8")

    done = trained.step("predict", cwd=elsewhere)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{trained.root}/results/predictions/cases.csv\n"
    (trained.root / ".env").write_text("PREDICT_URL=nothing.csv\n", encoding="utf-8")
    assert "PREDICT_URL: expected a file at nothing.csv, found nothing" in refuse(trained, 78)
    (trained.root / ".env").unlink()
    assert "here or in PREDICT_URL, found none" in refuse(trained, 64)


def swap(project: Project) -> None:
    """Exchange the model's file."""
    joblib.dump({"not": "it"}, project.runs()[0] / "model.pkl")


def add_blank(project: Project) -> None:
    """Change the manifest, but not what it says."""
    path = project.runs()[0] / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("damage", "code", "text"),
    [
        (swap, 65, "model.pkl of run"),
        (lambda project: (project.runs()[0] / "model.pkl").unlink(), 65, "found no file"),
        (
            add_blank,
            65,
            "the manifest that was promoted",
        ),
        (lambda project: shutil.rmtree(project.runs()[0]), 64, "there is no run"),
        (lambda project: shutil.rmtree(project.root / "results"), 64, "no run is in use"),
    ],
    ids=["swapped", "deleted", "manifest", "pruned", "none"],
)
def test_other_model_is_refused(trained: Project, damage: Callable[[Project], None], code: int, text: str) -> None:
    """Only the very model that was promoted is unpickled."""
    source = write(trained, wdbc())
    damage(trained)

    assert text in refuse(trained, code, source)


def test_named_model(trained: Project) -> None:
    """A run can be named by its stamp and its folder, whether or not it is in use; an unfinished one is refused."""
    source = write(trained, wdbc())
    first = trained.runs()[0].name
    trained.chain()
    second, unfinished = trained.runs()[1].name, Path(trained.run_steps(["data_loader", "transform", "train"])).stem[4:]

    assert predict(trained, source)[1]["run"] == second
    for name in (first, f"results/runs/{first}", trained.root / "results" / "runs" / first):
        assert predict(trained, source, "--model", name)[1]["run"] == first
    assert "is not finished" in refuse(trained, 64, source, "--model", unfinished)
    for wrong in ("2020_01_01_00_00_00", "nothing", "s3://b/x", "file:///x/runs"):
        assert "--model" in refuse(trained, 64, source, "--model", wrong) or wrong[:4] == "2020"


def test_model_in_a_storage(trained: Project) -> None:
    """With STORAGE_URL the model in use is that of the storage, and --publish sends the output there, once."""
    place = trained.root / "a store"
    settings = {"STORAGE_URL": f"file://{place}"}
    trained.chain(**settings)
    stamp = trained.runs()[-1].name
    shutil.rmtree(trained.root / "results")
    source = write(trained, wdbc())

    rows, sidecar, stderr = predict(trained, source, "--publish", **settings)

    assert as_hex(rows) == expected_in(place / "runs" / stamp)
    assert (sidecar["run"], sidecar["place"]) == (stamp, f"file://{place}")
    (folder,) = (place / "predictions").iterdir()
    assert {path.name for path in folder.iterdir()} == {"cases.csv", "cases.csv.json"}
    assert (folder / "cases.csv").read_bytes() == (trained.root / "results" / "predictions" / "cases.csv").read_bytes()
    assert f"published: file://{place}/predictions/{folder.name}" in stderr
    for name in ("latest.json", f"runs/{stamp}"):
        assert predict(trained, source, "--model", f"file://{place}/{name}")[1]["run"] == stamp
    joblib.dump({"not": "it"}, place / "runs" / stamp / "model.pkl")
    assert "different content (sha256)" in refuse(trained, 65, source, **settings)
    assert "STORAGE_URL: expected a storage to publish to" in refuse(trained, 78, source, "--publish")


def expected_in(run: Path) -> list[list[str]]:
    """Return what the model in a run's folder gives for the embedded data."""
    model = joblib.load(run / "model.pkl")
    model[0].__dict__.pop("feature_names_in_")
    features = np.array([row[2:] for row in wdbc()[1:]], dtype=float)
    columns = zip(wdbc()[1:], model.predict(features), model.predict_proba(features)[:, 1], strict=True)
    return [[row[0], str(called), float(probability).hex()] for row, called, probability in columns]


def test_threshold_of_the_model(trained: Project) -> None:
    """A model with a fixed threshold calls cases by it, and the sidecar has it."""
    trained.chain(MIN_RECALL="0.98", GATE="off")
    rows, sidecar, _ = predict(trained, write(trained, wdbc()))

    assert 0 < sidecar["threshold"] < 0.3
    assert {called for _, called, probability in rows if float(probability) >= sidecar["threshold"]} == {"1"}
    assert {called for _, called, probability in rows if float(probability) < sidecar["threshold"]} == {"0"}


def test_unlike_the_training_data(trained: Project) -> None:
    """A feature in a different unit, a shifted one and an empty one are named in stderr and in the sidecar."""
    cases = [row[:] for row in wdbc()]
    for row in cases[1:]:
        row[2] = str(float(row[2]) * 10)
        row[5] = str(float(row[5]) + 350)
        row[9] = ""
    # Missing values are compared by their numbers in the manifest.
    rows, sidecar, stderr = predict(trained, write(trained, cases))

    assert len(rows) == 569
    warnings = [line.partition("[PREDICT]: ")[2] for line in stderr.splitlines() if "[WARNING]" in line]
    assert warnings == sidecar["warnings"]
    outside, drift, missing = warnings
    assert "radius_mean (" in outside
    assert "radius_mean (" in drift
    assert "area_mean (" in drift
    assert "concave_points_mean (0.000 there, 1.000 here)" in missing
    assert sidecar["features"]["concave_points_mean"]["missing"] == 1
    assert sidecar["features"]["radius_mean"]["outside"] > 0.9
    assert {one["feature"] for one in sidecar["drift"]} == {"radius_mean", "area_mean"}


@pytest.mark.parametrize(("number", "is_tested"), [(49, False), (50, True)])
def test_few_cases_are_not_tested_for_drift(trained: Project, number: int, is_tested: bool) -> None:  # noqa: FBT001
    """Fewer than 50 cases are not tested for drift."""
    source = write(trained, wdbc()[: number + 1])
    assert (predict(trained, source)[1]["drift"] is not None) == is_tested

    (trained.runs()[0] / "clear_data.csv").unlink()
    _, sidecar, stderr = predict(trained, source)
    assert sidecar["drift"] is None
    assert ("is missing or has changed" in stderr) == is_tested

    for path in ("clear_data.csv", "other"):
        (trained.runs()[0] / path).mkdir()
    assert predict(trained, source)[1]["drift"] is None


@pytest.mark.parametrize("number", [5, 49])
def test_missing_values_of_few_cases(trained: Project, number: int) -> None:
    """An empty column is reported for a few cases too."""
    cases = [row[:] for row in wdbc()[: number + 1]]
    for row in cases[1:]:
        row[4] = ""
    _, sidecar, _ = predict(trained, write(trained, cases))

    assert [one["feature"] for one in sidecar["missing_changed"]] == ["perimeter_mean"]
    assert "perimeter_mean (0.000 there, 1.000 here)" in sidecar["warnings"][-1]


def test_a_case_outside_the_range(trained: Project) -> None:
    """One case in a different unit is reported too."""
    _, sidecar, _ = predict(trained, write(trained, [NAMES, [*wdbc()[1][:2], "179.9", *wdbc()[1][3:]]]))

    assert "radius_mean (100%)" in sidecar["warnings"][0]


def test_run_of_an_older_version(trained: Project) -> None:
    """A run whose manifest has no ranges can be used too."""
    manifest = trained.runs()[0] / "manifest.json"
    record = json.loads(manifest.read_bytes())
    del record["steps"]["train"]["features"]
    manifest.write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(trained.root / "results" / "promotions")

    rows, sidecar, _ = predict(trained, write(trained, wdbc()))

    assert as_hex(rows) == expected(trained, wdbc()[1:])
    assert sidecar["features"]["radius_mean"] == {"outside": None, "missing": 0, "missing_in_training": None}


@pytest.mark.parametrize("settings", [{}, {"BATCH_BYTES": "10000"}, {"WORKERS": "1"}])
def test_ranges_in_the_manifest(project: Project, settings: dict[str, str]) -> None:
    """The manifest has the percentiles of the training rows, in any batches, and none of fewer than 20 values."""
    rows = [[*row, str(i) if i % 30 == 0 else ""] for i, row in enumerate(wdbc())]
    rows[0][-1] = "rare"
    log = project.run_steps(["data_loader", "transform", "train"], DATA_URL=str(write(project, rows)), **settings)
    run = project.root / "results" / "runs" / Path(log).stem[4:]
    found = json.loads((run / "manifest.json").read_bytes())["steps"]["train"]["features"]

    training = [row for row in rows[1:] if not is_test(row[0])]
    for position, name in enumerate(WDBC_FEATURES, start=2):
        low, high = np.quantile([float(row[position]) for row in training], [0.005, 0.995])
        assert found[name] == {"low": low, "high": high, "missing": 0}
    share = sum(not row[-1] for row in training) / len(training)
    assert found["rare"] == {"low": None, "high": None, "missing": pytest.approx(share)}


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("cases.csv", "expected a file that is not the source"),
        ("data", "found a folder or a device"),
        ("/dev/null", "found a folder or a device"),
        ("-", "expected a file's name"),
        ("x" * 201, "expected a file's name"),
        ("results/x.csv", "expected a file outside"),
        ("results/latest/x.csv", "expected a file outside"),
        ("logs/x.csv", "expected a file outside"),
    ],
)
def test_output_that_cannot_be(trained: Project, output: str, text: str) -> None:
    """An output may be neither the source nor a file of a run, and its folder must be there."""
    source = write(trained, wdbc())
    before = source.read_bytes()

    assert text in refuse(trained, 64, source, "--output", output)
    assert source.read_bytes() == before


def test_folder_that_is_not_there(trained: Project) -> None:
    """A folder that is not there is a wrong setting; the default one is made."""
    source = write(trained, wdbc())

    assert "expected a folder in which files can be written" in refuse(trained, 78, source, "--output", "nowhere/x.csv")
    assert predict(trained, source, "--output", "results/predictions/scores")[1]["output"]["name"] == "scores"


@pytest.mark.parametrize("name", ["cases", "clear_data.csv", "model.pkl", "manifest.json.csv", "cases.csv.json"])
def test_any_name_of_source_and_output(trained: Project, name: str) -> None:
    """No temporary file is in the way of another, whatever source and output are called."""
    place = f"file://{trained.root}/a store"
    trained.chain(STORAGE_URL=place)
    shutil.rmtree(trained.root / "results")

    rows, _, _ = predict(trained, write(trained, wdbc(), name), STORAGE_URL=place)

    assert [row[0] for row in rows] == [row[0] for row in wdbc()[1:]]


@pytest.mark.parametrize("spelled", ["file://{}", "~/cases.csv", "{}", "cases.csv"])
def test_source_is_not_replaced_however_spelled(trained: Project, spelled: str) -> None:
    """A source that is given as a URL or from the home folder is recognized too."""
    source = write(trained, wdbc())

    assert "not the source" in refuse(trained, 64, spelled.format(source), "--output", "cases.csv")
    assert source.read_text(encoding="utf-8").startswith("id,diagnosis")


def test_source_is_not_replaced_by_the_sidecar(trained: Project) -> None:
    """The sidecar must not replace the source either."""
    source = write(trained, wdbc(), "x.csv.json")

    assert "not the source" in refuse(trained, 64, source, "--output", "x.csv")


def test_output_elsewhere(trained: Project) -> None:
    """The output and its sidecar are in the folder that is named, and nothing visible beside them."""
    folder = trained.root / "out"
    folder.mkdir()
    predict(trained, write(trained, wdbc()), "--output", "out/scores.csv")

    assert {path.name for path in folder.glob("[!.]*")} == {"scores.csv", "scores.csv.json"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_stopped(trained: Project, signum: int) -> None:
    """A script that is stopped leaves the output before as it was, and the next one clears up."""
    source = write(trained, wdbc())
    predict(trained, source)
    folder = trained.root / "results" / "predictions"
    before = {path.name: path.read_bytes() for path in folder.glob("[!.]*")}
    with subprocess.Popen(
        [sys.executable, str(trained.root / "etl" / "predict.py"), str(source)],
        env=trained.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        wait_until((folder / ".cases.csv.scratch").exists)
        run.send_signal(signum)
        out, _ = run.communicate()

    assert (out, run.returncode) == (b"", 143 if signum == signal.SIGTERM else -signum)
    assert {path.name: path.read_bytes() for path in folder.glob("[!.]*")} == before
    predict(trained, source)
    assert not (folder / ".cases.csv.scratch").exists()


def test_help(project: Project) -> None:
    """--help needs neither a run nor settings, and goes to stdout."""
    done: Completed = project.step("predict", "--help", KEEP_RUNS="nothing")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: predict.py [-h] [--model RUN|URL] [--output FILE] [--publish] [SOURCE]")


def test_only_the_last_line_is_the_path(trained: Project) -> None:
    """With stderr merged into stdout, as Airflow does, the last line is the output's path."""
    command = f'"{sys.executable}" etl/predict.py "{write(trained, wdbc())}" 2>&1'
    done = trained.run(["sh", "-c", command])

    assert done.stdout.splitlines()[-1] == f"{trained.root}/results/predictions/cases.csv"
