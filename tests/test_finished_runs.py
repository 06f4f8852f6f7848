"""A finished run never changes: any step may be repeated on it, fail on it or be killed."""

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STEPS, Project, RunUpTo, wdbc_rows

Content = dict[str, bytes]


def content_of(folder: Path) -> Content:
    """Return every file below a folder; a lock has no content."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def finished(project: Project, run_up_to: RunUpTo) -> str:
    """Give the project a finished run and a different source, and return the run's log."""
    (project.root / "other.csv").write_text("\n".join(wdbc_rows()[:300]) + "\n", encoding="utf-8")
    return run_up_to("evaluate")


def is_verified(project: Project) -> bool:
    """Return whether runs.py verify confirms the project's first run."""
    return project.step("runs", "verify", str(project.runs()[0])).returncode == 0


def patch(project: Project, code: str) -> str:
    """Return a PYTHONPATH on which the code runs before each script."""
    folder = project.root / "patch"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return str(folder)


def adding_to_probabilities(number: float) -> str:
    """Return a patch by which scikit-learn's probabilities come out different."""
    return (
        "import builtins, sys\n"
        "real = builtins.__import__\n"
        "def hook(name, *a, **k):\n"
        "    module = real(name, *a, **k)\n"
        "    done = sys.modules.get('sklearn.pipeline')\n"
        "    if name.startswith('steplib') and hasattr(done, 'Pipeline'):\n"
        "        builtins.__import__ = real\n"
        "        old = done.Pipeline.predict_proba\n"
        f"        done.Pipeline.predict_proba = lambda self, X: old(self, X) + {number}\n"
        "    return module\n"
        "builtins.__import__ = hook\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_repeated_step_that_is_killed(project: Project, finished: str, name: str) -> None:
    """A kill at any moment of a repeated step changes no byte of the run, and the run is verified."""
    (run,) = project.runs()
    before = content_of(run)
    command = [sys.executable, str(project.root / "etl" / f"{name}.py"), finished]
    delays = random.Random(name)
    start = time.monotonic()
    assert project.step(name, finished).returncode == 0
    whole = time.monotonic() - start
    for _ in range(8):
        with subprocess.Popen(command, env=project.environment(BATCH_BYTES="5000"), stderr=subprocess.DEVNULL) as step:
            time.sleep(delays.random() * whole)
            step.kill()
        assert content_of(run) == before
    assert is_verified(project)
    assert project.step(name, finished).returncode == 0
    assert not [path for path in run.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "settings", "code"),
    [
        ("data_loader", {"DATA_URL": "other.csv"}, 64),
        ("data_loader", {"DATA_URL": "missing.csv"}, 78),
        ("data_loader", {"DATA_URL": "http://127.0.0.1:1/x"}, 75),
        ("data_loader", {"DATA_URL": "README.md"}, 65),
        *((name, {"KEEP_RUNS": "few"}, 78) for name in STEPS),
        *((name, {"WORKERS": "few"}, 78) for name in STEPS),
        ("transform", {"DASK_SCHEDULER": "tcp://127.0.0.1:1", "BATCH_BYTES": "1000"}, 75),
        ("evaluate", {"STORAGE_URL": "s3://user:password@bucket"}, 78),
        ("evaluate", {"STORAGE_URL": "file:///proc/nowhere"}, 74),
    ],
)
def test_repeated_step_that_fails(
    project: Project, finished: str, name: str, settings: dict[str, str], code: int
) -> None:
    """A repeated step that fails, for whatever reason, changes no byte of the run."""
    (project.root / "README.md").write_text("# no table\n", encoding="utf-8")
    project.shorten_wait("SECONDS_TO_CONNECT = 30", "SECONDS_TO_CONNECT = 1")
    (run,) = project.runs()
    before = content_of(run)
    done = project.step(name, finished, **settings)

    assert done.returncode == code, done.stderr
    assert content_of(run) == before
    assert json.loads((run / "manifest.json").read_bytes())["steps"][name]["outcome"] == "done"


@pytest.mark.parametrize("name", STEPS)
def test_repeated_step_restores_a_lost_file(project: Project, finished: str, name: str) -> None:
    """A repeated step replaces a file of a finished run that was removed or damaged, by the very same content."""
    (run,) = project.runs()
    before = content_of(run)
    artifacts = json.loads((run / "manifest.json").read_bytes())["artifacts"]
    mine = [each for each, made in artifacts.items() if made["step"] == name and not each.startswith("log_")]
    for damage in (Path.unlink, lambda path: path.write_bytes(b"damaged")):
        for each in mine:
            damage(run / each)
        assert project.step(name, finished).returncode == 0
        assert content_of(run) == before


