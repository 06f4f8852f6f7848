"""Measure the four steps against two plain chains, in turns, on data of growing size.

    .venv/bin/python benchmarks/sizes.py [ROWS ...]

Makes WDBC-like data of 10^5, 10^6 and 10^7 rows, or of the sizes given. Runs the steps on each; up to 10^6 rows also
two references, everything in memory, with scikit-learn's defaults: benchmarks/reference reads and writes by pandas and
checks the target; benchmarks/reference_polars is by polars and checks nothing. Prints for each step the medians of rows
and megabytes a second, peak memory and CPU time, then the ratios. Without sizes it also writes images/sizes.png, and
takes some ten minutes and 12 GB of disk.
"""

import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("data_loader", "transform", "train", "evaluate")
REFERENCES = {"pandas": "reference", "polars": "reference_polars"}
SIZES = (100_000, 1_000_000, 10_000_000)
MOST_ROWS_OF_REFERENCE = 1_000_000
ROUNDS = 3  # one where the references do not run
ROWS_AT_A_TIME = 100_000
SIGNIFICANT_DIGITS = 4
SECONDS_BETWEEN_LOOKS = 0.02
MOST_SHOWN_EXACTLY = 100
# Colour, and where the figure of a point is: offset in points, alignment.
LINES = {
    "my_pipeline": ("#1f6feb", (0, -14), "center"),
    "pandas": ("#9a6700", (-6, 2), "right"),
    "polars": ("#1a7f37", (6, -5), "left"),
}


class Measured(NamedTuple):
    """What a process took: seconds, seconds of CPU, megabytes at its peak."""

    wall: float
    cpu: float
    peak: float


def make_data(rows: int, path: Path) -> None:
    """Write rows like those of the embedded data: each class normal, with its means and covariances."""
    source = [line.split(",") for line in (ROOT / "data" / "wdbc.csv").read_text(encoding="utf-8").splitlines()]
    features = np.array([[float(cell) for cell in row[2:]] for row in source])
    is_m = np.array([row[1] == "M" for row in source])
    classes = [features[~is_m], features[is_m]]
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, ROWS_AT_A_TIME):
            count = min(ROWS_AT_A_TIME, rows - start)
            target = rng.random(count) < is_m.mean()
            draws = [rng.multivariate_normal(one.mean(0), np.cov(one.T), count, method="eigh") for one in classes]
            values = np.abs(np.where(target[:, None], draws[1], draws[0])) + 1e-6
            step = 10.0 ** (SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(values)))
            columns = [np.arange(start, start + count), np.where(target, "M", "B"), *(np.round(values * step) / step).T]
            table = pa.table({str(i): column for i, column in enumerate(columns)})
            csv.write_csv(table, file, csv.WriteOptions(include_header=False, quoting_style="none"))


