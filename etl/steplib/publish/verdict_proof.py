"""Proof that the rule gives a run's verdict: it is made again from the files of both runs."""

import tempfile
from pathlib import Path
from typing import Any

from steplib.gate import verdicts
from steplib.gate.champion import open_run
from steplib.gate.judging import apply_rule
from steplib.gate.verdicts import MEASURES, Verdict
from steplib.runs import difference, manifest, records
from steplib.runs.folders import runs
from steplib.runs.stores import Store, open_store
from steplib.settings import Settings


def check(folder: Path, record: manifest.Record, settings: Settings, url: str | None) -> tuple[str | None, str | None]:
    """Return how the verdict differs from what the rule says now, if it does, and why it could not be made, if so.

    `url`: the storage that the run was fetched from; without one, the other run is on this disk, or in STORAGE_URL.
    """
    path = folder / verdicts.NAME
    verdict = verdicts.choose(path.read_bytes() if path.is_file() else None, record)
    if verdict is None:
        return ("no verdict", None) if "verdict" in record else (None, "the run was made by a version without the gate")
    is_here = url is None and (runs() / str(verdict.get("against"))).is_dir()
    evaluated = manifest.read_time(record["steps"].get("evaluate", {}).get("started"))
    place = url or ("" if is_here else settings.storage_url)
    with open_store(place) as store, tempfile.TemporaryDirectory() as scratch:
        # The records say nothing about a run that was judged by those of another place.
        has_records = str(verdict.get("store", "")).rstrip("/") == (url or "")
        if has_records and (found := _check_records(folder, record, verdict, store)):
            return found, None
        if verdict["outcome"] == verdicts.FIRST:
            is_first = verdict["record"] == 0 and verdict.get("against") is None
            return None if is_first else "first, with a run to compare with", None
        in_force = (has_records and records.read(store, verdict["record"])) or {}
        expected = in_force.get("manifest_sha256")
        champion, other, problem = open_run(store, str(verdict.get("against")), Path(scratch), expected)
        if champion is None or problem:
            return None, f"run {verdict.get('against')} has been removed or has changed"
        again = apply_rule(other, champion, folder, manifest.metrics(record))
    start, other_start = (manifest.read_time(each["started"]) for each in (record, champion))
    is_on = verdict.get("gate") != "off"
    again = verdicts.complete(again, champion["run"], verdict["record"], is_older=start <= other_start, is_on=is_on)
    if other_start > evaluated + manifest.CLOCKS_DIFFER:
        # A second verdict, or one that did not believe the clock of the run in use.
        again["promotes"] = verdict["promotes"]
    return _difference(again, verdict), None


def _check_records(folder: Path, record: manifest.Record, verdict: Verdict, store: Store) -> str | None:
    """Return what is wrong with the records of the promotion before the verdict, and of the run's own."""
    number, against = verdict["record"], verdict.get("against")
    in_force, own = records.read(store, number), records.read(store, number + 1)
    if number and (in_force is None or in_force["run"] != against):
        return f"run {against}, though promotion {number} does not name it"
    evaluated = manifest.read_time(record["steps"].get("evaluate", {}).get("started"))
    if own and own["run"] != record["run"] and manifest.read_time(own.get("at")) < evaluated:
        return f"run {against}, though run {own['run']} was in use"
    if own and own["run"] == record["run"] and own.get("act") in records.GATE:
        if own.get("manifest_sha256") != manifest.sha256(folder / manifest.NAME):
            return f"a manifest that promotion {number + 1} does not name"
        if own.get("verdict") != verdict:
            return f"a verdict that is not that of promotion {number + 1}"
    return None


def _difference(again: Verdict, verdict: Verdict) -> str | None:
    for name in ("outcome", "promotes", "common_ids", "changed_diagnoses"):
        if verdict.get(name) != again[name]:
            return f"{name} {verdict.get(name)!r} instead of {again[name]!r}"
    for name in MEASURES:
        recorded = verdict.get(name)
        for key, value in again[name].items():
            if not isinstance(recorded, dict) or not _is_same(recorded.get(key), value):
                return f"a different {key} of {name}"
    return None


def _is_same(recorded: Any, value: float | None) -> bool:  # noqa: ANN401 - whatever a manifest holds
    if value is None or not isinstance(recorded, int | float) or abs(recorded) > 1:
        return recorded is None and value is None
    return difference.are_close(float(recorded), value)
