"""Each script as a user runs it: its stdout, exit code and log lines."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import pandas as pd
import pytest
import sklearn
from conftest import ARTIFACTS, STEPS, Project, RunUpTo, wdbc_rows
from sklearn import metrics

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\]\[(INFO|WARNING|ERROR)\]\[(\w+)\]: \[([A-Z_]+)\]: .+")
SECRET = "Zq7Secret"

WriteCsv = Callable[[str | bytes], str]


def test_chain_on_embedded_data(project: Project, tmp_path: Path) -> None:
    """Four scripts, run from any directory, pass on one log and give consistent results."""
    log = ""
    for name in STEPS:
        done = project.step(name, *([log] if log else []), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r".*/logs/log_\d{4}(_\d\d){5}\.log\n", done.stdout)
        log = log or done.stdout.strip()
        assert done.stdout == log + "\n"

    lines = Path(log).read_text(encoding="utf-8").splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches)
    assert [match[2] for match in matches if match and match[0].endswith("started")] == list(STEPS)
    assert all(match[3] == match[2].upper() for match in matches if match)
    results = project.root / "results"
    assert (results / "raw_data.csv").read_bytes() == (project.root / "data" / "wdbc.csv").read_bytes()
    predictions = pd.read_csv(results / "predictions.csv")
    evaluation = json.loads((results / "evaluation.json").read_bytes())
    assert list(evaluation)[:4] == ["accuracy", "precision", "recall", "f1_score"]
    y_true, y_pred, probability = predictions["y_true"], predictions["y_pred"], predictions["probability"]
    assert evaluation["accuracy"] == metrics.accuracy_score(y_true, y_pred) >= 0.95
    assert evaluation["precision"] == metrics.precision_score(y_true, y_pred)
    assert evaluation["recall"] == metrics.recall_score(y_true, y_pred)
    assert evaluation["f1_score"] == metrics.f1_score(y_true, y_pred)
    assert evaluation["roc_auc"] == pytest.approx(metrics.roc_auc_score(y_true, probability), rel=1e-13)
    clear = pd.read_csv(results / "clear_data.csv")
    held_out = clear[clear["id"].isin(predictions["id"])]
    assert (evaluation["train_rows"], evaluation["test_rows"]) == (569 - len(held_out), len(held_out))
    model = joblib.load(results / "model.pkl")
    assert (model.predict(held_out.drop(columns=["id", "target"])) == y_pred).all()


def test_model_loads_with_scikit_learn_alone(project: Project, run_up_to: RunUpTo, tmp_path: Path) -> None:
    """The model loads without any module of this project."""
    run_up_to("evaluate")
    shutil.copy(project.root / "results" / "model.pkl", tmp_path / "model.pkl")
    code = "import joblib, sys; joblib.load('model.pkl'); sys.exit('steplib' in sys.modules)"
    done = project.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path)

    assert done.returncode == 0, done.stderr


def test_same_input_gives_same_bytes(project: Project) -> None:
    """The results of two runs on one source are identical."""
    project.chain()
    first = project.artifacts()
    project.chain()

    assert len(project.runs()) == 2
    assert project.artifacts() == first
    assert set(first) == ARTIFACTS


def test_manifest_records_the_origin_of_the_results(project: Project, run_up_to: RunUpTo) -> None:
    """The manifest names the source, the settings and versions, and the hash, size and rows of each artifact."""
    run_up_to("evaluate")
    folder = project.root / "results" / "latest"
    manifest = json.loads((folder / "manifest.json").read_bytes())

    assert list(manifest["steps"]) == list(STEPS)
    assert {step["outcome"] for step in manifest["steps"].values()} == {"done"}
    assert manifest["steps"]["data_loader"]["source"] == "data/wdbc.csv"
    assert manifest["steps"]["train"]["packages"]["sklearn"] == sklearn.__version__
    assert {"seed", "split"} <= manifest["steps"]["train"].keys()
    for name, rows in {"raw_data.csv": 569, "clear_data.csv": 569, "model.pkl": None, "predictions.csv": 124}.items():
        record = manifest["artifacts"][name]
        assert record["rows"] == rows
        assert record["bytes"] == (folder / name).stat().st_size
        assert re.fullmatch("[0-9a-f]{64}", record["sha256"])


def test_path_is_the_last_line_of_stdout_and_stderr_merged(project: Project, run_up_to: RunUpTo) -> None:
    """A library that prints late, to either stream, never prints after the path, and never to stdout."""
    noise = project.root / "noise"
    noise.mkdir()
    (noise / "sitecustomize.py").write_text(
        "import atexit, os, sys\n"
        "atexit.register(lambda: print('late', file=sys.stderr))\n"
        "atexit.register(lambda: print('late'))\n"
        "import csv; real = csv.writer\n"
        "csv.writer = lambda *a, **k: (print('early'), os.system('echo deep'), real(*a, **k))[2]\n",
        encoding="utf-8",
    )
    log = run_up_to("data_loader")
    script = f'"{sys.executable}" "{project.root}/etl/transform.py" "{log}"'
    merged = project.run(["sh", "-c", f"{script} 2>&1"], PYTHONPATH=str(noise))
    alone = project.run(["sh", "-c", f"{script} 2>/dev/null"], PYTHONPATH=str(noise))

    assert merged.returncode == 0
    assert merged.stdout.splitlines()[-1] == log
    assert "deep" in merged.stdout
    assert alone.stdout == log + "\n"


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_path_that_cannot_be_printed_is_a_failure(project: Project, redirection: str) -> None:
    """A step that cannot write the path to stdout is exit 74."""
    script = f'"{sys.executable}" "{project.root}/etl/data_loader.py" {redirection}'
    done = project.run(["sh", "-c", script])

    assert done.returncode == 74
    assert "stdout: " in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_stderr_changes_nothing(project: Project) -> None:
    """A caller without stderr still gets the path, and messages for stderr reach no other file."""
    done = project.run(["sh", "-c", f'"{sys.executable}" "{project.root}/etl/data_loader.py" 2>&-'])

    assert done.returncode == 0
    assert Path(done.stdout.strip()).read_text(encoding="utf-8").count("\n") == 4


@pytest.mark.parametrize("name", STEPS)
def test_help(project: Project, name: str) -> None:
    """--help explains what the step reads, writes and refuses, and starts no run."""
    done = project.step(name, "--help")

    assert done.returncode == 0
    assert all(word in done.stdout for word in ("Reads", "Writes", "Refuses", name, "LOG"))
    assert done.stderr == ""
    assert not (project.root / "logs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        *([[text]] for text in ("", "None", "late warning", "logs/log_2026_01_01_00_00_00.log", "/etc/passwd")),
        *([["a", "b"]], [["--fast"]], [["--help=1"]], [["-hx"]], [["../logs/log_x.log; touch pwned"]], [["x" * 5000]]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["data_loader", "transform"])
def test_wrong_argument(project: Project, name: str, arguments: list[list[str]]) -> None:
    """An argument that is not the path of one of the project's logs is a usage error of one line."""
    done = project.step(name, *arguments[0])

    assert done.returncode == 64
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "expected" in done.stderr
    assert len(done.stderr) < 1000


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("logs/some.log", "expected the path of a run's log, "),
        ("elsewhere/log_2026_01_01_00_00_00.log", "expected the path of a log in "),
        ("logs/log_2026_01_01_00_00_00.log", "expected a log that exists, found no "),
    ],
)
def test_log_that_is_not_here(project: Project, argument: str, message: str) -> None:
    """The error says whether the name, the folder or the file is wrong; of the last two, what workers need."""
    done = project.step("transform", argument)

    assert done.returncode == 64
    assert f"LOG: {message}" in done.stderr
    assert ("set RUNS_URL" in done.stderr) == ("2026" in argument)


