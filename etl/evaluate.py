"""Measure the run's model on the rows that it never saw.

Reads     model.pkl as it was written (its hash is checked before it is unpickled), clear_data.csv: the test rows.
Writes    predictions.csv: id,y_true,y_pred,probability (1 = M); evaluation.json: the metrics, positive class M.
Refuses   with 65: a model.pkl or clear_data.csv other than the steps before wrote;
          with 71: more test rows than memory has room for (8 bytes each, and some more to sort them).
Afterwards results/latest shows this run; with STORAGE_URL set, it is published there. If that fails, with 75 (to be
tried again), 74 or 78, the local results stay, and this step alone, run again, finishes the publication.
"""

import json
import logging
from typing import Any

from steplib import numerics, step
from steplib.batches import workers
from steplib.run import Run
from steplib.scoring import measure
from steplib.settings import Settings


def evaluate(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Predict the test rows with model.pkl, write the predictions and the metrics."""
    numerics.start()
    import joblib

    # Before the data, so that scikit-learn's libraries find memory, and it is the data that does not.
    model, clear = joblib.load(run.input("model.pkl")), run.input("clear_data.csv")
    with workers(settings) as over, run.writing("predictions.csv") as part:
        metrics = measure(model, clear, part, settings.batch_bytes, over)
    with run.writing("evaluation.json") as part:
        part.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for line in summarize(metrics):
        log.info(line)
    facts = {"metrics": metrics, "batch_bytes": settings.batch_bytes}
    return facts | {"artifacts": {"predictions.csv": metrics["test_rows"], "evaluation.json": None}}


def publish(run: Run, settings: Settings, log: logging.Logger) -> None:
    """Publish the run, if STORAGE_URL says where to."""
    if settings.storage_url:
        from steplib import storage

        storage.publish(run, settings.storage_url, log)


def summarize(metrics: dict[str, Any]) -> list[str]:
    """Return the metrics in a few lines that a person reads."""
    (low, high), (recall_low, recall_high) = metrics["accuracy_interval"], metrics["recall_interval"]
    return [
        "accuracy {accuracy:.4f}, precision {precision:.4f}, recall {recall:.4f}, F1 {f1_score:.4f}".format(**metrics),
        f"95 % intervals: accuracy {low:.4f} to {high:.4f}, recall {recall_low:.4f} to {recall_high:.4f}",
        "of {test_rows} test rows: {true_positives} M found, {false_negatives} M missed, "
        "{true_negatives} B found, {false_positives} B called M; "
        "always the majority would give accuracy {baseline_accuracy:.4f}".format(**metrics),
    ]


if __name__ == "__main__":
    step.main(__file__, __doc__, evaluate, publish)
