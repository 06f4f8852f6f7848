"""All runs and their metrics, from the manifests alone, as a table and a page."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from steplib.runs import manifest

METRICS = (*manifest.METRICS, "roc_auc")
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
{table}
</html>
"""


def tabulate(runs: Iterable[manifest.Record], latest: str | None) -> pd.DataFrame:
    """Return a row for each run, the newest first; `latest` is the stamp of the latest run."""
    rows = []
    for record in sorted(runs, key=lambda run: str(run["started"]), reverse=True):
        steps, metrics = record["steps"], manifest.metrics(record)
        row = {
            "run": record["run"],
            "source": steps.get("data_loader", {}).get("source", ""),
            "rows": str(record["artifacts"].get("clear_data.csv", {}).get("rows") or ""),
            **{name: metrics.get(name) for name in METRICS},
            "seconds": f"{sum(float(step.get('seconds', 0)) for step in steps.values()):.1f}",
            "outcome": _outcome(steps),
            "latest": "latest" if record["run"] == latest else "",
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    # A manifest may come from elsewhere and hold anything.
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in METRICS})


def _outcome(steps: Mapping[str, Any]) -> str:
    """Return how far a run got."""
    for name in manifest.STEPS:
        how = steps.get(name, {}).get("outcome", "not started")
        if how != "done":
            code = steps.get(name, {}).get("exit_code")
            return f"{name}: {how}" + (f" with {code}" if code is not None else "")
    return "done"


def to_text(table: pd.DataFrame) -> str:
    """Return the table for a terminal."""
    return str(table.to_string(index=False, na_rep="", float_format="{:.4f}".format))


def write_page(table: pd.DataFrame, place: str, page: Path) -> None:
    """Write one page that needs neither a server nor a network: the metrics over time, and the table."""
    rows = table.to_html(index=False, na_rep="", float_format="{:.4f}".format, border=0)
    part = page.with_name(f".{page.name}.part")
    part.write_text(PAGE.format(place=escape(place), figure=_draw(table), table=rows), encoding="utf-8")
    part.replace(page)


def _draw(table: pd.DataFrame) -> str:
    """Return the metrics over time, as a self-contained figure."""
    measured = table.dropna(subset=[METRICS[0]])
    when = pd.to_datetime(measured["run"], format=manifest.STAMP_FORMAT)
    lines = [go.Scatter(x=when, y=measured[name], name=name, mode="lines+markers") for name in METRICS]
    layout = {
        "yaxis": {"title": "on the held-out rows"},
        "template": "plotly_white",
        "height": 420,
        "margin": {"t": 20},
    }
    return str(go.Figure(lines, layout).to_html(full_html=False, include_plotlyjs=True))
