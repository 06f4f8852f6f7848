"""runs.py list: odd manifests, names that steer a terminal or a browser, two lists at once, a disk that refuses."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, RunUpTo

HOSTILE = "\x1b]0;x\x07\x9b31m\u202etxt.csv\ud800\n<script>alert(1)</script>"
DEEP = json.loads("[" * 300 + "]" * 300)
# Lists begin with an odd value for everything that a manifest holds; the last two are no manifest at all.
ODD_VALUES = ["soon", [1, [2]], {"a": {}}, True, None, 10**400, float("nan"), float("inf"), DEEP, HOSTILE]
ODD_CONTENTS = [b"\xff\xfe{}", b"[" * 100_000]


def odd_manifests(good: dict[str, Any]) -> list[bytes]:
    """Return manifests in which one value, or one key of the metrics, is odd."""
    places: list[tuple[str, ...]] = [
        *(("steps", "train", name) for name in ("seconds", "exit_code", "outcome", "packages")),
        *(("artifacts", "clear_data.csv", name) for name in ("rows", "bytes", "sha256")),
        *(("steps", "evaluate", "metrics"), ("steps", "evaluate", "metrics", "accuracy")),
        *(("steps", "data_loader", "source"), ("steps", "train"), ("steps",), ("artifacts",), ("started",)),
    ]
    changed = []
    for value in ODD_VALUES:
        for place in [*places, ("steps", "evaluate", "metrics", str(value)[:40])]:
            odd = json.loads(json.dumps(good))
            parent = odd
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = value
            changed.append(json.dumps(odd).encode())
    return [*changed, *ODD_CONTENTS]


def add_run(project: Project, stamp: str, content: bytes | dict[str, Any]) -> None:
    """Add a run that has only a manifest."""
    folder = project.root / "results" / "runs" / stamp
    folder.mkdir()
    if isinstance(content, dict):
        content = json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(content)


def manifest_of(project: Project) -> dict[str, Any]:
    """Return the manifest of the only run."""
    return dict(json.loads((project.runs()[0] / "manifest.json").read_bytes()))


@pytest.mark.parametrize("place", ["this disk", "storage"])
def test_odd_manifests_do_not_hide_other_runs(project: Project, run_up_to: RunUpTo, place: str) -> None:
    """Each run is listed, whatever its manifest holds; the page is whole; the next run prunes them."""
    run_up_to("evaluate")
    good = manifest_of(project)
    for number, content in enumerate(odd_manifests(good)):
        stamp = f"2001_01_01_00_{number // 60:02}_{number % 60:02}"
        add_run(project, stamp, content.replace(good["run"].encode(), stamp.encode()))
    for stamp in ("9999_99_99_99_99_99", "0000_00_00_00_00_00", "9999_12_31_23_59_59"):
        add_run(project, stamp, good | {"run": stamp})
    (project.root / "results" / "runs" / "2001_01_02_00_00_00" / "manifest.json").mkdir(parents=True)
    # In a storage, a run without a manifest is one that is being published.
    listed = [run for run in project.runs() if place == "this disk" or (run / "manifest.json").is_file()]
    done = project.step("runs", "list", *([f"file://{project.root}/results"] if place == "storage" else []))

    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("\n\n")[0].splitlines()
    assert {line.split()[0] for line in lines[1:]} == {run.name for run in listed}
    (line,) = (line for line in lines if line.startswith(good["run"]))
    assert re.findall(r"0\.\d{4}|1\.0000", line) == ["0.9919", "0.9762", "1.0000", "0.9880", "0.9994", "0.0209"]
    assert max(map(len, lines)) < 1000
    assert (project.root / "results" / "history.html").read_text(encoding="utf-8").endswith("</html>\n")
    if place == "this disk":
        assert project.step("data_loader", KEEP_RUNS="1").returncode == 0


def test_when_which_run_was_in_use(project: Project, run_up_to: RunUpTo) -> None:
    """Each record of a storage is a row with its time, whatever it holds; a run that is gone is marked."""
    log = run_up_to("evaluate")
    store, (run,) = project.root / "store", project.runs()
    assert project.step("evaluate", log, STORAGE_URL=f"file://{store}").returncode == 0
    good = json.loads((store / "promotions" / "1.json").read_bytes())
    odd = [good | {name: value} for name in ("at", "act", "by", "run", "number", "started") for value in ODD_VALUES]
    contents = [*(json.dumps(record).encode() for record in odd), b"", *ODD_CONTENTS]
    gone = good | {
        "run": "2020_01_01_00_00_00",
        "at": "2026-11-20T01:02:03.5+01:00",
        "act": "rollback",
        "by": "a@b",
        "reason": "why",
    }
    for number, content in enumerate([*contents, json.dumps(gone).encode()], start=2):
        (store / "promotions" / f"{number}.json").write_bytes(content)
    done = project.step("runs", "list", f"file://{store}")

    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.split("\n\n")[1].splitlines()
    assert head.split() == ["number", "in", "use", "from", "(UTC)", "until", "run", "act", "by", "reason"]
    assert [int(row.split()[0]) for row in rows] == list(range(len(contents) + 2, 0, -1))
    last = ["2026-11-20", "00:02:03", "2020_01_01_00_00_00", "(removed)", "rollback", "a@b", "why"]
    assert rows[0].split()[1:] == last
    since = good["at"][:19].split("T")
    assert rows[-1].split()[1:] == [*since, "?", run.name, "gate", good["by"], *good["reason"].split()]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", done.stdout)
    page = (project.root / "results" / "history.html").read_text(encoding="utf-8")
    assert "2020_01_01_00_00_00 (removed)" in page
    assert "<script>alert" not in page
    for path in (store / "promotions").iterdir():
        path.unlink()
    # An older version has written latest.json alone.
    old = {name: good[name] for name in ("run", "started", "manifest", "manifest_sha256", "metrics")}
    (store / "latest.json").write_text(json.dumps(old), encoding="utf-8")
    done = project.step("runs", "list", f"file://{store}")
    assert done.stdout.split("\n\n")[1].splitlines()[1].split() == ["0", "?", run.name, "?", "?"]


@pytest.mark.parametrize("settings", [{}, {"LANG": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_name_of_a_source_is_only_text(project: Project, run_up_to: RunUpTo, settings: dict[str, str]) -> None:
    """A name reaches the terminal without control characters, and the page as text; no encoding fails on it."""
    run_up_to("evaluate")
    record = manifest_of(project)
    record["steps"]["data_loader"]["source"] = HOSTILE + "\u00e9"
    (project.runs()[0] / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
    done = project.step("runs", "list", **settings)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", done.stdout)
    assert r"\x1b]0;x\x07\x9b31m\u202etxt.csv\ud800\n<script>" in done.stdout
    page = (project.root / "results" / "history.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_lists_at_once(project: Project, run_up_to: RunUpTo) -> None:
    """Lists that run side by side all succeed, and leave one whole page and no other file."""
    run_up_to("evaluate")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: project.step("runs", "list"), range(4)))

    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done]
    results = project.root / "results"
    assert (results / "history.html").read_text(encoding="utf-8").endswith("</html>\n")
    assert not list(results.glob(".history*"))


@pytest.mark.parametrize("obstacle", ["no folder", "a file", "a folder of that name"])
def test_page_that_cannot_be_written(project: Project, run_up_to: RunUpTo, obstacle: str) -> None:
    """The table is printed in any case; results/ is made if it is missing; a disk that refuses the page is exit 74."""
    run_up_to("evaluate")
    results = project.root / "results"
    storage = Path(shutil.copytree(results, project.root.parent / "storage", symlinks=True))
    shutil.rmtree(results)
    if obstacle == "a file":
        results.write_text("", encoding="utf-8")
    if obstacle == "a folder of that name":
        (results / "history.html").mkdir(parents=True)
    done = project.step("runs", "list", f"file://{storage}")

    assert "0.9919" in done.stdout
    assert done.returncode == (0 if obstacle == "no folder" else 74), done.stderr
    assert done.returncode == 0 or "history.html: the page could not be written (" in done.stderr
    assert not list(project.root.glob("results/.history*"))
