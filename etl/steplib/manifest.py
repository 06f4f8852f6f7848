"""A run's manifest: what was made by which step, from what, with what, when and how it ended."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from steplib.errors import DataError
from steplib.settings import ROOT

STEPS = ("data_loader", "transform", "train", "evaluate")
NAME = "manifest.json"
# How a run is named.
STAMP = re.compile(r"\d{4}(_\d\d){5}", re.ASCII)
# Recorded by the names under which they are imported, if the step has imported them.
PACKAGES = ("joblib", "numpy", "orjson", "pyarrow", "requests", "scipy", "sklearn")

Manifest = dict[str, Any]


def new_manifest(stamp: str, run_id: str | None) -> Manifest:
    """Return the manifest of a run in which no step has begun."""
    return {
        "run": stamp,
        "run_id": run_id,
        "started": _now(),
        "artifacts": {},
        "steps": {},
    }


def read_manifest(folder: Path) -> Manifest:
    """Read a run's manifest. Raises DataError if it is not what a step wrote."""
    path = folder / NAME
    return parse(path.read_bytes() if path.is_file() else b"", str(path))


def parse(content: bytes, path: str) -> Manifest:
    """Return the manifest that a file holds. Raises DataError if it is not what a step wrote."""
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        manifest = None
    if not _is_manifest(manifest):
        raise DataError(f"{path}: expected a run's manifest, found none or something else; start a new run")
    return cast("Manifest", manifest)


def to_bytes(manifest: Manifest) -> bytes:
    """Return the file's content; a path or a run's name in it need not be UTF-8."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")


def read_quietly(folder: Path) -> Manifest:
    """Read a manifest for an overview of many runs; see parse_quietly."""
    try:
        content = (folder / NAME).read_bytes()
    except OSError:
        content = b""
    return parse_quietly(content, folder.name)


def parse_quietly(content: bytes, stamp: str) -> Manifest:
    """Return a run's manifest; one that cannot be read is that of a run without steps."""
    try:
        return parse(content, stamp)
    except DataError:
        return {"run": stamp, "started": "", "artifacts": {}, "steps": {}}


def note_start(manifest: Manifest, step: str) -> None:
    """Note that a step is at work."""
    manifest["steps"][step] = {"started": _now(), "outcome": "running"}


def note_end(manifest: Manifest, step: str, exit_code: int, seconds: float, facts: Mapping[str, Any]) -> None:
    """Note how a step ended, what it worked with and the facts that it tells."""
    manifest["steps"][step] |= {
        "outcome": "done" if exit_code == os.EX_OK else "failed",
        "exit_code": exit_code,
        "seconds": round(seconds, 3),
        "python": sys.version.split()[0],
        "git_revision": _git_revision(),
        "packages": {name: sys.modules[name].__version__ for name in PACKAGES if sys.modules.get(name)},
        **facts,
    }


def note_artifact(manifest: Manifest, step: str, path: Path, rows: int | None) -> None:
    """Note what a step made; what later steps made from another content under that name no longer counts."""
    record = {"step": step, "sha256": sha256(path), "bytes": path.stat().st_size, "rows": rows}
    before = manifest["artifacts"].get(path.name)
    if before and before["sha256"] == record["sha256"]:
        record["rows"] = before["rows"]
    elif before:
        later = STEPS[STEPS.index(step) + 1 :]
        for name in later:
            manifest["steps"].pop(name, None)
        artifacts = manifest["artifacts"].items()
        manifest["artifacts"] = {name: made for name, made in artifacts if made["step"] not in later}
    manifest["artifacts"][path.name] = record


def is_whole(manifest: Manifest) -> bool:
    """Tell whether the run went through to the end: each step has made its artifact from those that are there."""
    return {made["step"] for made in manifest["artifacts"].values()} == set(STEPS)


def sha256(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_manifest(found: object) -> bool:
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in ("run", "started")):
        return False
    tables = [found.get("artifacts"), found.get("steps")]
    if not all(isinstance(table, dict) and all(isinstance(row, dict) for row in table.values()) for table in tables):
        return False
    # Names become paths, and are printed.
    whole = {"sha256", "bytes", "rows"}
    made_well = all(
        re.fullmatch(r"\w[\w.-]*", name, re.ASCII) and made.get("step") in STEPS and whole <= made.keys()
        for name, made in found["artifacts"].items()
    )
    facts = [step.get(name, {}) for step in found["steps"].values() for name in ("metrics", "packages")]
    return made_well and all(isinstance(fact, dict) for fact in facts) and bool(STAMP.fullmatch(found["run"]))


def _git_revision() -> str | None:
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat()