@pytest.mark.parametrize("name", STEPS[1:])
def test_step_before_its_turn(project: Project, name: str) -> None:
    """A step without a log, or before the step that it needs, reports the right order."""
    assert project.step(name).returncode == 64
    log = project.step("data_loader").stdout.strip()
    done = project.step("evaluate" if name == "transform" else name, log)

    assert done.returncode == 64
    assert "in this order" in done.stderr


def test_log_named_by_a_different_path(project: Project, run_up_to: RunUpTo) -> None:
    """A relative path, or a path through a link to the project, names the same log."""
    log = run_up_to("data_loader")
    link = project.root.parent / "linked"
    link.symlink_to(project.root)
    relative = project.run([sys.executable, "etl/transform.py", f"logs/{Path(log).name}"])
    linked = project.run([sys.executable, f"{link}/etl/train.py", f"{link}/logs/{Path(log).name}"])

    assert (relative.stdout, linked.stdout) == (log + "\n", log + "\n")


@pytest.mark.parametrize(
    "url",
    [
        "no such file.csv",
        "data",
        "/dev/zero",
        "ftp://user:Zq7Secret@host/x.csv?token=Zq7Secret",
        "file://elsewhere/x.csv",
        "http://",
        "http://user:Zq7Secret@[::1/x?Zq7Secret",
        "http://user:Zq7Secret/x?@127.0.0.1:1/x",
        "s3://bucket/key",
        "https:/user:Zq7Secret@host/x?token=Zq7Secret",
        "user:Zq7Secret@host/x.csv",
        "//user:Zq7Secret@host/x.csv",
        "http:user:Zq7Secret@host",
        "user:Zq7Secret@http://host/x",
        "http://user:Zq7Secret%40host..name/x",
        "http://user:Zq7Secret",
        "http://h:Zq7Secret/x",
        "http://u:p@h:Zq7Secret/x",
        "http://user:Zq7Secret%2540h/x",
        "http://user:Zq7Secret＠h/x",
        "http://host..name/x.csv?token=Zq7Secret",
        "http://юзер:Zq7Secret@127.0.0.1:1/x",
        "file:///nope?token=Zq7Secret",
        "host/x.csv?token=Zq7Secret",
        "jdbc:sqlserver://host;user=me;password=Zq7Secret",
        "jdbc:postgresql://host/Zq7Secret",
        "Driver={ODBC Driver 18};Server=host;Pwd=Zq7Secret",
        "Server=http://host;Password=Zq7Secret",
        "host=db password=Zq7Secret",
        "mongodb+srv://host/Zq7Secret",
        "data:text/csv,Zq7Secret",
        "{Zq7Secret}",
        "file:///nope;token=Zq7Secret/x.csv",
        "file://host/x;token=Zq7Secret",
        "http://host..name/x.csv;token=a/Zq7Secret",
        "http://host..name/x.csv&token=Zq7Secret",
        "http://host..name/x%253Btoken%253DZq7Secret",
        "/" + "x" * 300,
    ],
)
def test_wrong_source(project: Project, url: str) -> None:
    """An impossible source is a wrong setting, reported without user, password and query."""
    done = project.step("data_loader", DATA_URL=url)

    assert done.returncode == 78
    assert done.stdout == ""
    log = next((project.root / "logs").iterdir()).read_text(encoding="utf-8")
    manifest = (project.runs()[0] / "manifest.json").read_text(encoding="utf-8")
    assert log.splitlines()[-1] == done.stderr.splitlines()[-1]
    assert SECRET not in done.stderr + log + manifest
    assert "Traceback" not in done.stderr + log
    assert json.loads(manifest)["steps"]["data_loader"]["exit_code"] == 78


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "FILE://{}"])
def test_source_by_path(project: Project, form: str) -> None:
    """A local file may be given as a path or as a file URL, also with escaped characters."""
    source = project.root / "моя 1%20.csv"
    source.write_bytes(b"1,M,2\n")
    text = str(source).replace("%", "%25").replace(" ", "%20") if "//" in form else str(source)

    assert project.step("data_loader", DATA_URL=form.format(text)).returncode == 0
    assert project.artifacts()["raw_data.csv"] == b"1,M,2\n"


