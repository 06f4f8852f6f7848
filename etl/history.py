"""Show all runs and their metrics, from the manifests alone.

Usage     python3 etl/history.py [URL]
URL       a storage, as in STORAGE_URL (none: the runs on this disk, in results/runs)
Writes    results/history.html: one page, needing no server and no network, with the table and the metrics over time.
Exits     0: done; 64, 65, 74, 75, 78: as the steps.
"""

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib import manifest as manifests
from steplib import storage, tool
from steplib.errors import UsageError
from steplib.run import RESULTS
from steplib.runs import all_runs

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("accuracy", "precision", "recall", "f1_score", "roc_auc")
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


def history(arguments: list[str]) -> None:
    """Print the table and write the page."""
    if len(arguments) > 1:
        raise UsageError(f"URL: expected one or none, found {len(arguments)} arguments; see --help")
    found, latest = storage.read_runs(arguments[0]) if arguments else local_runs()
    place = arguments[0] if arguments else str(RESULTS)
    if not found:
        raise UsageError(f"{place}: expected runs, found none; run the pipeline first")
    table = tabulate(found, latest)
    print(table.to_string(index=False, na_rep="", float_format="{:.4f}".format))
    page = RESULTS / "history.html"
    part = page.with_name(f".{page.name}.part")
    shown = table.to_html(index=False, na_rep="", float_format="{:.4f}".format, border=0)
    part.write_text(PAGE.format(place=escape(place), figure=draw(table), table=shown), encoding="utf-8")
    part.replace(page)
    print(f"\nPage: {page}")


def local_runs() -> tuple[list[manifests.Manifest], str | None]:
    """Return the manifests of the runs on this disk, and the stamp of that which results/latest shows."""
    read = [manifests.read_quietly(run.folder) for run in all_runs()]
    latest = RESULTS / "latest"
    return read, Path(os.path.realpath(latest)).name if latest.exists() else None


def tabulate(found: Iterable[manifests.Manifest], latest: str | None) -> "pd.DataFrame":
    """Return a row for each run, the newest first."""
    import pandas as pd

    rows = []
    for manifest in sorted(found, key=lambda one: str(one["started"]), reverse=True):
        steps = manifest["steps"]
        metrics = steps.get("evaluate", {}).get("metrics", {})
        row = {
            "run": manifest["run"],
            "source": steps.get("data_loader", {}).get("source", ""),
            "rows": str(manifest["artifacts"].get("clear_data.csv", {}).get("rows") or ""),
            **{name: metrics.get(name) for name in METRICS},
            "seconds": f"{sum(float(step.get('seconds', 0)) for step in steps.values()):.1f}",
            "outcome": outcome(steps),
            "latest": "latest" if manifest["run"] == latest else "",
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    # Somebody else may have written the manifests.
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in METRICS})


def outcome(steps: Mapping[str, Any]) -> str:
    """Tell how far a run came."""
    for name in manifests.STEPS:
        how = steps.get(name, {}).get("outcome", "not begun")
        if how != "done":
            code = steps.get(name, {}).get("exit_code")
            return f"{name}: {how}" + (f" with {code}" if code is not None else "")
    return "done"


def draw(table: "pd.DataFrame") -> str:
    """Return the metrics over time, as a figure with all that it needs."""
    import pandas as pd
    import plotly.graph_objects as go

    measured = table.dropna(subset=[METRICS[0]])
    when = pd.to_datetime(measured["run"], format="%Y_%m_%d_%H_%M_%S")
    lines = [go.Scatter(x=when, y=measured[name], name=name, mode="lines+markers") for name in METRICS]
    layout = {
        "yaxis": {"title": "on the held-out rows"},
        "template": "plotly_white",
        "height": 420,
        "margin": {"t": 20},
    }
    figure = go.Figure(lines, layout)
    return str(figure.to_html(full_html=False, include_plotlyjs=True))


if __name__ == "__main__":
    tool.main(__file__, __doc__, history)
