"""Measure the chain of four steps against a plain chain that does the same work, in turns, on the embedded data.

    .venv/bin/python benchmarks/chain.py [ROUNDS]

Prints the median of CPU and wall time of both, in seconds, and the ratios. The plain chain is benchmarks/reference:
four scripts that each import pandas and scikit-learn at the top.
"""

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("data_loader", "transform", "train", "evaluate")
REFERENCE = ("load", "transform", "train", "evaluate")


def run_ours(project: Path) -> None:
    """Run the four steps in a copy of the project."""
    log: list[str] = []
    for name in STEPS:
        script = [sys.executable, str(project / "etl" / f"{name}.py"), *log]
        log = [subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip()]


def run_reference(folder: Path) -> None:
    """Run the four reference scripts."""
    for name in REFERENCE:
        source = [str(ROOT / "data" / "wdbc.csv")] if name == "load" else []
        script = [sys.executable, str(ROOT / "benchmarks" / "reference" / f"{name}.py"), *source, str(folder)]
        subprocess.run(script, check=True)


def measure(chain: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Return CPU and wall seconds of a chain and all its processes."""
    used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    chain(folder)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, wall


def main() -> None:
    """Measure in turns, after a round that warms the caches, and print the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as temporary:
        project, reference = Path(temporary) / "project", Path(temporary) / "reference"
        for part in ("etl", "data"):
            shutil.copytree(ROOT / part, project / part)
        reference.mkdir()
        measured = [(measure(run_ours, project), measure(run_reference, reference)) for _ in range(rounds + 1)][1:]
    print(f"median of {rounds} rounds in turns, seconds")
    for i, name in enumerate(("CPU", "wall")):
        ours, plain = (statistics.median(pair[which][i] for pair in measured) for which in (0, 1))
        print(f"{name:5}  ours {ours:.2f}  reference {plain:.2f}  ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
