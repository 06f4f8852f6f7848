"""Evaluate: predict the other rows, write predictions and metrics. Argument: folder."""

import json
import sys
from pathlib import Path

import joblib
import polars as pl
from sklearn import metrics

folder = Path(sys.argv[1])
rows = pl.read_csv(folder / "clear.csv").filter(pl.col("id").hash() < 2**64 // 5)
model, features, target = joblib.load(folder / "model.pkl"), rows[:, 2:].to_numpy(), rows["target"].to_numpy()
predicted, probability = model.predict(features), model.predict_proba(features)[:, 1]
table = pl.DataFrame({"id": rows["id"], "y_true": target, "y_pred": predicted, "probability": probability})
table.write_csv(folder / "predictions.csv")
scores = {
    "accuracy": metrics.accuracy_score(target, predicted),
    "precision": metrics.precision_score(target, predicted),
    "recall": metrics.recall_score(target, predicted),
    "f1_score": metrics.f1_score(target, predicted),
    "roc_auc": metrics.roc_auc_score(target, probability),
    "average_precision": metrics.average_precision_score(target, probability),
    "brier_score": metrics.brier_score_loss(target, probability),
}
(folder / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
