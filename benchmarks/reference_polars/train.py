"""Train: fit impute, scale, logistic regression on the rows whose hashed id is above 20 %. Argument: folder."""

import sys
from pathlib import Path

import joblib
import polars as pl
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(sys.argv[1])
rows = pl.read_csv(folder / "clear.csv").filter(pl.col("id").hash() >= 2**64 // 5)
model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
joblib.dump(model.fit(rows[:, 2:].to_numpy(), rows["target"].to_numpy()), folder / "model.pkl")
