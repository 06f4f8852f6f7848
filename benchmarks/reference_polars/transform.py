"""Transform: drop duplicates, write the target as 0 or 1. Argument: folder."""

import sys
from pathlib import Path

import polars as pl

folder = Path(sys.argv[1])
data = pl.scan_csv(folder / "raw.csv", has_header=False, null_values=["NA", "?"]).unique(maintain_order=True)
first, second, *others = data.collect_schema().names()
names = {first: "id", second: "target"} | {name: f"feature_{i}" for i, name in enumerate(others, 1)}
data = data.with_columns((pl.col(second) == "M").cast(pl.Int8)).rename(names)
data.sink_csv(folder / "clear.csv")