def test_source_is_logged_by_one_name(project: Project) -> None:
    """The log names a file of the project relative to its root and any other file by its absolute path."""
    outside = project.root.parent / "outside.csv"
    outside.write_text("1,M,2\n", encoding="utf-8")
    inside = project.step("data_loader", DATA_URL="etl/../data/wdbc.csv")
    other = project.step("data_loader", DATA_URL="../outside.csv")

    assert "source: data/wdbc.csv, " in inside.stderr
    assert f"source: {outside}, " in other.stderr


def test_bad_data_stops_without_a_value(project: Project, run_up_to: RunUpTo, write_csv: WriteCsv) -> None:
    """Bad data is exit 65 with the literal text in the log, and no output contains a cell's content."""
    run_up_to("evaluate")
    before = project.artifacts()
    source = write_csv("\n".join([*wdbc_rows(), f"570,{SECRET},{'1,' * 28}{SECRET},1"]))
    log = project.step("data_loader", DATA_URL=source).stdout.strip()
    done = project.step("transform", log)

    assert done.returncode == 65
    assert done.stdout == ""
    text = Path(log).read_text(encoding="utf-8")
    assert "[TRANSFORM]: невалидные данные в target: expected B or M; found at line 570, column 2 (diagnosis)" in text
    assert SECRET not in done.stderr + text
    assert project.artifacts() == before | {"raw_data.csv": Path(source).read_bytes()}
    assert (project.root / "results" / "latest").resolve() == project.runs()[0]


