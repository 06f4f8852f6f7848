"""All runs and their metrics, from the manifests alone, as a table and a page."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd

from steplib.errors import StorageError, printable
from steplib.gate import verdicts
from steplib.report import plots
from steplib.runs import manifest
from steplib.runs.records import Promotion

METRICS = (*manifest.METRICS, "roc_auc")
# No step writes a longer number or text; it would make the table too wide.
LIMIT = 1e15
WIDTH = 200
BRIER = "brier_cv"
YEARS = 2000, 2999
PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>my_pipeline: all runs</title>
<style>
body {{ font-family: sans-serif; margin: 2em }}
table {{ border-collapse: collapse }}
th, td {{ padding: 0.3em 0.8em; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }}
</style>
<h1>my_pipeline: all runs</h1>
<p>{place}</p>
{figure}
{tables}
</html>
"""


def tabulate(runs: Iterable[manifest.Record], latest: str | None) -> pd.DataFrame:
    """Return a row for each run, the newest first; `latest` is the stamp of the latest run.

    A manifest may come from elsewhere: a value of the wrong type is left out or shown as "?".
    """
    rows = []
    for record in sorted(runs, key=lambda run: (manifest.start(run), run["run"]), reverse=True):
        steps, metrics = record["steps"], manifest.metrics(record)
        row_count = _number(record["artifacts"].get("clear_data.csv", {}).get("rows"))
        row = {
            "run": record["run"],
            "source": _text(steps.get("data_loader", {}).get("source", "")),
            "rows": f"{row_count:.0f}" if row_count else "",
            **{name: _number(metrics.get(name)) for name in METRICS},
            "seconds": f"{sum(_number(step.get('seconds')) or 0 for step in steps.values()):.1f}",
            BRIER: _number(_cross_validated(metrics).get("brier_score")),
            "verdict": _text((verdicts.choose(None, record) or {}).get("outcome", "")),
            "outcome": _outcome(steps) if record["started"] else "no readable manifest",
            "latest": "latest" if record["run"] == latest else "",
        }
        rows.append(row)
    return pd.DataFrame(rows).astype(dict.fromkeys((*METRICS, BRIER), float))


def _cross_validated(metrics: Mapping[str, Any]) -> dict[str, Any]:
    found = metrics.get("cross_validated")
    rows = found.get("all_rows") if isinstance(found, dict) else None
    return rows if isinstance(rows, dict) else {}


def tabulate_held_back(runs: Iterable[manifest.Record], acts: Sequence[tuple[int, Promotion | None]]) -> pd.DataFrame:
    """Return a row for each run that is not in use by its verdict and has never been promoted, the newest first."""
    promoted = {act["run"] for _, act in acts if act}
    rows = []
    for record in sorted(runs, key=lambda run: (manifest.start(run), run["run"]), reverse=True):
        verdict = verdicts.choose(None, record)
        if verdict and verdict.get("promotes") is not True and record["run"] not in promoted:
            row = {name: _text(verdict.get(name, "")) for name in ("outcome", "reason")}
            rows.append({"held back": record["run"], "verdict": row["outcome"], "reason": row["reason"]})
    return _left(pd.DataFrame(rows), "reason")


def tabulate_use(acts: Sequence[tuple[int, Promotion | None]], stamps: Collection[str]) -> pd.DataFrame:
    """Return a row for each act by which a run came into use, the latest first, with times in UTC.

    `acts` are those of `records.read_all`; a run that is not among `stamps` is marked as removed.
    """
    rows, until = [], ""
    for number, act in acts:
        record = act or {}
        since, run = _time(record.get("at")), record.get("run", "?")
        row = {
            "number": number,
            "in use from (UTC)": since,
            "until": until,
            "run": run if run in stamps or not act else f"{run} (removed)",
            "act": _text(record.get("act")),
            "by": _text(record.get("by")),
            "reason": _text(record.get("reason") or ""),
        }
        rows.append(row)
        until = since if act else until
    return _left(pd.DataFrame(rows), "reason")


def _left(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Align a column of texts at its left."""
    return table if table.empty else table.assign(**{name: table[name].str.ljust(table[name].str.len().max())})


def _time(value: object) -> str:
    time = manifest.read_time(value)
    return "?" if time == manifest.EARLIEST else f"{time:%Y-%m-%d %H:%M:%S}"


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # Compared before it is converted: NaN fails the comparison, and float() would fail for a long integer.
    return float(value) if abs(value) < LIMIT else None


def _text(value: object) -> str:
    return printable(str(value)) if isinstance(value, str | int | float) else "?"


def _outcome(steps: Mapping[str, Any]) -> str:
    """Return how far a run got."""
    for name in manifest.STEPS:
        how = steps.get(name, {}).get("outcome", "not started")
        if how != "done":
            code = steps.get(name, {}).get("exit_code")
            return f"{name}: {_text(how)}" + (f" with {_text(code)}" if code is not None else "")
    return "done"


def to_text(table: pd.DataFrame) -> str:
    """Return the table for a terminal."""
    return str(table.to_string(index=False, na_rep="", float_format="{:.4f}".format, max_colwidth=WIDTH))


def write_page(table: pd.DataFrame, others: Iterable[pd.DataFrame], place: str, page: Path) -> None:
    """Write one page that needs neither a server nor a network: the metrics over time, and the tables.

    Raises StorageError if the disk refuses it.
    """
    content = PAGE.format(
        place=escape(printable(place)),
        figure=_draw(table),
        tables="\n".join(_to_html(each) for each in (table, *others) if not each.empty),
    )
    part = page.with_name(f".{page.name}.{uuid4().hex}.part")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(content, encoding="utf-8")
            part.replace(page)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        msg = f"{page}: the page could not be written ({error.strerror}); free space or correct the permissions"
        raise StorageError(msg) from error


def _to_html(table: pd.DataFrame) -> str:
    return str(table.to_html(index=False, na_rep="", float_format="{:.4f}".format, border=0))


def _draw(table: pd.DataFrame) -> str:
    """Return the metrics over time, as two SVGs."""
    when = pd.to_datetime(table["run"], format=manifest.STAMP_FORMAT, errors="coerce")
    # A plot's axis cannot reach beyond the year 9999.
    measured = table.assign(when=when.where(when.dt.year.between(*YEARS))).dropna(subset=["when", METRICS[0]])
    if measured.empty:
        return ""
    times, series = measured["when"].to_numpy(), {name: measured[name].to_numpy() for name in METRICS}
    # A series of small losses, each within the gate's margins, shows here.
    brier = {"Brier score (0 is perfect)": measured[BRIER].to_numpy()}
    held_out = plots.draw_over_time(times, series, "on the held-out rows")
    return f"{held_out}\n{plots.draw_over_time(times, brier, 'cross-validated, all rows')}"
