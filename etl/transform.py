"""Clean the run's raw_data.csv into clear_data.csv.

Reads     raw_data.csv: record id, diagnosis (B or M), numeric features; with a header line or without.
Writes    clear_data.csv: id,target,<features>; target 1 = M, 0 = B; missing values stay empty;
          exact duplicates and features without any value are left out.
Refuses   with 65, naming line and column but never a value: a diagnosis other than B and M, a feature that is not a
          finite number, a missing id, rows of unequal length, repeated column names, broken quotes, a different
          encoding, one class only, too few rows to hold out a test part with both classes.
"""

import logging
from typing import Any

from steplib import step
from steplib.runs.run import Run
from steplib.settings import Settings
from steplib.table.cleaning import clean
from steplib.table.pool import open_pool


def transform(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Clean raw_data.csv into clear_data.csv."""
    raw = run.input("raw_data.csv")
    with (
        open_pool(settings.workers, settings.dask_scheduler) as pool,
        run.scratch() as scratch,
        (scratch / "digests").open("w+b") as digests,
        run.writing("clear_data.csv") as part,
        part.open("w+b") as clear,
    ):
        summary = clean(raw, clear, digests, settings.batch_bytes, pool)
    log.info("raw_data.csv: %d rows, header: %s", summary.rows_read, "yes" if summary.columns.has_header else "no")
    if summary.duplicates:
        log.warning("%d exact duplicate rows dropped", summary.duplicates)
    if summary.dropped:
        log.warning("features without any value dropped: %s", ", ".join(summary.dropped))
    log.info("clear_data.csv: %d rows, %d features", summary.rows, len(summary.columns.features) - len(summary.dropped))
    return {
        "duplicates_dropped": summary.duplicates,
        "features_dropped": summary.dropped,
        "rows_read": {"raw_data.csv": summary.rows_read},
        "artifacts": {"clear_data.csv": summary.rows},
    }


if __name__ == "__main__":
    step.main(__file__, __doc__, transform)
