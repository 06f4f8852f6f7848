"""A run's manifest: what was made by which step, from what, with what, when and how it ended."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steplib.errors import DataError
from steplib.settings import ROOT

STEPS = ("data_loader", "transform", "train", "evaluate")
NAME = "manifest.json"
# Recorded by the names under which they are imported, if the step has imported them.
PACKAGES = ("joblib", "numpy", "pandas", "requests", "scipy", "sklearn")

Manifest = dict[str, Any]


def new_manifest(stamp: str, run_id: str | None) -> Manifest:
    """Return the manifest of a run in which no step has begun."""
    return {
        "run": stamp,
        "run_id": run_id,
        "started": _now(),
        "git_revision": _git_revision(),
        "artifacts": {},
        "steps": {},
    }


def read_manifest(folder: Path) -> Manifest:
    """Read a run's manifest. Raises DataError if it is not what a step wrote."""
    path = folder / NAME
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or not {"started", "artifacts", "steps"} <= manifest.keys():
        raise DataError(f"{path}: expected a run's manifest, found none or something else; start a new run")
    return manifest


def read_quietly(folder: Path) -> Manifest:
    """Read a manifest for an overview of many runs; one that is missing or damaged is that of a run without steps."""
    try:
        return read_manifest(folder)
    except DataError:
        return {"run_id": None, "started": "", "artifacts": {}, "steps": {}}


def as_text(manifest: Manifest) -> str:
    """Return the manifest's file content."""
    return json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
        "packages": {name: sys.modules[name].__version__ for name in PACKAGES if name in sys.modules},
        **facts,
    }


def note_artifact(manifest: Manifest, step: str, path: Path, rows: int | None) -> None:
    """Note what a step made; what later steps made from another content under that name no longer counts."""
    record = {"step": step, "sha256": sha256(path), "bytes": path.stat().st_size, "rows": rows}
    before = manifest["artifacts"].get(path.name)
    if before and before["sha256"] != record["sha256"]:
        later = STEPS[STEPS.index(step) + 1 :]
        for name in later:
            manifest["steps"].pop(name, None)
        artifacts = manifest["artifacts"].items()
        manifest["artifacts"] = {name: made for name, made in artifacts if made["step"] not in later}
    manifest["artifacts"][path.name] = record


def is_whole(manifest: Manifest) -> bool:
    """Tell whether every step has done its work."""
    return all(manifest["steps"].get(step, {}).get("outcome") == "done" for step in STEPS)


def sha256(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
