"""A copy of the project for each test that runs it, and ways to run its steps as a user does."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

ROOT = Path(__file__).parents[1]
STEPS = ("data_loader", "transform", "train", "evaluate")

Completed = subprocess.CompletedProcess[str]


class Project(NamedTuple):
    """A copy of the project in a folder of its own."""

    root: Path

    def environment(self, **settings: str) -> dict[str, str]:
        """Return what a fresh shell has, and the settings."""
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
        log = ""
        for name in STEPS:
            done = self.step(name, *([log] if log else []), **settings)
            assert done.returncode == 0, done.stderr
            log = done.stdout.strip()
        return log

    def artifacts(self) -> dict[str, bytes]:
        """Return the content of what results/ shows."""
        results = self.root / "results"
        return {path.name: path.read_bytes() for path in results.iterdir() if path.is_file() and path.name[0] != "."}

    def runs(self) -> list[Path]:
        """Return the runs' folders, oldest first."""
        return sorted((self.root / "results" / "runs").glob("[!.]*"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the pictures of the README be made anew."""
    parser.addoption("--pictures", action="store_true", help="write what the browser shows to images/")


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis keep its files in a folder that goes with the tests."""
    home = tempfile.TemporaryDirectory()
    config.add_cleanup(home.cleanup)
    set_hypothesis_home_dir(home.name)


def copy_project(root: Path) -> Project:
    """Copy the project to a folder that is not there yet."""
    for part in ("dags", "etl", "data"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in (".airflowignore", "run_airflow.sh", "run_pipeline.sh", "requirements-etl.txt", "requirements.txt"):
        shutil.copy(ROOT / part, root / part)
    return Project(root)


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Project]:
    """Return a maker of copies of the project."""
    return lambda name: copy_project(tmp_path / name)


@pytest.fixture
def project(make_project: Callable[[str], Project]) -> Project:
    """Return a copy of the project in a folder with blanks and Cyrillic letters in its name."""
    return make_project("мой проект 1")


def wdbc_rows() -> list[str]:
    """Return the lines of the embedded data."""
    return (ROOT / "data" / "wdbc.csv").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Return a writer of source files that gives back the path."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "source.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write
