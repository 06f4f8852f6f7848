"""Compare predict.py with a plain script (polars, predict_proba); the two take turns.

    .venv/bin/python benchmarks/predict.py [ROWS]

Trains on the embedded data, makes ROWS of WDBC-like data (default: a million), and prints the medians of three rounds
and their ratios. The plain script reads everything into memory, checks nothing and writes nothing.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from sizes import ROOT, STEPS, make_data, measure, median

ROUNDS = 3
PLAIN = (
    "import joblib, polars, sys, warnings\n"
    "warnings.simplefilter('ignore')\n"
    "model = joblib.load(sys.argv[1])\n"
    "data = polars.read_csv(sys.argv[2], has_header=False, null_values=['', 'NA', '?'])\n"
    "model.predict_proba(data[:, 2:].to_numpy())\n"
)


def main() -> None:
    """Measure in turns."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as temporary:
        project, cases = Path(temporary) / "project", Path(temporary) / "cases.csv"
        for part in ("etl", "data"):
            shutil.copytree(ROOT / part, project / part)
        log: list[str] = []
        for step in STEPS:
            log = [measure(project / "etl" / f"{step}.py", *log)[1]]
        make_data(rows, cases)
        model = project / "results" / "latest" / "model.pkl"
        rounds = [
            (measure(project / "etl" / "predict.py", cases)[0], measure("-c", PLAIN, model, cases)[0])
            for _ in range(ROUNDS)
        ]
    ours, plain = (median([pair[i] for pair in rounds]) for i in (0, 1))
    for name, found in (("predict.py", ours), ("plain", plain)):
        print(f"{name:11}{found.wall:6.2f} s wall {found.cpu:6.2f} s CPU {found.peak:6.0f} MB")
    ratios = (f"{name} {getattr(ours, name) / getattr(plain, name):.2f}" for name in ("wall", "cpu", "peak"))
    print(f"ratio: {', '.join(ratios)}")


if __name__ == "__main__":
    main()