def test_tampered_artifact_is_refused(project: Project, run_up_to: RunUpTo) -> None:
    """A model, table or manifest that was changed or removed is refused before it is used."""
    log = run_up_to("evaluate")
    folder = project.runs()[0]
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    done = project.step("evaluate", log)
    assert done.returncode == 65
    assert "model.pkl: expected what train recorded in manifest.json, found different content" in done.stderr
    assert not list(project.root.rglob("pwned"))

    with (folder / "clear_data.csv").open("a", encoding="utf-8") as file:
        file.write("x,1\n")
    assert project.step("train", log).returncode == 65
    (folder / "raw_data.csv").unlink()
    assert project.step("transform", log).returncode == 65
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    assert project.step("transform", log).returncode == 65
    assert "Traceback" not in Path(log).read_text(encoding="utf-8")


def patched(project: Project, code: str) -> str:
    """Return a PYTHONPATH on which `patch` in the code changes scikit-learn's LogisticRegression."""
    folder = project.root / "patch"
    folder.mkdir(exist_ok=True)
    hook = (
        "import sys, builtins\n"
        "real = builtins.__import__\n"
        "def hook(name, *a, **k):\n"
        "    module = real(name, *a, **k)\n"
        "    done = sys.modules.get('sklearn.linear_model')\n"
        "    if name.startswith('sklearn') and hasattr(done, 'LogisticRegression'):\n"
        "        builtins.__import__ = real\n"
        "        patch(done.LogisticRegression)\n"
        "    return module\n"
        "builtins.__import__ = hook\n"
    )
    (folder / "sitecustomize.py").write_text(code + hook, encoding="utf-8")
    return str(folder)


def failing_fit(error: str) -> str:
    """Return a patch that makes scikit-learn's fit fail."""
    return f"def patch(c):\n    def fit(*a, **k):\n        {error}\n    c.fit = fit\n"


def test_out_of_memory_in_training(project: Project, run_up_to: RunUpTo) -> None:
    """MemoryError during training is logged and ends with 71."""
    log = run_up_to("transform")
    done = project.step("train", log, PYTHONPATH=patched(project, failing_fit("raise MemoryError")))

    assert done.returncode == 71
    assert done.stdout == ""
    assert "out of memory" in Path(log).read_text(encoding="utf-8").splitlines()[-1]
    assert not (project.runs()[0] / "model.pkl").exists()


@pytest.mark.parametrize("name", ["train", "evaluate"])
@pytest.mark.parametrize("kilobytes", [60_000, 100_000, 350_000, 600_000, 1_000_000])
def test_address_space_that_is_too_small(project: Project, run_up_to: RunUpTo, name: str, kilobytes: int) -> None:
    """Under a memory limit a step ends with 71 and one line; it neither hangs nor crashes in a library."""
    log = run_up_to(STEPS[STEPS.index(name) - 1])
    script = f'ulimit -v {kilobytes}; exec "$ETL_PYTHON" "{project.root}/etl/{name}.py" "{log}"'
    done = project.run(["sh", "-c", script])

    assert done.returncode == 71
    assert done.stdout == ""
    assert "memory: expected at least 1024 MiB of address space" in done.stderr.splitlines()[-1]


def test_classifier_of_the_users_own(project: Project) -> None:
    """With a different Pipeline in build_model the steps run, and the run is verified."""
    script = project.root / "etl" / "train.py"
    code = script.read_text(encoding="utf-8")
    body = code[code.index("    from sklearn.impute") : code.index("def train(")]
    own = """    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline

    return Pipeline([("classify", HistGradientBoostingClassifier(random_state=SEED))])


"""
    script.write_text(code.replace(body, own), encoding="utf-8")
    project.chain()

    assert json.loads(project.artifacts()["evaluation.json"])["classifier"] == "HistGradientBoostingClassifier"
    manifest = json.loads((project.runs()[0] / "manifest.json").read_bytes())
    assert manifest["steps"]["train"]["solver"] == {"tol": 1e-7, "max_iter": 100}
    verified = project.step("runs", "verify", project.runs()[0].name)
    assert verified.returncode == 0, verified.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS[1:])
def test_limited_address_space(project: Project, write_csv: WriteCsv, name: str) -> None:
    """With too little address space a step ends with 71 and leaves nothing half-done; a small file needs little."""
    large = write_csv("".join(f"{i}-{line}\n" for i in range(20) for line in wdbc_rows()))
    # The small one first, because later runs also read the data of the run in use.
    for source, code in (("data/wdbc.csv", 0), (large, 71)):
        log = project.run_steps(STEPS[: STEPS.index(name)], DATA_URL=source)
        command = f'exec "$ETL_PYTHON" "{project.root}/etl/{name}.py" "{log}"'
        for kilobytes in (100_000, 600_000, 1_500_000) if source == large else (1_500_000,):
            done = project.run(["sh", "-c", f"ulimit -v {kilobytes}; {command}"], BATCH_BYTES="100000", WORKERS="2")
            assert done.returncode == code, done.stderr
            assert not list(project.runs()[-1].parent.glob(".scratch*"))
        assert project.step(name, log, BATCH_BYTES="100000").returncode == 0


