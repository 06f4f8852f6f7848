"""A model's predictions of the test rows, and their metrics: evaluate.py writes them, verify.py compares them."""

from typing import TYPE_CHECKING, Any

from steplib.dataset import split

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

CONFIDENCE = 0.95


def measure(model: "Pipeline", data: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, Any]]":
    """Return predictions.csv and evaluation.json of a model and clear_data.csv, both as they are before writing."""
    import pandas as pd

    (_, _, y_train), (record_id, features, target) = split(data)
    predictions = pd.DataFrame(
        {
            "id": record_id,
            "y_true": target,
            "y_pred": model.predict(features),
            "probability": model.predict_proba(features)[:, 1],
        }
    )
    return predictions, score(predictions, y_train) | {"classifier": type(model[-1]).__name__}


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
