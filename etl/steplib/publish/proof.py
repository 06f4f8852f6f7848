"""Proof that a run's files are those of its manifest, and that its model gives its numbers."""

import hashlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from steplib.errors import DataError, PipelineError, UsageError, explain, printable
from steplib.model import joblib
from steplib.model.metrics import rank_again
from steplib.model.scoring import measure
from steplib.publish import publishing, verdict_proof
from steplib.runs import difference, manifest
from steplib.runs.folders import runs
from steplib.runs.records import LATEST, describe
from steplib.settings import Settings
from steplib.table.pool import open_pool

VALIDATION = "cross_validation.csv"
NEEDED = ("clear_data.csv", "model.pkl", "predictions.csv", "evaluation.json")


class Check(NamedTuple):
    """What was compared; how it differs, if it does; why it could not be compared, if so."""

    name: str
    found: str | None = None
    note: str | None = None


Latest = dict[str, Any]


def verify(text: str, settings: Settings) -> None:
    """Verify a run (stamp, folder or URL), printing each comparison. Raises DataError for the first difference."""
    with _open_run(text) as (folder, latest):
        record = manifest.read(folder)
        checks = []
        for check in _all_checks(folder, record, latest, text, settings):
            found = f"differs: {check.found}" if check.found else "matches"
            print(printable(f"{check.name:<32} {f'left out: {check.note}' if check.note else found}"))
            checks.append(check)
    for note in _other_versions(record):
        print(printable(note))
    for check in checks:
        if check.found:
            msg = f"{check.name}: expected what was written, found {check.found}; do not use run {record['run']}"
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
    folder: Path, record: manifest.Record, latest: Latest | None, text: str, settings: Settings
) -> Iterator[Check]:
    """Compare the names and each artifact and, only if all of these fit, what follows from them."""
    checks = [Check(manifest.NAME, _name_difference(folder, record, latest, _stamp_in(text)))]
    if latest:
        expected = describe((folder / manifest.NAME).read_bytes())
        different = (name for name in expected if latest.get(name) != expected[name])
        checks.append(Check(LATEST, next((f"a different {name}" for name in different), None)))
    names = [*record["artifacts"], *(name for name in NEEDED if name not in record["artifacts"])]
    checks += [Check(name, _file_difference(folder / name, record["artifacts"].get(name))) for name in names]
    yield from checks
    if not any(check.found for check in checks):
        yield from _score_again(folder, record, settings)
        url = re.sub(rf"/+(latest\.json|runs/+{record['run']})/*$", "", text) if "://" in text else None
        yield Check("verdict, made again", *verdict_proof.check(folder, record, settings, url))


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
        yield Check("model.pkl", "different content (sha256)")
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
            yield Check("model.pkl", f"a model that cannot score clear_data.csv ({type(error).__name__})")
            return
        again.seek(0)
        found = difference.of_rows((line.decode() for line in again), written)
        yield Check("predictions, made again", found)
    try:
        recorded = dict(json.loads((folder / "evaluation.json").read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        yield Check("evaluation.json", f"no metrics ({type(error).__name__})")
        return
    if not found:
        metrics = rank_again(metrics, written, validation)
    yield Check("metrics, computed again", difference.of_metrics(metrics, recorded))
    yield Check("metrics in the manifest", difference.of_metrics(manifest.metrics(record), recorded))


def _other_versions(record: manifest.Record) -> list[str]:
    """Return a line for each package whose version differs from the one the model was trained with."""
    recorded = record["steps"].get("train", {}).get("packages", {})
    here = {name: getattr(sys.modules.get(name), "__version__", None) for name in recorded}
    return [
        f"{name}: made with {recorded[name]}, checked with {here[name]}"
        for name in here
        if here[name] not in {None, recorded[name]}
    ]
