"""Measure the run's model on the rows that it never saw.

Reads     model.pkl as it was written (its hash is checked before it is unpickled), clear_data.csv: the test rows.
Writes    predictions.csv: id,y_true,y_pred,probability (1 = M); evaluation.json: the metrics, positive class M.
Refuses   with 65: a model.pkl or clear_data.csv other than the steps before wrote;
          with 71: data that does not fit into memory.
Afterwards results/latest shows this run.
"""

import json
import logging
from typing import TYPE_CHECKING, Any

from steplib import openblas, step
from steplib.dataset import read_clear_data, split
from steplib.run import Run
from steplib.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95


def evaluate(run: Run, _settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Predict the test rows with model.pkl, write the predictions and the metrics."""
    openblas.start()
    import joblib
    import pandas as pd

    # Before the data, so that scikit-learn's libraries find memory, and it is the data that does not.
    model = joblib.load(run.input("model.pkl"))
    (_, _, y_train), (record_id, features, target) = split(read_clear_data(run.input("clear_data.csv")))
    predictions = pd.DataFrame(
        {
            "id": record_id,
            "y_true": target,
            "y_pred": model.predict(features),
            "probability": model.predict_proba(features)[:, 1],
        }
    )
    metrics = score(predictions, y_train) | {"classifier": type(model[-1]).__name__}
    with run.writing("predictions.csv") as part:
        predictions.to_csv(part, index=False, lineterminator="\n")
    with run.writing("evaluation.json") as part:
        part.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for line in summarize(metrics):
        log.info(line)
    return {"metrics": metrics, "artifacts": {"predictions.csv": len(predictions), "evaluation.json": None}}


def score(predictions: "pd.DataFrame", y_train: "pd.Series[int]") -> dict[str, Any]:
    """Return the metrics of the predictions, the four of the contract first.

    `y_train` is the target of the training rows: the baseline predicts its majority for every test row.
    """
    from sklearn import metrics

    y_true, y_pred, probability = (predictions[name].to_numpy() for name in ("y_true", "y_pred", "probability"))
    tn, fp, fn, tp = (int(count) for count in metrics.confusion_matrix(y_true, y_pred, labels=[0, 1]).ravel())
    majority = int(y_train.mode()[0])
    # A model that calls no case M has no precision; 0 says so without stopping the run.
    return {
        "accuracy": metrics.accuracy_score(y_true, y_pred),
        "precision": metrics.precision_score(y_true, y_pred, zero_division=0),
        "recall": metrics.recall_score(y_true, y_pred),
        "f1_score": metrics.f1_score(y_true, y_pred),
        "roc_auc": metrics.roc_auc_score(y_true, probability),
        "average_precision": metrics.average_precision_score(y_true, probability),
        "brier_score": metrics.brier_score_loss(y_true, probability),
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        "accuracy_interval": wilson_interval(tp + tn, len(y_true)),
        "recall_interval": wilson_interval(tp, tp + fn),
        "baseline_accuracy": metrics.accuracy_score(y_true, [majority] * len(y_true)),
        "train_rows": len(y_train),
        "test_rows": len(y_true),
    }


def wilson_interval(successes: int, trials: int) -> list[float]:
    """Return the 95 % interval of a share (Wilson 1927): its lower and upper end."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


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
    step.main(__file__, __doc__, evaluate)