def test_singular_fit_continues(project: Project, run_up_to: RunUpTo) -> None:
    """LinAlgError is a warning in the log; the DummyClassifier is evaluated and named in evaluation.json."""
    log = run_up_to("transform")
    singular = failing_fit("import numpy; raise numpy.linalg.LinAlgError('x')")
    assert project.step("train", log, PYTHONPATH=patched(project, singular)).returncode == 0
    assert project.step("evaluate", log).returncode == 0

    assert "[WARNING][train]: [TRAIN]: LinAlgError" in Path(log).read_text(encoding="utf-8")
    evaluation = json.loads(project.artifacts()["evaluation.json"])
    assert evaluation["classifier"] == "DummyClassifier"
    assert evaluation["accuracy"] == evaluation["baseline_accuracy"]


def test_defect_is_reported_without_its_message(project: Project, run_up_to: RunUpTo) -> None:
    """An unexpected error is exit 70: one line on stderr, its traceback in the log, its message not on stderr."""
    log = run_up_to("transform")
    done = project.step("train", log, PYTHONPATH=patched(project, failing_fit(f"raise ValueError('{SECRET}')")))

    assert done.returncode == 70
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "a bug in the pipeline (ValueError); please report it with its traceback"
    )
    text = Path(log).read_text(encoding="utf-8")
    assert 'train.py", line' in text
    assert "classifier.fit(features, target)" in text
    assert SECRET not in done.stderr


def test_step_after_one_that_failed(project: Project, run_up_to: RunUpTo) -> None:
    """If a repeated step of an unfinished run fails, the next step is refused until the repetition succeeds."""
    log = run_up_to("train")
    assert project.step("train", log, PYTHONPATH=patched(project, failing_fit("raise MemoryError"))).returncode == 71
    assert project.step("evaluate", log).returncode == 64
    for name in ("train", "evaluate"):
        assert project.step(name, log).returncode == 0


def test_missing_package(project: Project, run_up_to: RunUpTo) -> None:
    """An interpreter without the packages is a wrong setting, and the error names a package."""
    log = run_up_to("transform")
    done = project.run([sys.executable, "-S", str(project.root / "etl" / "train.py"), log])

    assert done.returncode == 78
    assert re.search(r"the package \w+ is not installed", done.stderr)
    assert "Traceback" not in done.stderr


def test_loading_imports_nothing_heavy(project: Project) -> None:
    """A local file is loaded and cleaned without pandas, numpy, scikit-learn, pyarrow and requests."""
    heavy = {"pandas", "numpy", "sklearn", "requests", "pyarrow"}
    log = ""
    for name in ("data_loader", "transform"):
        script = [str(project.root / "etl" / f"{name}.py"), *([log] if log else [])]
        done = project.run([sys.executable, "-X", "importtime", *script])
        log = done.stdout.strip()
        imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
        assert "steplib.runs.run" in imported
        assert not heavy & imported


def test_scipy_stats_is_loaded_when_it_is_used(project: Project) -> None:
    """Importing scikit-learn executes neither pandas nor scipy.stats, and what uses scipy.stats still works."""
    code = (
        "import sys\n"
        "from steplib import imports\n"
        "imports.keep_out()\n"
        "import sklearn.covariance, sklearn.linear_model, sklearn.isotonic, sklearn.metrics\n"
        "print('pandas' in sys.modules, 'scipy.stats._stats_py' in sys.modules)\n"
        "print(sklearn.isotonic.check_increasing([1, 2, 3], [1, 2, 4]))\n"
        "print('scipy.stats._stats_py' in sys.modules)\n"
        "import scipy.stats\n"
        "from scipy.stats import chi2, norm\n"
        "print(round(chi2.ppf(0.5, 2), 6), round(norm.ppf(0.975), 6), round(scipy.stats.gmean([1, 4]), 6))\n"
        "print(round(sklearn.covariance.MinCovDet(random_state=0).fit([[0], [1], [2], [4]]).location_[0], 6))\n"
    )
    done = project.run([sys.executable, "-c", code], PYTHONPATH=str(project.root / "etl"))

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == ["False False", "True", "True", "1.386294 1.959964 2.0"]
