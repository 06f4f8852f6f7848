"""Draw images/history.png: the page of `runs.py list` after a quarter of weekly runs on a growing export.

Run `.venv/bin/python images/history.py`; needs Chromium, faketime and unshare on the PATH. The runs are real and are
made now, in a copy of the project that appears as /srv/my_pipeline; only their clock is set to past Mondays.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"
PROJECT = Path("/srv/my_pipeline")
FIRST_RUN = datetime(2026, 8, 24, 5)  # noqa: DTZ001 - the local time of the page
WEEKS = 13
FIRST_ROWS = 329
ROWS_PER_WEEK = 20
# In this week a diagnosis is missing at first, and the run of an hour later has the corrected export.
WEEK_OF_THE_FAULT = 7
SIZE = "1400,1010"


def main() -> None:
    """Start again where /srv is a temporary folder, then make the runs and take the picture."""
    if len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as srv:
            shutil.copytree(ROOT, Path(srv) / PROJECT.name, ignore=shutil.ignore_patterns(".*", "results", "logs"))
            picture = Path(srv) / "history.png"
            inside = f'mount --bind "{srv}" /srv && exec "{sys.executable}" "{__file__}" inside'
            subprocess.run(["unshare", "--mount", "--map-root-user", "sh", "-c", inside], check=True)
            shutil.copy(picture, ROOT / "images" / "history.png")
        return
    make_runs((ROOT / "data" / "wdbc.csv").read_text(encoding="utf-8").splitlines(keepends=True))
    subprocess.run([PYTHON, PROJECT / "etl" / "runs.py", "list"], check=True)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
    take = [f"--window-size={SIZE}", "--screenshot=/srv/history.png", "--virtual-time-budget=5000"]
    page = (PROJECT / "results" / "history.html").as_uri()
    subprocess.run(["chromium", *flags, *take, page], check=True, timeout=60)


def make_runs(rows: list[str]) -> None:
    """Run the pipeline once a week on what has been exported by then."""
    for week in range(WEEKS):
        monday = FIRST_RUN + timedelta(weeks=week)
        export = rows[: FIRST_ROWS + ROWS_PER_WEEK * week]
        if week == WEEK_OF_THE_FAULT:
            faulty = [export[-1].replace(",M,", ",,").replace(",B,", ",,")]
            run([*export[:-1], *faulty], monday)
            monday += timedelta(hours=1)
        run(export, monday)


def run(export: list[str], when: datetime) -> None:
    """Run the pipeline at a time of the past."""
    (PROJECT / "export.csv").write_text("".join(export), encoding="utf-8")
    environment = {"ETL_PYTHON": str(PYTHON), "PATH": os.environ["PATH"], "DATA_URL": str(PROJECT / "export.csv")}
    command = ["faketime", str(when), "sh", str(PROJECT / "run_pipeline.sh")]
    subprocess.run(command, env=environment | {"KEEP_RUNS": str(WEEKS + 1)}, check=False)


if __name__ == "__main__":
    main()
