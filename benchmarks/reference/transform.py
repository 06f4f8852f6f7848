"""Transform: check the target and the numbers, drop duplicates, write a clean table. Argument: folder."""

import sys
from pathlib import Path

import pandas as pd
import sklearn.linear_model  # noqa: F401 - as in load.py

folder = Path(sys.argv[1])
data = pd.read_csv(folder / "raw.csv", header=None, na_values=["?"])
target = data[1].str.strip()
if not target.isin(["B", "M"]).all():
    sys.exit("bad target")
data[1] = (target == "M").astype(int)
data = data.drop_duplicates().dropna(axis=1, how="all")
data.columns = ["id", "target", *(f"feature_{i}" for i in range(1, data.shape[1] - 1))]
data.to_csv(folder / "clear.csv", index=False)
