"""Measure the fit alone, from parsed numbers, against scikit-learn's on the same matrix, in turns.

    .venv/bin/python benchmarks/fit.py

On 10^6 rows of 30 standardized features like those of the embedded data. Prints the median of CPU and wall seconds of
Newton steps over a scratch file, of LogisticRegression as it comes (lbfgs) and of newton-cholesky with a tolerance of
1e-10, and how far the coefficients of the first two are from those of the last.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ROWS, ROUNDS, ROWS_OF_PART = 1_000_000, 3, 20_000
KINDS = ("my_pipeline", "lbfgs", "newton-cholesky")


def make_matrix(path: Path) -> None:
    """Write the scratch file that train.py would: standardized features, a column of ones, the target."""
    from pyarrow import csv
    from sizes import make_data

    make_data(ROWS, path.with_suffix(".csv"))
    table = csv.read_csv(path.with_suffix(".csv"), csv.ReadOptions(autogenerate_column_names=True))
    features = np.column_stack([column.to_numpy() for column in table.columns[2:]])
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    target = np.array(table.column(1)) == "M"
    np.column_stack([features, np.ones(ROWS), target]).tofile(path)


def fit(kind: str, path: Path) -> None:
    """Fit to the matrix, and print what it took and the coefficients as JSON."""
    columns = 32
    if kind == "my_pipeline":
        sys.path.insert(0, str(ROOT / "etl"))
        import train
        from steplib.model import fitting, training
        from steplib.model.moments import Moments
        from steplib.table.pool import open_pool

        parts = [
            training.Part(count := min(ROWS_OF_PART, ROWS - start), columns, partial(load, path, start, count))
            for start in range(0, ROWS, ROWS_OF_PART)
        ]
        # The columns are standardized already.
        ones, zeros = np.ones(columns - 2), np.zeros(columns - 2)
        moments = Moments(ROWS * ones, zeros, ROWS * ones, ones)
        rows = training.TrainingRows([str(i) for i in range(columns - 2)], parts, moments, np.array([0, ROWS]))
        with open_pool(0) as pool:
            wall, cpu = time.perf_counter(), time.process_time()
            fitted = fitting.fit(train.build_model(), rows, pool)[-1]
            took = (time.process_time() - cpu, time.perf_counter() - wall)
    else:
        from sklearn.linear_model import LogisticRegression

        rows_in_memory = np.fromfile(path).reshape(ROWS, columns)
        features, target = np.ascontiguousarray(rows_in_memory[:, :-2]), rows_in_memory[:, -1]
        settings = {} if kind == "lbfgs" else {"solver": kind, "tol": 1e-10}
        wall, cpu = time.perf_counter(), time.process_time()
        fitted = LogisticRegression(**settings).fit(features, target)
        took = (time.process_time() - cpu, time.perf_counter() - wall)
    sys.stdout.write(json.dumps([*took, fitted.coef_[0].tolist()]))


def load(path: Path, start: int, count: int) -> np.ndarray:
    """Map some rows of the matrix into memory."""
    return np.memmap(path, np.float64, "r", start * 32 * 8, (count, 32))


def main() -> None:
    """Measure in turns, and print the medians."""
    if len(sys.argv) > 1:
        fit(sys.argv[1], Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        make_matrix(path)
        found: dict[str, list[tuple[float, float, list[float]]]] = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind in KINDS:
                script = [sys.executable, __file__, kind, str(path)]
                found[kind].append(json.loads(subprocess.run(script, check=True, capture_output=True).stdout))
    exact = np.array(found[KINDS[-1]][0][2])
    for kind, rounds in found.items():
        cpu, wall = (statistics.median(one[i] for one in rounds) for i in (0, 1))
        apart = np.abs(np.array(rounds[0][2]) - exact).max()
        print(f"{kind:16} CPU {cpu:6.2f} s  wall {wall:6.2f} s  coefficients apart {apart:.1e}")


if __name__ == "__main__":
    main()
