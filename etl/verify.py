"""Prove that a run's files are those of its manifest, and that its model gives its numbers.

Usage     python3 etl/verify.py RUN
RUN       a stamp (2026_11_22_21_36_36), a run's folder, or a storage URL: …/runs/<stamp> or …/latest.json.
Checks    every artifact's sha256 and size; the model, unpickled only after its hash fits, on the held-out rows of
          clear_data.csv: predictions and every metric as they were written; for latest.json, what it says of the run.
Exits     0: all fits; 65: something does not, and the last line names it first; 64, 75, 78: as the steps.
"""

import csv
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from steplib import manifest as manifests
from steplib import numerics, storage, tool
from steplib.batches import workers
from steplib.errors import DataError, MemoryShortError, UsageError
from steplib.run import RUNS, STAMP
from steplib.scoring import COLUMNS, measure
from steplib.settings import read_settings

# Another version of scikit-learn, or another processor, may round the last digits otherwise.
TOLERANCE = 1e-9
CONTRACT = ("accuracy", "precision", "recall", "f1_score")
NEEDED = ("clear_data.csv", "model.pkl", "predictions.csv", "evaluation.json")


# What was compared, and what is wrong with it, if anything is.
Check = tuple[str, str | None]


def verify(arguments: list[str]) -> None:
    """Print what was checked. Raises DataError for the first thing that does not fit."""
    if len(arguments) != 1:
        raise UsageError(f"RUN: expected one stamp, folder or URL, found {len(arguments)} arguments; see --help")
    with folder_of(arguments[0]) as (folder, latest):
        manifest = manifests.read_manifest(folder)
        wrong = [check for check in map(show, all_checks(folder, manifest, latest, asked(arguments[0]))) if check[1]]
    for note in other_versions(manifest):
        print(note)
    if wrong:
        name, found = wrong[0]
        raise DataError(f"{name}: expected what was written, found {found}; do not use run {manifest['run']}")
    print(f"Run {manifest['run']} is what its manifest says, and its model gives its numbers.")


def show(check: Check) -> Check:
    """Print a line of the table."""
    print(f"{check[0]:<32} {f'differs: {check[1]}' if check[1] else 'fits'}")
    return check


def asked(text: str) -> str | None:
    """Return the stamp that the argument names, if it does."""
    name = text.rstrip("/").rpartition("/")[2]
    return name if STAMP.fullmatch(name) else None


@contextmanager
def folder_of(text: str) -> "Iterator[tuple[Path, dict[str, Any] | None]]":
    """Give the run's folder, a temporary copy if it is in a storage, and what latest.json says if that was asked."""
    if "://" in text:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary), storage.fetch(text, Path(temporary))
        return
    folder = RUNS / text if STAMP.fullmatch(text) else Path(text)
    if not (folder / manifests.NAME).is_file():
        raise UsageError(f"RUN: expected a run's stamp, folder or URL, found no {folder / manifests.NAME}; correct it")
    yield folder, None


def all_checks(
    folder: Path, manifest: manifests.Manifest, latest: dict[str, Any] | None, stamp: str | None
) -> Iterator[Check]:
    """Compare the names, each artifact, and, only if all of these fit, the predictions and the metrics."""
    checks = [(manifests.NAME, wrong_name(folder, manifest, latest, stamp))]
    if latest:
        checks.append((storage.LATEST, wrong_latest(manifest, latest)))
    names = [*manifest["artifacts"], *(name for name in NEEDED if name not in manifest["artifacts"])]
    checks += [(name, wrong_file(folder, name, manifest["artifacts"].get(name))) for name in names]
    yield from checks
    if not any(found for _, found in checks):
        yield from scored_again(folder, manifest["steps"].get("evaluate", {}).get("metrics", {}))


