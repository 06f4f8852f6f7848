"""What the gate has found about a run, for people and for later.

In a run's manifest, `verdict` has what `judge` in rule.py returns, and:

against     the stamp of the run in use, null if there was none
record      the number of the promotion by which that run was in use, 0 if there was none
promotes    whether the run goes into use by itself
reason      why, in one line
gate        the setting GATE
store       the storage whose promotion that is; empty: this disk

If another run has come into use before this one could, it is judged again, against that run. The second verdict is then
in the record of its promotion or, if the run is held back, in verdict.json beside its manifest.
"""

import json
from pathlib import Path
from typing import Any

from steplib.runs import manifest

FIRST, NOT_WORSE, WORSE, SUSPECT, CANNOT_TELL = "first", "not worse", "worse", "suspect", "cannot tell"
NAME = "verdict.json"
OFF = "GATE=off"
Verdict = dict[str, Any]
# What code relies on; other values are only shown.
KEYS = {"outcome": str, "promotes": bool, "reason": str, "record": int}
FIGURES = ("champion", "challenger", "p")
MEASURES = {"brier": "Brier score", "accuracy": "accuracy", "recall": "recall"}


def read(folder: Path) -> Verdict | None:
    """Return the verdict on a run in a folder on this disk; None for a run of an older version."""
    path = folder / NAME
    return choose(path.read_bytes() if path.is_file() else None, manifest.read(folder))


def choose(second: bytes | None, record: manifest.Record) -> Verdict | None:
    """Return the verdict that counts: that of verdict.json, if there is one, else that of the manifest."""
    try:
        found = json.loads(second or b"")
    except (ValueError, RecursionError):
        found = record.get("verdict")
    return found if _is_whole(found) else None


def _is_whole(found: object) -> bool:
    if not isinstance(found, dict) or not all(type(found.get(key)) is kind for key, kind in KEYS.items()):
        return False
    measures = [found.get(name) for name in MEASURES]
    return all(
        isinstance(measure, dict) and all(isinstance(measure.get(key), float | int | None) for key in FIGURES)
        for measure in measures
    )


def complete(found: Verdict, against: str | None, record: int, *, is_older: bool, is_on: bool) -> Verdict:
    """Return a verdict of the rule with whether the run goes into use, and why."""
    promotes, reason = found["outcome"] in {FIRST, NOT_WORSE}, _reason(found, against)
    if is_older:
        promotes, reason = False, f"it started before run {against}, which is in use; {reason}"
    elif not is_on:
        promotes, reason = True, f"{OFF}; the rule says {found['outcome']}: {reason}"
    return {
        **found,
        "against": against,
        "record": record,
        "promotes": promotes,
        "reason": reason,
        "gate": "on" if is_on else "off",
    }


def _reason(found: Verdict, against: str | None) -> str:
    if problem := found.pop("problem", None):
        return str(problem)
    if found["outcome"] == FIRST:
        return "no run is in use yet"
    figures = "; ".join(_compare(found[name], label) for name, label in MEASURES.items())
    rows = f"{found['common_ids']} rows in both runs"
    if found["outcome"] == SUSPECT:
        return (
            f"{found['changed_diagnoses']} of {rows} have a different diagnosis from that in run {against}; {figures}"
        )
    return f"compared with run {against} on {rows}: {figures}"


def _compare(measure: dict[str, float], label: str) -> str:
    p = f", p {measure['p']:.2g}" if measure["p"] < 1 else ""
    return f"{label} {measure['challenger']:.4f} (was {measure['champion']:.4f}{p})"
