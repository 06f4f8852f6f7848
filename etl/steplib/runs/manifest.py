"""A run's manifest: what each step made, from what, with what, when, and how it ended."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from steplib.envfile import ROOT
from steplib.errors import DataError

STEPS = ("data_loader", "transform", "train", "evaluate")
NAME = "manifest.json"
# A run's name.
STAMP_FORMAT = "%Y_%m_%d_%H_%M_%S"
STAMP = re.compile(r"\d{4}(_\d\d){5}", re.ASCII)
# The metrics that are always in evaluation.json, first and in this order.
METRICS = ("accuracy", "precision", "recall", "f1_score")
ARTIFACT_KEYS = {"sha256", "bytes", "rows"}
# The start of a run whose own start is unknown, or lies further in the future than clocks differ.
EARLIEST = datetime.min.replace(tzinfo=UTC)
CLOCKS_DIFFER = timedelta(minutes=5)
FUTURE = (
    "run %s: its start, %s, is in the future, so it counts as the oldest; check the clock of the machine that made it"
)
# What the gate says about a run (etl/steplib/gate/verdicts.py), after its last step.
JUDGED = ("verdict", "changes")
# Recorded under the names by which they are imported, if the step has imported them.
PACKAGES = ("joblib", "numpy", "orjson", "pyarrow", "requests", "scipy", "sklearn")

Record = dict[str, Any]


def new(stamp: str, run_id: str | None) -> Record:
    """Return the manifest of a run in which no step has begun; its id distinguishes it from all runs elsewhere."""
    return {"run": stamp, "id": os.urandom(16).hex(), "run_id": run_id, "started": _now(), "artifacts": {}, "steps": {}}


def read(folder: Path) -> Record:
    """Read the manifest in a run's folder; see parse."""
    path = folder / NAME
    return parse(path.read_bytes() if path.is_file() else b"", str(path))


def parse(content: bytes, path: str) -> Record:
    """Return the manifest in a file's content.

    Raises DataError if no step can have written it, or if its folder has the name of a different run.
    """
    try:
        # int() refuses NaN and Infinity, which are not JSON.
        record = json.loads(content, parse_constant=int, parse_float=_finite)
    except (ValueError, RecursionError):
        record = None
    if not _is_manifest(record):
        raise DataError(f"{path}: expected a run's manifest, found none or something else; start a new run")
    folder = path.split("/")[-2:][0]
    if STAMP.fullmatch(folder) and record["run"] != folder:
        msg = f"{path}: expected the manifest of run {folder}, found that of run {record['run']}"
        raise DataError(f"{msg}; rename the folder to {record['run']}")
    return cast("Record", record)


def read_leniently(folder: Path) -> Record:
    """Read a manifest for an overview of many runs; see parse_leniently."""
    try:
        return parse_leniently((folder / NAME).read_bytes(), folder.name)
    except OSError:
        return parse_leniently(b"", folder.name)


def parse_leniently(content: bytes, stamp: str) -> Record:
    """Return a run's manifest, or that of a run without steps if it cannot be read."""
    try:
        return parse(content, f"{stamp}/{NAME}")
    except DataError:
        return {"run": stamp, "started": "", "artifacts": {}, "steps": {}}


