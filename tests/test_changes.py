"""What changed from one clear_data.csv to another: against pandas and scipy on whole tables."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import wdbc_rows
from scipy.stats import fisher_exact, ks_2samp
from steplib.gate import changes
from steplib.table import pool
from steplib.table.arrays import share_of
from steplib.table.batches import WHOLE
from steplib.table.schema import WDBC_FEATURES

Table = pd.DataFrame


def wdbc() -> Table:
    """Return the embedded data as clear_data.csv has it."""
    data = pd.DataFrame([row.split(",") for row in wdbc_rows()], columns=["id", "target", *WDBC_FEATURES])
    data["target"] = (data["target"] == "M").astype(int)
    return data.astype(dict.fromkeys(WDBC_FEATURES, float))


def compare(before: Table, now: Table, batch_bytes: int = WHOLE) -> dict:
    """Compare two tables as files."""
    files = [table.to_csv(index=False).encode() for table in (before, now)]
    found = changes.compare(*files, max(len(before), len(now)), batch_bytes)
    assert json.loads(json.dumps(found)) == found
    return found


def expect(before: Table, now: Table) -> dict:
    """Return what pandas and scipy find."""
    before, now = (table.assign(k=table.groupby("id").cumcount()).set_index(["id", "k"]) for table in (before, now))
    both, new = now.index.intersection(before.index), now[~now.index.isin(before.index)]
    common = [name for name in now.columns.intersection(before.columns, sort=False) if name != "target"]
    old_rows, new_rows = before.loc[both, common], now.loc[both, common]
    changed = (~(new_rows.eq(old_rows) | (new_rows.isna() & old_rows.isna()))).sum()
    present = [(before[name].dropna(), new[name].dropna()) for name in common]
    tested = [(name, *sides) for name, sides in zip(common, present, strict=True) if min(map(len, sides)) > 1]
    tests = [(name, ks_2samp(old, added, method="exact")) for name, old, added in tested]
    absent = [(name, fisher(before[name].isna(), new[name].isna())) for name in common] if len(new) else []
    prevalence = fisher(before["target"] == 1, new["target"] == 1) if len(new) else None
    return {
        "rows_compared": {"before": len(before), "now": len(now)},
        "ids_gone": len(before) - len(both),
        "ids_new": len(new),
        "changed_diagnoses": (now.loc[both, "target"] != before.loc[both, "target"]).sum(),
        "changed_values": changed[changed > 0].to_dict(),
        "columns_gone": [name for name in before.columns if name not in now.columns],
        "columns_new": [name for name in now.columns if name not in before.columns],
        "drift": [
            {"feature": name, "d": result.statistic, "p": p}
            for (name, result), p in zip(tests, holm([result.pvalue for _, result in tests]), strict=True)
            if p < 0.01 and result.statistic >= 0.2
        ],
        "missing": [
            {"feature": name, **shares, "p": p}
            for (name, shares), p in zip(absent, holm([shares["p"] for _, shares in absent]), strict=True)
            if p < 0.01 and abs(shares["now"] - shares["before"]) >= 0.1
        ],
        "prevalence": prevalence,
        "prevalence_changed": prevalence is not None and prevalence["p"] < 0.01,
    }


def rounded(found: dict) -> dict:
    """Return numbers to nine digits."""
    text = json.dumps(found, default=float)
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.9g}"))


def fisher(before: pd.Series, new: pd.Series) -> dict:
    """Return the shares of True and the p of their difference."""
    p = fisher_exact([[before.sum(), (~before).sum()], [new.sum(), (~new).sum()]]).pvalue
    return {"before": before.mean(), "now": new.mean(), "p": p}


def holm(p: list[float]) -> list[float]:
    """Return corrected p-values by the definition: the largest of those up to each, times how many are as large."""
    ranked = sorted(p)
    steps = [min(1, value * (len(p) - i)) for i, value in enumerate(ranked)]
    return [max(steps[: ranked.index(value) + 1]) for value in p]


def with_holes(data: Table) -> Table:
    """Return a table in which a tenth of the values is missing."""
    values = data[WDBC_FEATURES]
    return data.assign(**values.mask(np.random.default_rng(0).random(values.shape) < 0.1))


def change_cells(data: Table) -> Table:
    """Return a table with changed values, changed diagnoses, and a value instead of a missing one and the reverse."""
    data = data.copy()
    data.loc[3:9, "area_mean"] += 1
    data.loc[20:21, "target"] = 1 - data.loc[20:21, "target"]
    data.loc[30, "area_se"] = np.nan if data.loc[30, "area_se"] > 0 else 1.0
    data.loc[:, "area_worst"] = data["area_worst"].fillna(5.0)
    return data


def rename_ids(data: Table, ids: int) -> Table:
    """Return a table in which several rows have the same id."""
    return data.assign(id=[f'p{i % ids}, "x"' for i in range(len(data))])


def new_rows_lack(data: Table) -> Table:
    """Return a table whose last 40 rows mostly lack one value, and wholly another."""
    data = data.copy()
    data.loc[data.index[-40:-5], "area_mean"] = np.nan
    data.loc[data.index[-40:], "area_se"] = np.nan
    return data


CASES: dict[str, Callable[[Table], tuple[Table, Table]]] = {
    "nothing": lambda data: (data, data),
    "new rows": lambda data: (data[:541], data),
    "one new row": lambda data: (data[:568], data),
    "gone rows": lambda data: (data, data[50:]),
    "other order": lambda data: (data[:541], data.sample(frac=1, random_state=0)),
    "changed cells": lambda data: (data[:541], change_cells(data)),
    "repeated ids": lambda data: (rename_ids(data, 100)[:450], change_cells(rename_ids(data, 100))[200:]),
    "all ids": lambda data: (data, data.assign(id=[f"n{i}" for i in range(len(data))])),
    "columns": lambda data: (
        data[:500],
        data.rename(columns={"area_se": "smoothness"}).iloc[:, [0, 1, *range(31, 1, -1)]],
    ),
    "no column in common": lambda data: (data[:500].iloc[:, :9], data.iloc[:, [0, 1, *range(9, 12)]]),
    "sorted by class": lambda data: ((data := data.sort_values("target", kind="stable"))[:500], data),
    "missing": lambda data: (data[:529], new_rows_lack(data)),
}


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_changes_are_those_of_the_tables(case: str, holes: bool) -> None:  # noqa: FBT001 - a parameter of a test
    """Counts, shares and tests are what pandas and scipy give; neither batches nor workers matter."""
    before, now = CASES[case](with_holes(wdbc()) if holes else wdbc())
    before, now = before.reset_index(drop=True), now.reset_index(drop=True)
    found, expected = compare(before, now), expect(before, now)

    assert list(found) == list(expected)
    assert rounded(found) == rounded(expected)
    assert compare(before, now, batch_bytes=20_000) == found


def test_drift_and_missing_are_found_where_they_are() -> None:
    """Of the cases above, only new rows of one class and new rows with missing values are flagged."""
    flagged = {}
    for case, tables in CASES.items():
        found = compare(*tables(wdbc()))
        flagged[case] = [len(found["drift"]) > 5, [f["feature"] for f in found["missing"]], found["prevalence_changed"]]

    assert flagged.pop("sorted by class") == [True, [], True]
    assert flagged.pop("missing")[1] == ["area_mean", "area_se"]
    assert not any(any(found) for found in flagged.values())


@pytest.mark.slow
def test_unchanged_data_is_rarely_flagged() -> None:
    """28 new rows drawn at random are flagged at most 3 times in 100; with a column in a different unit, each time."""
    data, draws, flags, units = wdbc(), np.random.default_rng(0), 0, 0
    for draw in range(100):
        drawn = data.sample(frac=1, random_state=draws).reset_index(drop=True)
        found = compare(drawn[:541], drawn)
        flags += bool(found["drift"] or found["missing"] or found["prevalence_changed"])
        if draw < 10:
            drawn.loc[541:, "texture_mean"] *= 10
            units += "texture_mean" in [drift["feature"] for drift in compare(drawn[:541], drawn)["drift"]]

    assert flags <= 3
    assert units == 10


def test_one_value_and_a_small_shift_are_no_drift() -> None:
    """One extreme value is only significant where a feature is tested alone, a small shift only in many rows."""
    data = wdbc()[["id", "target", "area_mean"]]
    data.loc[567:, "area_mean"] = 1e5
    noise = np.random.default_rng(0).normal(size=3000)
    many = pd.DataFrame({"id": range(3000), "target": 0, "a": noise + 0.3 * (np.arange(3000) >= 2000)})

    assert compare(data[:567], data[:568])["drift"] == []
    assert len(compare(data[:567], data)["drift"]) == 1
    assert ks_2samp(many["a"][:2000], many["a"][2000:]).pvalue < 1e-6
    assert compare(many[:2000], many)["drift"] == []


def test_sample_depends_on_the_ids_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large files the same ids are compared on both sides, whatever the order, the batches and the workers."""
    now = change_cells(wdbc())
    before, other_order = wdbc()[:500], now.sample(frac=1, random_state=0)
    monkeypatch.setattr("steplib.table.arrays.SAMPLE", 200)
    found = compare(before, now)
    chosen = [table[[share_of(i.encode()) < 200 / len(now) for i in table["id"]]] for table in (before, now)]

    assert found["rows_compared"] == {"before": len(chosen[0]), "now": len(chosen[1])}
    assert 150 < len(chosen[1]) < 250
    assert found["changed_values"] == expect(*chosen)["changed_values"]
    assert compare(before, other_order, batch_bytes=9_000) == found
    for path, table in zip(paths := [tmp_path / "a.csv", tmp_path / "b.csv"], (before, now), strict=True):
        table.to_csv(path, index=False)
    with pool.open_pool(2) as two:
        assert changes.compare(*paths, len(now), 9_000, two) == found
    monkeypatch.setattr("steplib.table.arrays.MOST_VALUES", 30 * 100)
    assert 70 < compare(before, now)["rows_compared"]["now"] < 130