def scored_again(folder: Path, recorded: dict[str, Any]) -> Iterator[Check]:
    """Compare the predictions and metrics that the model gives now with those that were written."""
    numerics.start()
    import joblib

    settings = read_settings()
    with tempfile.TemporaryDirectory() as temporary, workers(settings) as over:
        again = Path(temporary) / "predictions.csv"
        try:
            model = joblib.load(folder / "model.pkl")
            metrics = measure(model, folder / "clear_data.csv", again, settings.batch_bytes, over)
        except (MemoryError, MemoryShortError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a forged or foreign model does, it is not this run's
            yield "model.pkl", f"a model that cannot score clear_data.csv ({type(error).__name__})"
            return
        yield "predictions, made again", wrong_predictions(again, folder / "predictions.csv")
    try:
        said = dict(json.loads((folder / "evaluation.json").read_bytes()))
    except (ValueError, TypeError) as error:
        yield "evaluation.json", f"no metrics ({type(error).__name__})"
        return
    yield "metrics, computed again", wrong_metrics(metrics, said)
    yield "metrics in the manifest", wrong_metrics(recorded, said)


def wrong_name(
    folder: Path, manifest: manifests.Manifest, latest: dict[str, Any] | None, stamp: str | None
) -> str | None:
    """Tell whether the manifest is that of another run, or not the one that latest.json names by its hash."""
    if manifest["run"] != (latest["run"] if latest else stamp or manifest["run"]):
        return f"that of run {manifest['run']}"
    if latest and latest.get("manifest_sha256") != manifests.sha256(folder / manifests.NAME):
        return f"another content than {storage.LATEST} says (sha256)"
    return None


def wrong_latest(manifest: manifests.Manifest, latest: dict[str, Any]) -> str | None:
    """Tell what latest.json says otherwise than the run that it names."""
    expected = storage.describe(manifest, str(latest.get("manifest_sha256")))
    return next((f"another {name}" for name in expected if latest.get(name) != expected[name]), None)


def wrong_file(folder: Path, name: str, made: dict[str, Any] | None) -> str | None:
    """Tell in what a file differs from its record in the manifest."""
    if made is None:
        return "no record in the manifest"
    if not (folder / name).is_file():
        return "no file"
    if manifests.sha256(folder / name) != made["sha256"]:
        return "other content (sha256)"
    return None if (folder / name).stat().st_size == made["bytes"] else "another size"


def wrong_predictions(again: Path, written: Path) -> str | None:
    """Tell in which column predictions.csv differs from what the model says now."""
    if manifests.sha256(again) == manifests.sha256(written):
        return None
    with again.open(encoding="utf-8", newline="") as now, written.open(encoding="utf-8", newline="") as then:
        try:
            for row, pair in enumerate(zip_longest(csv.reader(now), csv.reader(then, strict=True))):
                if column := differs(*pair):
                    return f"another {column} in row {row}"
        except (csv.Error, ValueError) as error:
            return f"no such table ({type(error).__name__})"
    return None


def differs(now: list[str] | None, then: list[str] | None) -> str | None:
    """Return the name of the first column in which two rows of predictions.csv differ."""
    if now is None or then is None or len(now) != len(then):
        return "number of rows or columns"
    *others, _ = (a == b for a, b in zip(now, then, strict=True))
    fits = [*others, now[-1] == then[-1] or is_close(float(now[-1]), float(then[-1]))]
    return next((name for name, fit in zip(COLUMNS, fits, strict=True) if not fit), None)


def wrong_metrics(metrics: dict[str, Any], said: dict[str, Any]) -> str | None:
    """Tell which metric is another than evaluation.json says."""
    for name in [*CONTRACT, *said]:
        if name not in said or name not in metrics or not is_close(metrics[name], said[name]):
            return f"another {name}"
    return None


def is_close(now: object, then: object) -> bool:
    """Compare metrics: numbers, pairs of numbers, names."""
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(is_close(*pair) for pair in zip(now, then, strict=True))
    if isinstance(now, int | float) and isinstance(then, int | float):
        return math.isclose(now, then, rel_tol=0, abs_tol=TOLERANCE)
    return now == then


def other_versions(manifest: manifests.Manifest) -> list[str]:
    """Return a line for each package that the model was trained with in another version."""
    recorded = manifest["steps"].get("train", {}).get("packages", {})
    here = {name: sys.modules[name].__version__ for name in recorded if name in sys.modules}
    return [
        f"{name}: made with {recorded[name]}, checked with {here[name]}"
        for name in here
        if here[name] != recorded[name]
    ]


if __name__ == "__main__":
    tool.main(__file__, __doc__, verify)
