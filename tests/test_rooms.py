"""Who may import whom inside etl: the sentence in docs/development.md, as a test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, STEPS

ETL = ROOT / "etl"
GROUND = {"errors", "address", "envfile", "settings", "log", "storage"}
# What each room may import besides itself.
MAY_IMPORT = {
    "errors": set(),
    "address": {"errors"},
    "envfile": {"errors"},
    "settings": {"errors", "address", "envfile"},
    "log": {"errors"},
    "storage": {"errors", "address", "envfile"},
    "source": GROUND,
    "runs": GROUND,
    "table": GROUND,
    "model": GROUND | {"table"},
    "gate": GROUND | {"runs", "table", "model"},
    "report": GROUND | {"runs", "table", "model", "gate"},
    "publish": GROUND | {"runs", "table", "model", "gate", "report"},
    "streams": {"errors"},
    "arguments": {"errors"},
    "imports": set(),
    "process": {"errors", "log", "streams", "imports"},
    "step": GROUND | {"runs", "streams", "process", "imports"},
}


def imported_by(path: Path) -> Iterator[str]:
    """Yield the names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported_by(path: Path) -> set[str]:
    """Return the rooms of steplib that a file imports from."""
    return {name.split(".")[1] for name in imported_by(path) if name.startswith("steplib.")}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_between_rooms_go_down(room: str) -> None:
    """A room imports only rooms below it."""
    folder = ETL / "steplib" / room
    for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        assert rooms_imported_by(path) <= MAY_IMPORT[room] | {room}, path


def test_every_room_has_its_rule() -> None:
    """No module of steplib is outside the rule."""
    rooms = {path.stem for path in (ETL / "steplib").iterdir() if path.stem.isalpha()}

    assert rooms == set(MAY_IMPORT)


def test_scripts_import_steplib_and_never_each_other() -> None:
    """A script can be read, and run, without the others."""
    scripts = {path.stem for path in ETL.glob("*.py")}
    for path in ETL.rglob("*.py"):
        assert not scripts & {name.split(".")[0] for name in imported_by(path)}, path


@pytest.mark.parametrize("step", STEPS)
def test_step_fits_a_screen(step: str) -> None:
    """Each of the four steps has at most 90 lines."""
    assert len((ETL / f"{step}.py").read_text(encoding="utf-8").splitlines()) <= 90
