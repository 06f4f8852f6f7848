"""Judging a run against the run in use."""

import logging
from pathlib import Path
from typing import Any

from steplib.gate import changes, rule, verdicts
from steplib.gate.champion import CLEAR, Champion, find, stored
from steplib.gate.pairs import pair
from steplib.gate.verdicts import Verdict, complete
from steplib.runs import manifest
from steplib.runs.run import Run
from steplib.runs.stores import open_store
from steplib.settings import Settings
from steplib.table.csvfile import first_rows
from steplib.table.pool import open_pool

UNKNOWN: dict[str, None] = dict.fromkeys(("champion", "challenger", "p"))
Changes = dict[str, Any]


def judge(run: Run, metrics: dict[str, Any], settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Return what the manifest says about a run beside its metrics: `verdict`, `changes`; a finished run keeps it."""
    record = manifest.read(run.folder)
    if manifest.is_finished(record) and (verdict := verdicts.choose(None, record)):
        return {"verdict": verdict, "changes": record.get("changes")}
    return judge_again(run, metrics, settings, log)


def judge_again(run: Run, metrics: dict[str, Any], settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Judge a run whose predictions are in its folder, and log the verdict and what changed since the run in use.

    Raises UnreachableError if the storage does not answer.
    """
    with run.scratch() as scratch:
        with open_store(settings.storage_url) as store:
            number, champion = find(store, scratch)
        found, since = _compare(run.folder, metrics, champion, settings)
    verdict = complete(
        found, champion and champion.stamp, number, is_older=_is_older(run, champion), is_on=settings.gate
    )
    verdict["store"] = settings.storage_url
    for is_warning, line in changes.describe(since) if since else []:
        log.log(logging.WARNING if is_warning else logging.INFO, line)
    level = logging.INFO if verdict["promotes"] else logging.WARNING
    log.log(level, "verdict: %s: %s", verdict["outcome"], verdict["reason"])
    return {"verdict": verdict, "changes": since}


def _is_older(run: Run, champion: Champion | None) -> bool:
    return champion is not None and manifest.start(manifest.read(run.folder)) <= manifest.start(champion.record)


def _compare(
    folder: Path, metrics: dict[str, Any], champion: Champion | None, settings: Settings
) -> tuple[Verdict, Changes | None]:
    if champion is None:
        return _undecided(verdicts.FIRST), None
    if champion.problem:
        return _undecided(verdicts.CANNOT_TELL) | {"problem": champion.problem}, None
    found = apply_rule(champion.folder, champion.record, folder, metrics)
    rows = max(manifest.read(each)["artifacts"][CLEAR]["rows"] or 0 for each in (champion.folder, folder))
    with open_pool(settings.workers, settings.dask_scheduler) as pool:
        return found, changes.compare(champion.folder / CLEAR, folder / CLEAR, rows, settings.batch_bytes, pool)


def apply_rule(before: Path, champion: manifest.Record, folder: Path, metrics: dict[str, Any]) -> Verdict:
    """Return what the rule says about two runs whose files are in these folders."""
    try:
        pairs = pair(stored(before, manifest.metrics(champion)), stored(folder, metrics))
    except (ValueError, KeyError) as error:
        problem = f"the predictions of this run or of run {champion['run']} cannot be read ({type(error).__name__})"
        return _undecided(verdicts.CANNOT_TELL) | {"problem": problem}
    features = [sorted(first_rows(path / CLEAR)[0][1][2:]) for path in (before, folder)]
    found = rule.judge(pairs, has_same_features=features[0] == features[1])
    if found["outcome"] == verdicts.CANNOT_TELL:
        found["problem"] = _why_not(pairs, champion["run"], has_same_features=features[0] == features[1])
    return found


def _why_not(pairs: rule.Pairs, stamp: str, *, has_same_features: bool) -> str:
    if not has_same_features:
        return f"its features are not those of run {stamp}"
    least = f"expected at least {rule.LEAST_ROWS} rows in both runs, at least {rule.LEAST_MALIGNANT} of them M"
    return f"{least}, to compare it with run {stamp}; found {len(pairs.is_m)} and {pairs.is_m.sum()}"


def _undecided(outcome: str) -> Verdict:
    measures = {name: dict(UNKNOWN) for name in ("brier", "accuracy", "recall")}
    return {"outcome": outcome, "common_ids": 0, "changed_diagnoses": 0, **measures}
