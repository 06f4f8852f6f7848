"""Measure the run's model on the rows that it never saw.

Reads     model.pkl as it was written (its hash is checked before it is unpickled), clear_data.csv: the test rows;
          cross_validation.csv, if the run has one.
Writes    predictions.csv: id,y_true,y_pred,probability (1 = M); evaluation.json: the metrics, positive class M;
          in the manifest, the verdict: whether the run is worse than the one in use;
          report.html: a page about the model; once the run is finished, only if it was lost.
Refuses   with 65: a model.pkl or clear_data.csv that earlier steps did not write;
          with 71: more test rows than fit in memory (8 bytes each, and more while they are sorted).
Then      publishes the run, if STORAGE_URL is set, and brings it into use, if its verdict allows it. If either fails
          (75, which is retried, 64, 74 or 78), the local results stay; repeating this step completes both.
"""

import json
import logging
from typing import Any

from steplib import step
from steplib.runs import difference
from steplib.runs.run import Run
from steplib.settings import Settings
from steplib.table.pool import open_pool


def evaluate(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Predict the test rows with model.pkl, and write the predictions and the metrics."""
    from steplib.model import joblib
    from steplib.model.scoring import measure
    from steplib.report.summary import summarize

    model, clear = joblib.load(run.open_input("model.pkl")), run.input("clear_data.csv")
    validation = run.input("cross_validation.csv") if run.has("cross_validation.csv") else None
    with (
        open_pool(settings.workers, settings.dask_scheduler) as pool,
        run.writing("predictions.csv", difference.of_tables) as part,
        part.open("wb") as predictions,
    ):
        measured = measure(model, clear, predictions, settings.batch_bytes, pool, validation=validation)
    metrics = measured.metrics
    with run.writing("evaluation.json", difference.of_metric_files) as part:
        part.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for line in summarize(metrics):
        log.info(line)
    from steplib.gate.judging import judge

    judged = judge(run, metrics, settings, log)
    made = {"predictions.csv": metrics["test_rows"], "evaluation.json": None}
    if run.has("report.html"):
        made["report.html"] = None
    if run.is_due("report.html"):
        from steplib.report import page

        with run.writing("report.html", way_out=page.WAY_OUT) as part:
            page.write(part, run.folder, model, measured, judged, settings)
        made["report.html"] = None
    return {"metrics": metrics, "batch_bytes": settings.batch_bytes, "artifacts": made} | judged


def publish(run: Run, settings: Settings, log: logging.Logger) -> None:
    """Publish the run, if STORAGE_URL is set, and bring it into use, if its verdict allows it."""
    from steplib.publish import promotions

    if settings.storage_url:
        from steplib.publish import pruning, publishing

        publishing.publish(run, settings.storage_url, log)
    promotions.settle(run, settings, log)
    if settings.storage_url:
        pruning.prune(run, settings.storage_url, settings.keep_published, log)


if __name__ == "__main__":
    step.main(__file__, __doc__, evaluate, publish)