def to_bytes(record: Record) -> bytes:
    """Return the file's content; a path or a run's name in it need not be UTF-8."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")


def note_start(record: Record, step: str) -> None:
    """Note that a step has started."""
    record["steps"][step] = {"started": _now(), "outcome": "running"}


def note_end(record: Record, step: str, exit_code: int, seconds: float, facts: Mapping[str, Any]) -> None:
    """Note how a step ended, the versions it used, and its facts."""
    record["steps"][step] |= {
        "outcome": "done" if exit_code == os.EX_OK else "failed",
        "exit_code": exit_code,
        "seconds": round(seconds, 3),
        **versions(),
        **facts,
    }


def versions() -> dict[str, Any]:
    """Return the versions of Python, of this project and of the packages in use."""
    packages = {name: sys.modules[name].__version__ for name in PACKAGES if sys.modules.get(name)}
    return {"python": sys.version.split()[0], "git_revision": _git_revision(), "packages": packages}


def note_artifact(record: Record, step: str, path: Path, rows: int | None) -> None:
    """Note what a step made. If its content has changed, forget what later steps made from the old content."""
    artifact = {"step": step, "sha256": sha256(path), "bytes": path.stat().st_size, "rows": rows}
    before = record["artifacts"].get(path.name)
    if before and before["sha256"] == artifact["sha256"]:
        artifact["rows"] = before["rows"]
    elif before:
        _forget_steps(record, STEPS[STEPS.index(step) + 1 :])
    record["artifacts"][path.name] = artifact


def forget_others(record: Record, step: str, names: Collection[str]) -> set[str]:
    """Forget what the step has made before and no longer makes, and what later steps made; return the names."""
    others = {name for name, made in record["artifacts"].items() if made["step"] == step and name not in names}
    if others:
        _forget_steps(record, STEPS[STEPS.index(step) + 1 :])
    record["artifacts"] = {name: made for name, made in record["artifacts"].items() if name not in others}
    return others


def _forget_steps(record: Record, steps: tuple[str, ...]) -> None:
    record["steps"] = {name: step for name, step in record["steps"].items() if name not in steps}
    record["artifacts"] = {name: made for name, made in record["artifacts"].items() if made["step"] not in steps}
    for name in JUDGED:
        record.pop(name, None)


def is_finished(record: Record) -> bool:
    """Return whether every step has done its work; such a run never changes."""
    return all(record["steps"].get(name, {}).get("outcome") == "done" for name in STEPS)


def failed_for_good(record: Record) -> bool:
    """Return whether a step has failed in a way that is not tried again by itself."""
    may_continue = {None, os.EX_OK, os.EX_TEMPFAIL}
    return any(step.get("exit_code") not in may_continue for step in record["steps"].values())


def start(record: Record) -> datetime:
    """Return the start of a run, which orders runs; EARLIEST if a clock was wrong, so that it never hides others."""
    return EARLIEST if starts_in_future(record) else read_time(record["started"])


def starts_in_future(record: Record) -> bool:
    """Return whether a run's start lies in the future, because a clock was or is wrong."""
    return read_time(record["started"]) > datetime.now(UTC) + CLOCKS_DIFFER


def read_time(text: Any) -> datetime:  # noqa: ANN401 - whatever a file from elsewhere holds
    """Return a time in UTC; EARLIEST for anything else."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return EARLIEST


def metrics(record: Record) -> dict[str, Any]:
    """Return the metrics that evaluate recorded, if it has."""
    return dict(record["steps"].get(STEPS[-1], {}).get("metrics", {}))


def identity(record: Record) -> str:
    """Return what distinguishes a run from all others; runs of older versions have no id."""
    return str(record.get("id", record["started"]))


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
    named = bool(STAMP.fullmatch(found["run"])) and isinstance(found.get("run_id"), str | None)
    artifacts = all(_is_artifact(name, made) for name, made in found["artifacts"].items())
    return named and artifacts and all(_is_step(step) for step in found["steps"].values())


def _finite(text: str) -> float:
    # Larger numbers would be read as infinity, which is not JSON either.
    if math.isinf(number := float(text)):
        raise ValueError
    return number


def _is_artifact(name: str, made: Record) -> bool:
    # Names become paths and are printed.
    complete = re.fullmatch(r"\w[\w.-]*", name, re.ASCII) and made.get("step") in STEPS and made.keys() >= ARTIFACT_KEYS
    return bool(complete) and isinstance(made["sha256"], str) and isinstance(made["bytes"], int)


def _is_step(step: Record) -> bool:
    """Return whether the values that code uses have the right types; values that are only shown may have any."""
    facts = (step.get(name, {}) for name in ("metrics", "packages"))
    return all(isinstance(fact, dict) for fact in facts) and not isinstance(step.get("exit_code"), dict | list)


def _git_revision() -> str | None:
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat()