def measure(*command: object, **environment: str) -> tuple[Measured, str]:
    """Run a Python script, which must succeed; return what it took, and what it wrote to stdout."""
    before, start, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    line = [sys.executable, *map(str, command)]
    with subprocess.Popen(line, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None:
            peak = max(peak, peak_memory(run.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        wall = time.perf_counter() - start
        assert run.stdout
        out = run.stdout.read().decode().strip()
    if run.returncode:
        sys.exit(f"{line} ended with {run.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall, cpu, peak / 1e6), out


def peak_memory(pid: int) -> int:
    """Return the most resident bytes that a process has had; no process of a chain has another at its side."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def run_ours(project: Path, source: Path) -> dict[str, Measured]:
    """Run the four steps."""
    found, log = {}, []
    for step in STEPS:
        found[step], out = measure(project / "etl" / f"{step}.py", *log, DATA_URL=str(source), KEEP_RUNS="1")
        log = [out]
    return found


def run_reference(scripts: Path, folder: Path, source: Path) -> dict[str, Measured]:
    """Run the four scripts of a reference."""
    lines = (("load", source, folder), ("transform", folder), ("train", folder), ("evaluate", folder))
    return {step: measure(scripts / f"{name}.py", *paths)[0] for step, (name, *paths) in zip(STEPS, lines, strict=True)}


def median(rounds: list[Measured]) -> Measured:
    """Return the median of each figure."""
    return Measured(*(statistics.median(column) for column in zip(*rounds, strict=True)))


def measure_size(rows: int, folder: Path) -> dict[str, dict[str, Measured]]:
    """Return what each step takes by each chain, and print it."""
    source, project = folder / "source.csv", folder / "project"
    make_data(rows, source)
    shutil.copytree(ROOT / "etl", project / "etl")
    chains = {"my_pipeline": partial(run_ours, project, source)}
    if rows <= MOST_ROWS_OF_REFERENCE:
        for name, scripts in REFERENCES.items():
            (folder / name).mkdir()
            chains[name] = partial(run_reference, ROOT / "benchmarks" / scripts, folder / name, source)
    times = ROUNDS if len(chains) > 1 else 1
    rounds: dict[str, dict[str, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(times):
        for name, run in chains.items():
            for step, found in run().items():
                rounds[name][step].append(found)
    medians = {name: {step: median(found) for step, found in steps.items()} for name, steps in rounds.items()}
    megabytes = source.stat().st_size / 1e6
    print(f"\n{rows} rows, {megabytes:.0f} MB, median of {times}")
    show(rows, megabytes, medians)
    return medians


def show(rows: int, megabytes: float, medians: dict[str, dict[str, Measured]]) -> None:
    """Print a table of what was measured."""
    print(f"{'':24}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'rows/s':>10}{'MB/s':>7}")
    for name, steps in medians.items():
        for step, found in [*steps.items(), ("whole", total(steps))]:
            figures = f"{found.wall:8.2f}{found.cpu:8.2f}{found.peak:9.0f}"
            print(f"{name:12}{step:12}{figures}{rows / found.wall:10.0f}{megabytes / found.wall:7.1f}")
    totals = {name: total(steps) for name, steps in medians.items()}
    ours = totals.pop("my_pipeline")
    for name, plain in totals.items():
        print(f"whole / {name} chain: wall {ours.wall / plain.wall:.2f}, CPU {ours.cpu / plain.cpu:.2f}")


def total(steps: dict[str, Measured]) -> Measured:
    """Return the time of all steps, and the highest peak."""
    return Measured(
        sum(found.wall for found in steps.values()),
        sum(found.cpu for found in steps.values()),
        max(found.peak for found in steps.values()),
    )


def draw(found: dict[int, dict[str, dict[str, Measured]]], path: Path) -> None:
    """Draw time and peak memory of each chain against the rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    plots = figure.subplots(1, 2)
    for name, (colour, offset, align) in LINES.items():
        sizes = [rows for rows in found if name in found[rows]]
        totals = [total(found[rows][name]) for rows in sizes]
        title = f"{name} + scikit-learn" if name in REFERENCES else name
        for axes, values in zip(plots, ([one.wall for one in totals], [one.peak for one in totals]), strict=True):
            axes.loglog(sizes, values, "o-", color=colour, label=title)
            for rows, value in zip(sizes, values, strict=True):
                text = f"{value:.3g}" if value < MOST_SHOWN_EXACTLY else f"{value:.0f}"
                axes.annotate(text, (rows, value), offset, textcoords="offset points", ha=align)
    for axes, title in zip(plots, ("Whole chain, seconds", "Highest peak memory of a step, MB"), strict=True):
        axes.set_title(title)
        axes.margins(0.12)
        axes.set_xlabel("rows of 30 features")
        axes.set_xticks(list(found), [f"{rows:,}" for rows in found])
        axes.grid(color="#dddddd")
    plots[0].legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure all sizes, or those given."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    found = {}
    given = [int(argument) for argument in sys.argv[1:]]
    for rows in given or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            found[rows] = measure_size(rows, Path(folder))
    if not given:
        draw(found, ROOT / "images" / "sizes.png")


if __name__ == "__main__":
    main()
