"""Copies of the project, ways to run its steps as a user does, and the marks by which run_tests.sh chooses tests."""

import compileall
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

ROOT = Path(__file__).parents[1]
STEPS = ("data_loader", "transform", "train", "evaluate")
ARTIFACTS = {
    *("raw_data.csv", "clear_data.csv", "model.pkl"),
    *("cross_validation.csv", "evaluation.json", "predictions.csv"),
}
# The files whose tests take longest; each file's tests run one after another, since they share servers.
LONGEST = ("test_airflow", "test_clouds", "test_workers", "test_bucket", "test_dags", "test_runs", "test_properties")

# As in the steps. numpy reads it when a test module imports it, later than this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

Completed = subprocess.CompletedProcess[str]
RunUpTo = Callable[[str], str]


class Project(NamedTuple):
    """A copy of the project in its own folder."""

    root: Path

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of a fresh shell plus the settings."""
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1"}
        return clean | {"ETL_PYTHON": sys.executable} | settings

    def step(self, name: str, *arguments: str, cwd: Path | None = None, **settings: str) -> Completed:
        """Run one script."""
        command = [sys.executable, str(self.root / "etl" / f"{name}.py"), *arguments]
        return self.run(command, cwd, **settings)

    def run(self, command: list[str], cwd: Path | None = None, **settings: str) -> Completed:
        """Run a command and wait for it."""
        return subprocess.run(
            command,
            cwd=cwd or self.root,
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def pipeline(self, **settings: str) -> Completed:
        """Run run_pipeline.sh."""
        return self.run(["sh", str(self.root / "run_pipeline.sh")], **settings)

    def chain(self, **settings: str) -> str:
        """Run the four steps, which must succeed; return the log's path."""
        return self.run_steps(STEPS, **settings)

    def run_steps(self, names: Sequence[str], **settings: str) -> str:
        """Run the first steps of a new run, which must succeed; return the log's path, or '' without a step."""
        log = ""
        for name in names:
            done = self.step(name, *([log] if log else []), **settings)
            assert done.returncode == 0, done.stderr
            log = done.stdout.strip()
        return log

    def shorten_wait(self, limit: str, shorter: str) -> None:
        """Replace a limit in the project's code, the only one of this text, which the test would only wait for."""
        (module,) = [path for path in self.root.glob("etl/**/*.py") if limit in path.read_text(encoding="utf-8")]
        code = module.read_text(encoding="utf-8")
        assert code.count(limit) == 1
        module.write_text(code.replace(limit, shorter), encoding="utf-8")

    def artifacts(self) -> dict[str, bytes]:
        """Return the content of the files that results/ shows, by name, without the page, which names runs."""
        shown = [path for path in (self.root / "results").iterdir() if path.is_file() and path.name[0] != "."]
        return {path.name: path.read_bytes() for path in shown if path.name != "report.html"}

    def runs(self) -> list[Path]:
        """Return the runs' folders, oldest first."""
        return sorted((self.root / "results" / "runs").glob("[!.]*"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that renews the README's pictures."""
    parser.addoption("--pictures", action="store_true", help="write the browser's screenshots to images/")


def pytest_configure(config: pytest.Config) -> None:
    """Keep hypothesis's files in a folder that is removed after the tests."""
    home = tempfile.TemporaryDirectory()
    config.add_cleanup(home.cleanup)
    set_hypothesis_home_dir(home.name)


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests with what they need, and put the files that take longest first, so that no core waits for them."""
    for item in items:
        if item.path.stem in {"test_airflow", "test_dags"}:
            item.add_marker("airflow")
        if {"server", "store", "scheduler"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("server")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def copy_project(root: Path, source: Path = ROOT) -> Project:
    """Copy the project, or a copy of it, to a new folder."""
    caches = shutil.ignore_patterns("__pycache__") if source == ROOT else None
    for part in ("bin", "dags", "etl", "data"):
        shutil.copytree(source / part, root / part, ignore=caches)
    for part in (".airflowignore", "run_airflow.sh", "run_pipeline.sh", "requirements-etl.txt", "requirements.txt"):
        shutil.copy(source / part, root / part)
    return Project(root)


@pytest.fixture(scope="session")
def compiled_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project with compiled modules, which saves each test's copy from compiling them."""
    root = tmp_path_factory.mktemp("compiled") / "project"
    copy_project(root)
    assert compileall.compile_dir(root / "etl", quiet=1)
    return root


@pytest.fixture
def make_project(tmp_path: Path, compiled_project: Path) -> Callable[[str], Project]:
    """Return a function that copies the project to a named folder."""
    return lambda name: copy_project(tmp_path / name, compiled_project)


@pytest.fixture
def project(make_project: Callable[[str], Project]) -> Project:
    """Return a copy of the project in a folder with blanks and Cyrillic letters in its name."""
    return make_project("мой проект 1")


@pytest.fixture(scope="session")
def runs_by_step(tmp_path_factory: pytest.TempPathFactory, compiled_project: Path) -> dict[str, Path]:
    """Run the four steps once; return, for each step, a folder with results/ and logs/ as that step left them."""
    folder = tmp_path_factory.mktemp("runs")
    project = copy_project(folder / "project", compiled_project)
    log = ""
    for name in STEPS:
        done = project.step(name, *([log] if log else []))
        assert done.returncode == 0, done.stderr
        log = done.stdout.strip()
        copy_runs(project.root, folder / name)
    return {name: folder / name for name in STEPS}


def copy_runs(source: Path, target: Path) -> None:
    """Copy results/ and logs/."""
    for part in ("results", "logs"):
        shutil.copytree(source / part, target / part, symlinks=True)


@pytest.fixture
def run_up_to(project: Project, runs_by_step: dict[str, Path]) -> RunUpTo:
    """Return a function that gives the project a run on the embedded data up to a step, and returns the log's path.

    The steps have run in a different copy of the project, once for all tests: running them takes seconds.
    """

    def copy(last_step: str) -> str:
        copy_runs(runs_by_step[last_step], project.root)
        (log,) = (project.root / "logs").iterdir()
        return str(log)

    return copy


def is_verified(done: Completed) -> bool:
    """Return whether runs.py verify found no difference."""
    assert done.returncode in {0, 65}, done.stderr
    return done.returncode == 0


def kill_and_resume(project: Project, log: str, place: str, variables: dict[str, str]) -> None:
    """Kill a publication several times, verify what a reader finds, and wait for the last one."""
    environment = project.environment(STORAGE_URL=place, **variables)
    for pause in (0, 0.2, 0.4):
        begun = Path(log).read_text(encoding="utf-8").count("publishing to")
        with subprocess.Popen([sys.executable, project.root / "etl" / "evaluate.py", log], env=environment) as process:
            wait_until(lambda begun=begun: Path(log).read_text(encoding="utf-8").count("publishing to") > begun)
            time.sleep(pause)
            process.kill()
        seen = project.step("runs", "verify", f"{place}/latest.json", **variables)
        assert is_verified(seen) or "there is no latest.json" in seen.stderr, seen.stderr

    assert project.step("evaluate", log, STORAGE_URL=place, **variables).returncode == 0
    assert is_verified(project.step("runs", "verify", f"{place}/latest.json", **variables))


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait for at most a minute."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def wdbc_rows() -> list[str]:
    """Return the lines of the embedded data."""
    return (ROOT / "data" / "wdbc.csv").read_text(encoding="utf-8").splitlines()


def garbled(rows: list[str]) -> list[str]:
    """Return rows with the measurements of other patients: each diagnosis stays, so that it is no change of them."""
    cells = [row.split(",") for row in rows]
    values = [row[2:] for row in cells]
    random.Random(0).shuffle(values)
    return [",".join([*row[:2], *value]) for row, value in zip(cells, values, strict=True)]


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Any]:
    """Start Chromium, which writes to its home folder: here a temporary one."""
    program = shutil.which("chromium")
    if not program and not os.environ.get("CI"):
        pytest.skip("needs chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        environment = {**os.environ, "HOME": str(tmp_path)}
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], env=environment)
        yield browser
        browser.close()


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Return a function that writes a source file and returns its path."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "source.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write
