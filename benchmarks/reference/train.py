"""Train: fit impute, scale, logistic regression on the rows whose hashed id is above 20 %. Argument: folder."""

import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(sys.argv[1])
data = pd.read_csv(folder / "clear.csv")
rows = data[pd.util.hash_array(data["id"].to_numpy()) >= 0.2 * 2**64]
model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
joblib.dump(model.fit(rows.iloc[:, 2:], rows["target"]), folder / "model.pkl")
