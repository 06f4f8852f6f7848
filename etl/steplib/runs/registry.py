"""The runs on this disk together, and what `results/` points at."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from steplib.runs import manifest
from steplib.runs.disk import lock
from steplib.runs.folders import RUNS, results, runs
from steplib.runs.run import Run

LATEST = "latest"
SECONDS_FOR_LOCK = 30


def find_run(run_id: str) -> Run | None:
    """Return the run that was started under an orchestrator's name for it."""
    return next((run for run, record in all_runs().items() if record.get("run_id") == run_id), None)


def all_runs() -> dict[Run, manifest.Record]:
    """Return the runs on this disk and their manifests, the newest first; other files among them are ignored.

    They are ordered by their start in UTC, which stays in order when the clock goes back an hour in autumn.
    """
    stamps = [path.name for path in runs().glob("*") if manifest.STAMP.fullmatch(path.name) and path.is_dir()]
    found = {Run(stamp): manifest.read_leniently(Run(stamp).folder) for stamp in stamps}
    return dict(sorted(found.items(), key=lambda item: (manifest.start(item[1]), item[0].stamp), reverse=True))


def warn_of_clocks(log: logging.Logger) -> None:
    """Warn of each run whose start lies in the future."""
    for run, record in all_runs().items():
        if manifest.starts_in_future(record):
            log.warning(manifest.FUTURE, run.stamp, record["started"])


def point_results_at(run: Run, names: Iterable[str]) -> None:
    """Point `results/<name>` at this run's artifacts.

    Names that show a later run's artifacts stay. Other runs are never put there, so that nothing is undone by repeating
    a step, and a start that was in the future never counts later.
    """
    with results_locked(SECONDS_FOR_LOCK):
        records = all_runs()
        newest_first = list(records)
        later = newest_first[: newest_first.index(run)]
        steps = {name: records[run]["artifacts"][name]["step"] for name in names}
        current = [name for name, step in steps.items() if not any(_lacks(records[a], step, name) for a in later)]
        for name in current:
            if run_shown_by(results() / name) not in later or not (results() / name).exists():
                _point(results() / name, Path(RUNS) / run.stamp / name)
        _remove_others(run, set(steps.values()), {other: records[other] for other in newest_first[len(later) :]})


def point_latest_at(stamp: str) -> bool:
    """Point `results/latest` at a run and return True; if it is not on this disk, remove the link."""
    with results_locked(SECONDS_FOR_LOCK):
        is_here = manifest.is_finished(manifest.read_leniently(Run(stamp).folder))
        if is_here:
            _point(results() / LATEST, Path(RUNS) / stamp)
        elif (results() / LATEST).is_symlink():
            (results() / LATEST).unlink()
    return is_here


def _remove_others(run: Run, steps: set[str], records: dict[Run, manifest.Record]) -> None:
    """Remove each name that shows what one of these steps made earlier, and in this run has not made."""
    for link in results().iterdir():
        shown = run_shown_by(link)
        if shown not in records or link.name in records[run]["artifacts"]:
            continue
        # A person may have links of their own beside these.
        if link.readlink() == Path(RUNS) / shown.stamp / link.name:
            before = records[shown]["artifacts"].get(link.name)
            if before is None or before["step"] in steps:
                link.unlink()


def _lacks(record: manifest.Record, step: str, name: str) -> bool:
    """Return whether a run's step is done, and has not made an artifact that this step makes in other runs."""
    return record["steps"].get(step, {}).get("outcome") == "done" and name not in record["artifacts"]


def latest_stamp() -> str | None:
    """Return the stamp of the run that `results/latest` points at."""
    shown = run_shown_by(results() / LATEST)
    return shown.stamp if shown and shown.folder.exists() else None


@contextmanager
def results_locked(patience: float) -> Iterator[None]:
    """Keep other processes from changing what `results/` shows. Raises UnreachableError after `patience` seconds."""
    path = results() / ".lock"
    busy = f"{path}: another process has held this lock for {patience:g} s; wait, or end it, then run this again"
    with lock(path, patience, busy):
        yield


def _point(link: Path, target: Path) -> None:
    fresh = link.with_name(f".{link.name}.part")
    fresh.unlink(missing_ok=True)
    # Relative, so that the project can be moved; replaced atomically, so that a reader always finds a complete file.
    fresh.symlink_to(target)
    fresh.replace(link)


def run_shown_by(link: Path) -> Run | None:
    """Return the run whose file or folder a link in `results/` shows."""
    target = Path(os.path.realpath(link))
    if not link.is_symlink() or runs() not in target.parents:
        return None
    return Run(target.relative_to(runs()).parts[0])