def test_large_files_are_compared_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that pyarrow reads give what the csv module gives, and the asymptotic p flags the same."""
    before, now = wdbc()[:500], new_rows_lack(change_cells(wdbc()))
    now.loc[500:, "texture_mean"] *= 1.5
    found = compare(before, now)
    monkeypatch.setattr("steplib.table.batches.SMALL_FILE_BYTES", 0)
    assert compare(before, now, batch_bytes=30_000) == found
    monkeypatch.setattr("steplib.model.drift.EXACT_PAIRS", 0)
    asymptotic = compare(before, now)

    assert [d["feature"] for d in asymptotic["drift"]] == [d["feature"] for d in found["drift"]]
    assert "texture_mean" in [d["feature"] for d in found["drift"]]


def test_lines_for_the_log() -> None:
    """One line says how much changed; a warning each says what is suspicious, with at most five names."""
    data = wdbc()
    before, now = data[:500], data.copy()
    now.loc[:11, "area_mean"] += 1
    now.loc[:1, "texture_se"] += 1
    counts = "69 new rows, 0 gone, 0 diagnoses and 14 values changed (area_mean 12, texture_se 2)"
    rows = "since the data before (500 and 569 rows compared)"
    assert changes.describe(compare(before, now)) == [(False, f"{rows}: {counts}")]
    now.loc[:1, "target"] = 0
    now.loc[500:, WDBC_FEATURES[:7]] *= 10
    now.loc[500:, "target"] = 1
    now.loc[500:, "area_se"] = np.nan
    now = now.rename(columns={"area_worst": "area\n\x1b[2J"})
    (first_warns, first), *warnings = changes.describe(compare(before, now))

    assert first_warns
    assert "2 diagnoses" in first
    assert [is_warning for is_warning, _ in warnings] == [True] * 5
    gone, new, drift, missing, prevalence = (line for _, line in warnings)
    assert gone == "columns gone: area_worst; check the source"
    assert new == "new columns: area\\n\\x1b[2J; check the source"
    assert drift.startswith("the 69 new rows are distributed differently from the rows before: ")
    assert drift.count("(distance ") == 5
    assert " more; " in drift
    assert missing == (
        "the 69 new rows have a different share of missing values: area_se (0.000 before, 1.000 now); check the source"
    )
    assert "1.000 now" in prevalence
    ((_, nothing),) = changes.describe(compare(data, data))
    assert nothing.endswith(" compared): 0 new rows, 0 gone, 0 diagnoses and 0 values changed")
