"""Measure the run's model on the rows that it never saw.

Reads     model.pkl as it was written (its hash is checked before it is unpickled), clear_data.csv: the test rows;
          cross_validation.csv, if the run has one.
Writes    predictions.csv: id,y_true,y_pred,probability (1 = M); evaluation.json: the metrics, positive class M;
          report.html: a page about the model; once the run is finished, only if it was lost.
Refuses   with 65: a model.pkl or clear_data.csv that earlier steps did not write;
          with 71: more test rows than fit in memory (8 bytes each, and more while they are sorted).
Then      results/latest points to this run; with STORAGE_URL set, it is published there. If publishing fails (75, which
          is retried, 64, 74 or 78), the local results stay; repeating this step completes the publication.
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
    made = {"predictions.csv": metrics["test_rows"], "evaluation.json": None}
    if run.has("report.html"):
        made["report.html"] = None
    if run.is_due("report.html"):
        from steplib.report import page

        with run.writing("report.html") as part:
            page.write(part, run.folder, model, measured, settings)
        made["report.html"] = None
    for line in summarize(metrics):
        log.info(line)
    return {"metrics": metrics, "batch_bytes": settings.batch_bytes, "artifacts": made}


def publish(run: Run, settings: Settings, log: logging.Logger) -> None:
    """Publish the run, if STORAGE_URL is set, and remove old published runs, if KEEP_PUBLISHED is."""
    if settings.storage_url:
        from steplib.publish import pruning, publishing

        publishing.publish(run, settings.storage_url, log)
        pruning.prune(run, settings.storage_url, settings.keep_published, log)


def summarize(metrics: dict[str, Any]) -> list[str]:
    """Return the metrics in a few lines for people."""
    (low, high), (recall_low, recall_high) = metrics["accuracy_interval"], metrics["recall_interval"]
    return [
        "accuracy {accuracy:.4f}, precision {precision:.4f}, recall {recall:.4f}, F1 {f1_score:.4f}".format(**metrics),
        f"95 % intervals: accuracy {low:.4f} to {high:.4f}, recall {recall_low:.4f} to {recall_high:.4f}",
        "of {test_rows} test rows: {true_positives} M found, {false_negatives} M missed, "
        "{true_negatives} B recognized, {false_positives} B predicted as M; "
        "always predicting the majority would give accuracy {baseline_accuracy:.4f}".format(**metrics),
        *summarize_validation(metrics["cross_validated"]),
    ]


def summarize_validation(validated: dict[str, Any] | None) -> list[str]:
    """Return the estimate to believe in one line."""
    if not validated:
        return []
    rows = validated["all_rows"]
    (low, high), found = rows["accuracy_interval"], rows["true_positives"]
    line = f"all {rows['rows']} rows, each judged by a model that never saw it: accuracy {rows['accuracy']:.4f}"
    return [f"{line} (about 95 %: {low:.4f} to {high:.4f}), {found} of {found + rows['false_negatives']} M found"]


if __name__ == "__main__":
    step.main(__file__, __doc__, evaluate, publish)
