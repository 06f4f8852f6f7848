"""Proof that a run's files are those of its manifest, and that its model gives its numbers."""

import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steplib.errors import DataError, PipelineError, UsageError, explain, printable
from steplib.model import joblib
from steplib.model.metrics import rank_again
from steplib.model.scoring import measure
from steplib.publish import publishing
from steplib.publish.promotions import describe
from steplib.publish.records import LATEST
from steplib.runs import difference, manifest
from steplib.runs.folders import runs
from steplib.settings import Settings
from steplib.table.pool import open_pool

VALIDATION = "cross_validation.csv"
NEEDED = ("clear_data.csv", "model.pkl", "predictions.csv", "evaluation.json")

# What was compared, and how it differs, if it does.
Check = tuple[str, str | None]
Latest = dict[str, Any]


def verify(text: str, settings: Settings) -> None:
    """Verify a run (stamp, folder or URL), printing each comparison. Raises DataError for the first difference."""
    with _open_run(text) as (folder, latest):
        record = manifest.read(folder)
        checks = []
        for name, found in _all_checks(folder, record, latest, _stamp_in(text), settings):
            print(printable(f"{name:<32} {f'differs: {found}' if found else 'matches'}"))
            checks.append((name, found))
    for note in _other_versions(record):
        print(printable(note))
    for name, found in checks:
        if found:
            msg = f"{name}: expected what was written, found {found}; do not use run {record['run']}"
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
    folder = runs() / text if manifest.STAMP.fullmatch(text) else Path(text)
    if not (folder / manifest.NAME).is_file():
        raise UsageError(f"RUN: expected a run's stamp, folder or URL, found no {folder / manifest.NAME}; correct it")
    yield folder, None


def _all_checks(
    folder: Path, record: manifest.Record, latest: Latest | None, stamp: str | None, settings: Settings
) -> Iterator[Check]:
    """Compare the names and each artifact and, only if all of these fit, the predictions and the metrics."""
    checks = [(manifest.NAME, _name_difference(folder, record, latest, stamp))]
    if latest:
        expected = describe((folder / manifest.NAME).read_bytes())
        different = (name for name in expected if latest.get(name) != expected[name])
        checks.append((LATEST, next((f"a different {name}" for name in different), None)))
    names = [*record["artifacts"], *(name for name in NEEDED if name not in record["artifacts"])]
    checks += [(name, _file_difference(folder / name, record["artifacts"].get(name))) for name in names]
    yield from checks
    if not any(found for _, found in checks):
        yield from _score_again(folder, record, settings)


def _name_difference(folder: Path, record: manifest.Record, latest: Latest | None, stamp: str | None) -> str | None:
    """Compare the manifest's run with the one asked for, and its hash with the one in latest.json."""
    if record["run"] != (latest["run"] if latest else stamp or record["run"]):
        return f"that of run {record['run']}"
    if latest and latest.get("manifest_sha256") != manifest.sha256(folder / manifest.NAME):
        return f"different content from what {LATEST} records (sha256)"
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


def _score_again(folder: Path, record: manifest.Record, settings: Settings) -> Iterator[Check]:
    """Compare the predictions and metrics that the model gives now with those that were written."""
    model, written = (folder / "model.pkl").read_bytes(), folder / "predictions.csv"
    # The very bytes that are unpickled.
    if hashlib.sha256(model).hexdigest() != record["artifacts"]["model.pkl"]["sha256"]:
        yield "model.pkl", "different content (sha256)"
        return
    validation = folder / VALIDATION if VALIDATION in record["artifacts"] else None
    with tempfile.TemporaryFile() as again, open_pool(settings.workers, settings.dask_scheduler) as pool:
        try:
            metrics = measure(
                joblib.load(io.BytesIO(model)),
                folder / "clear_data.csv",
                again,
                settings.batch_bytes,
                pool,
                validation=validation,
            ).metrics
        except Exception as error:
            # A machine or a cluster that fails says nothing about the run; anything else is not this run's model.
            if isinstance(error, PipelineError) or explain(error)[1] != os.EX_SOFTWARE:
                raise
            yield "model.pkl", f"a model that cannot score clear_data.csv ({type(error).__name__})"
            return
        again.seek(0)
        found = difference.of_rows((line.decode() for line in again), written)
        yield "predictions, made again", found
    try:
        recorded = dict(json.loads((folder / "evaluation.json").read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        yield "evaluation.json", f"no metrics ({type(error).__name__})"
        return
    if not found:
        metrics = rank_again(metrics, written, validation)
    yield "metrics, computed again", difference.of_metrics(metrics, recorded)
    yield "metrics in the manifest", difference.of_metrics(manifest.metrics(record), recorded)


def _other_versions(record: manifest.Record) -> list[str]:
    """Return a line for each package whose version differs from the one the model was trained with."""
    recorded = record["steps"].get("train", {}).get("packages", {})
    here = {name: getattr(sys.modules.get(name), "__version__", None) for name in recorded}
    return [
        f"{name}: made with {recorded[name]}, checked with {here[name]}"
        for name in here
        if here[name] not in {None, recorded[name]}
    ]