@pytest.mark.parametrize(("change", "code"), [(1e-15, 0), (1e-6, 64)])
def test_last_digits_are_not_a_different_result(project: Project, finished: str, change: float, code: int) -> None:
    """A run whose results come out the same apart from rounding is published as it was recorded."""
    (run,) = project.runs()
    before, place = content_of(run), project.root / "store"
    path = patch(project, adding_to_probabilities(change))
    done = project.step("evaluate", finished, PYTHONPATH=path, STORAGE_URL=f"file://{place}")

    assert done.returncode == code, done.stderr
    assert content_of(run) == before
    published = {Path(name).name: content for name, content in content_of(place / "runs").items()}
    assert published == ({} if code else {Path(name).name: content for name, content in before.items()})
    if code:
        assert "would now write a different probability in row 1; start a new run" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"BATCH_BYTES": "3000"}, {"OPENBLAS_CORETYPE": "Prescott"}], ids=str)
def test_batches_and_processor_change_no_finished_run(
    project: Project, write_csv: Callable[[str], str], settings: dict[str, str]
) -> None:
    """Repeated with different batches or on a different processor, every step succeeds and changes nothing."""
    rows = random.Random(1)
    lines = [f"{i},{rows.choice('BM')},{','.join(f'{rows.gauss(0, 1):.3f}' for _ in range(20))}" for i in range(4000)]
    # Pairs of rows that are equal apart from id and diagnosis have equal probabilities, if rounded in the same way.
    lines += [f"{i}x,{'BM'[i % 2]},{line.split(',', 2)[2]}" for i, line in enumerate(lines)]
    log = project.chain(DATA_URL=write_csv("\n".join(lines) + "\n"))
    (run,) = project.runs()
    before = content_of(run)
    for name in STEPS[1:]:
        done = project.step(name, log, **settings)
        assert done.returncode == 0, done.stderr
    assert content_of(run) == before
    done = project.step("runs", "verify", run.name, **settings)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["train", "evaluate", "runs"])
def test_model_is_unpickled_from_the_bytes_that_were_hashed(project: Project, finished: str, name: str) -> None:
    """A file is not opened again for unpickling after its hash was checked."""
    code = (
        "import joblib\n"
        "load = joblib.load\n"
        "def only_bytes(file, *a, **k):\n"
        "    assert type(file).__name__ == 'BytesIO'\n"
        "    return load(file, *a, **k)\n"
        "joblib.load = only_bytes\n"
    )
    if name == "train":
        code += "dump = joblib.dump\njoblib.dump = lambda model, path: open(path, 'wb').write(b'not the same bytes')\n"
    arguments = ["verify", project.runs()[0].name] if name == "runs" else [finished]
    done = project.step(name, *arguments, PYTHONPATH=patch(project, code))

    assert done.returncode == 0, done.stderr


def test_log_is_among_the_artifacts_without_a_storage(project: Project, finished: str) -> None:
    """The manifest of a finished run records a copy of its log, published or not."""
    (run,) = project.runs()
    name = Path(finished).name
    made = json.loads((run / "manifest.json").read_bytes())["artifacts"][name]
    assert made["sha256"] == hashlib.sha256((run / name).read_bytes()).hexdigest()
    assert (run / name).read_text(encoding="utf-8").count(": done in ") == len(STEPS)


def test_run_of_a_version_without_an_artifact(project: Project, finished: str) -> None:
    """A step that now makes a file which the finished run never had ends with 64, and adds nothing to the run."""
    (run,) = project.runs()
    path = run / "manifest.json"
    record = json.loads(path.read_bytes())
    del record["artifacts"]["cross_validation.csv"]
    path.write_text(json.dumps(record), encoding="utf-8")
    (run / "cross_validation.csv").unlink()
    before = content_of(run)
    done = project.step("train", finished)

    assert done.returncode == 64
    assert "cross_validation.csv: run " in done.stderr
    assert "is finished, and this step would now write a file that it does not have; start a new run" in done.stderr
    assert content_of(run) == before
