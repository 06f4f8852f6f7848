"""Write data/wdbc.csv, in the layout of UCI's wdbc.data, from the copy of the data set inside scikit-learn.

Run once: `.venv/bin/python data/make_wdbc.py`. scikit-learn's copy has no record ids, so they are 1…569, in its order.
"""

import csv
from pathlib import Path

from sklearn.datasets import load_breast_cancer

features, target = load_breast_cancer(return_X_y=True)
with Path(__file__).with_name("wdbc.csv").open("w", encoding="utf-8", newline="") as file:
    out = csv.writer(file, lineterminator="\n")
    # In scikit-learn's copy 0 is malignant.
    out.writerows([i, "MB"[y], *x.tolist()] for i, (x, y) in enumerate(zip(features, target, strict=True), start=1))
