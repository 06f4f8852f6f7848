"""Evaluate: predict the other rows, write predictions and metrics. Argument: folder."""

import json
import sys
from pathlib import Path

import joblib
import pandas as pd
import sklearn.linear_model  # noqa: F401 - as in load.py
from sklearn import metrics

folder = Path(sys.argv[1])
data = pd.read_csv(folder / "clear.csv")
rows = data[pd.util.hash_array(data["id"].to_numpy()) < 0.2 * 2**64]
model = joblib.load(folder / "model.pkl")
predicted, probability = model.predict(rows.iloc[:, 2:]), model.predict_proba(rows.iloc[:, 2:])[:, 1]
table = pd.DataFrame({"id": rows["id"], "y_true": rows["target"], "y_pred": predicted, "probability": probability})
table.to_csv(folder / "predictions.csv", index=False)
scores = {
    "accuracy": metrics.accuracy_score(rows["target"], predicted),
    "precision": metrics.precision_score(rows["target"], predicted),
    "recall": metrics.recall_score(rows["target"], predicted),
    "f1_score": metrics.f1_score(rows["target"], predicted),
    "roc_auc": metrics.roc_auc_score(rows["target"], probability),
    "average_precision": metrics.average_precision_score(rows["target"], probability),
    "brier_score": metrics.brier_score_loss(rows["target"], probability),
}
(folder / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
