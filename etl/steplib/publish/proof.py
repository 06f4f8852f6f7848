"""Proof that a run's files are those of its manifest, and that its model gives its numbers."""

import csv
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from steplib.errors import DataError, PipelineError, UsageError, explain
from steplib.model import joblib
from steplib.model.scoring import measure
from steplib.publish import publishing
from steplib.runs import manifest
from steplib.runs.run import RUNS
from steplib.settings import Settings
from steplib.table.pool import open_pool
from steplib.table.schema import ID

# A different version of scikit-learn or a different processor may round the last digits differently.
TOLERANCE = 1e-9
NEEDED = ("clear_data.csv", "model.pkl", "predictions.csv", "evaluation.json")

# What was compared, and how it differs, if it does.
Check = tuple[str, str | None]
Latest = dict[str, Any]


def verify(text: str, settings: Settings) -> None:
    """Verify a run (stamp, folder or URL), printing each comparison. Raises DataError for the first difference."""
    with _open_run(text) as (folder, latest):
        record = manifest.read(folder)
        checks = []
        for name, difference in _all_checks(folder, record, latest, _stamp_in(text), settings):
            print(f"{name:<32} {f'differs: {difference}' if difference else 'matches'}")
            checks.append((name, difference))
    for note in _other_versions(record):
        print(note)
    for name, difference in checks:
        if difference:
            msg = f"{name}: expected what was written, found {difference}; do not use run {record['run']}"
            raise DataError(msg)
    print(f"Run {record['run']} matches its manifest, and its model reproduces its metrics.")


def _stamp_in(text: str) -> str | None:
    """Return the stamp at the end of a path or URL, if there is one."""
    name = text.rstrip("/").rpartition("/")[2]
    return name if manifest.STAMP.fullmatch(name) else None


@contextmanager
def _open_run(text: str) -> Iterator[tuple[Path, Latest | None]]:
    """Yield the run's folder, or a temporary copy of a published run, and the latest.json that led to it."""
    if "://" in text:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary), publishing.fetch(text, Path(temporary))
        return
    folder = RUNS / text if manifest.STAMP.fullmatch(text) else Path(text)
    if not (folder / manifest.NAME).is_file():
        raise UsageError(f"RUN: expected a run's stamp, folder or URL, found no {folder / manifest.NAME}; correct it")
    yield folder, None


def _all_checks(
    folder: Path, record: manifest.Record, latest: Latest | None, stamp: str | None, settings: Settings
) -> Iterator[Check]:
    """Compare the names and each artifact and, only if all of these fit, the predictions and the metrics."""
    checks = [(manifest.NAME, _name_difference(folder, record, latest, stamp))]
    if latest:
        expected = publishing.describe(record, str(latest.get("manifest_sha256")))
        different = (name for name in expected if latest.get(name) != expected[name])
        checks.append((publishing.LATEST, next((f"a different {name}" for name in different), None)))
    names = [*record["artifacts"], *(name for name in NEEDED if name not in record["artifacts"])]
    checks += [(name, _file_difference(folder / name, record["artifacts"].get(name))) for name in names]
    yield from checks
    if not any(difference for _, difference in checks):
        yield from _score_again(folder, manifest.metrics(record), settings)


def _name_difference(folder: Path, record: manifest.Record, latest: Latest | None, stamp: str | None) -> str | None:
    """Compare the manifest's run with the one asked for, and its hash with the one in latest.json."""
    if record["run"] != (latest["run"] if latest else stamp or record["run"]):
        return f"that of run {record['run']}"
    if latest and latest.get("manifest_sha256") != manifest.sha256(folder / manifest.NAME):
        return f"different content from what {publishing.LATEST} records (sha256)"
    return None


def _file_difference(path: Path, made: dict[str, Any] | None) -> str | None:
    """Compare a file with its record in the manifest."""
    if made is None:
        return "no record in the manifest"
    if not path.is_file():
        return "no file"
    if manifest.sha256(path) != made["sha256"]:
        return "different content (sha256)"
    return None if path.stat().st_size == made["bytes"] else "a different size"


def _score_again(folder: Path, recorded: dict[str, Any], settings: Settings) -> Iterator[Check]:
    """Compare the predictions and metrics that the model gives now with those that were written."""
    with tempfile.TemporaryFile() as again, open_pool(settings.workers, settings.dask_scheduler) as pool:
        try:
            model = joblib.load(folder / "model.pkl")
            metrics = measure(model, folder / "clear_data.csv", again, settings.batch_bytes, pool)
        except Exception as error:
            # A machine or a cluster that fails says nothing about the run; anything else is not this run's model.
            if isinstance(error, PipelineError) or explain(error)[1] != os.EX_SOFTWARE:
                raise
            yield "model.pkl", f"a model that cannot score clear_data.csv ({type(error).__name__})"
            return
        again.seek(0)
        lines = (line.decode() for line in again)
        yield "predictions, made again", _prediction_difference(lines, folder / "predictions.csv")
    try:
        written = dict(json.loads((folder / "evaluation.json").read_bytes()))
    except (ValueError, TypeError) as error:
        yield "evaluation.json", f"no metrics ({type(error).__name__})"
        return
    yield "metrics, computed again", _metric_difference(metrics, written)
    yield "metrics in the manifest", _metric_difference(recorded, written)


def _prediction_difference(again: Iterator[str], written: Path) -> str | None:
    """Compare the predictions with a predictions.csv: ids exactly, numbers within the tolerance."""
    columns: list[str] = []
    with written.open(encoding="utf-8", newline="") as file:
        try:
            for number, (now, then) in enumerate(zip_longest(csv.reader(again), csv.reader(file, strict=True))):
                columns = columns or now or []
                if now is None or then is None or len(now) != len(then):
                    return f"a different number of rows or columns in row {number}"
                for name, a, b in zip(columns, now, then, strict=True):
                    if a != b and (name == ID or not _are_close(float(a), float(b))):
                        return f"a different {name} in row {number}"
        except (csv.Error, ValueError) as error:
            return f"a file that is not a table of predictions ({type(error).__name__})"
    return None


def _metric_difference(metrics: dict[str, Any], written: dict[str, Any]) -> str | None:
    """Compare metrics with those of an evaluation.json."""
    for name in [*manifest.METRICS, *written]:
        if name not in written or name not in metrics or not _are_close(metrics[name], written[name]):
            return f"a different {name}"
    return None


def _are_close(now: object, then: object) -> bool:
    """Compare numbers within the tolerance, lists item by item, everything else exactly."""
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(_are_close(*pair) for pair in zip(now, then, strict=True))
    if isinstance(now, int | float) and isinstance(then, int | float):
        return math.isclose(now, then, rel_tol=0, abs_tol=TOLERANCE)
    return now == then


def _other_versions(record: manifest.Record) -> list[str]:
    """Return a line for each package whose version differs from the one the model was trained with."""
    recorded = record["steps"].get("train", {}).get("packages", {})
    here = {name: sys.modules[name].__version__ for name in recorded if name in sys.modules}
    return [
        f"{name}: made with {recorded[name]}, checked with {here[name]}"
        for name in here
        if here[name] != recorded[name]
    ]
