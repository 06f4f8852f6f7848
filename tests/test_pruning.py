"""KEEP_PUBLISHED: which published runs stay in a storage, in which order they go, and what an interruption leaves."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import ARTIFACTS, Project, RunUpTo
from object_store import ObjectStore, store

__all__ = ["store"]
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
# The files of a published run: the artifacts, the manifest and the log.
PUBLISHED = len(ARTIFACTS) + 3


def stamp_of(age: timedelta) -> str:
    """Return a stamp of which the test's own run never has the name."""
    return (datetime(2020, 1, 20, tzinfo=UTC) - age).strftime("%Y_%m_%d_%H_%M_%S")


def add_run(runs: Path, age: timedelta) -> str:
    """Copy the newest run as one that started earlier; return its stamp."""
    source, stamp = max(runs.iterdir()), stamp_of(age)
    shutil.copytree(source, runs / stamp)
    path = runs / stamp / "manifest.json"
    text = path.read_text(encoding="utf-8").replace(source.name, stamp)
    path.write_text(json.dumps(json.loads(text) | {"started": (datetime.now(UTC) - age).isoformat()}), encoding="utf-8")
    (runs / stamp / f"log_{source.name}.log").rename(runs / stamp / f"log_{stamp}.log")
    (runs.parent / "claims" / stamp).touch()
    return stamp


def code_in_steps(project: Project, code: str) -> str:
    """Return a PYTHONPATH with which a step runs this code first."""
    folder = project.root / "code"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return str(folder)


def names(folder: Path) -> set[str]:
    """Return what is in a folder."""
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def log(project: Project, run_up_to: RunUpTo, tmp_path: Path) -> str:
    """Publish a run to `tmp_path`/store and return its log's path."""
    log = run_up_to("evaluate")
    assert project.step("evaluate", log, STORAGE_URL=f"file://{tmp_path}/store").returncode == 0
    return log


@pytest.mark.parametrize(("keep", "left"), [(0, 5), (1, 0), (3, 2)])
def test_newest_runs_stay(project: Project, log: str, tmp_path: Path, keep: int, left: int) -> None:
    """After a publication, as many runs are left as KEEP_PUBLISHED says, whole, and the claims and records of all."""
    store, (own,) = tmp_path / "store", project.runs()
    old = [add_run(store / "runs", days * DAY) for days in range(2, 7)]
    before = {part: names(store / part) for part in ("claims", "promotions")}
    done = project.step("evaluate", log, STORAGE_URL=f"file://{store}", KEEP_PUBLISHED=str(keep))

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert names(store / "runs") == {own.name, *old[:left]}
    assert done.stderr.count("removed from the storage: run 2020_") == 5 - left
    assert {part: names(store / part) for part in before} == before
    for stamp in old[:left]:
        assert len(names(store / "runs" / stamp)) == PUBLISHED


def test_runs_that_always_stay(project: Project, log: str, tmp_path: Path) -> None:
    """The run in use, young and odd ones, uploads under way and what is no run stay, however few are to be kept."""
    store, (own,) = tmp_path / "store", project.runs()
    ages = (23 * HOUR, 9 * DAY, 8 * DAY, 7 * DAY, 6 * DAY, 5 * DAY, -HOUR)
    young, in_use, unreadable, undated, upload, old, future = (add_run(store / "runs", age) for age in ages)
    (store / "runs" / unreadable / "manifest.json").write_bytes(b"{")
    path = store / "runs" / undated / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"started": "soon"}), encoding="utf-8")
    (store / "runs" / upload / "manifest.json").unlink()
    (store / "runs" / "notes").mkdir()
    url = f"file://{store}"
    assert project.step("runs", "rollback", url, in_use).returncode == 0
    # Once more after that, so that nothing depends on what the first one did.
    for _ in range(2):
        done = project.step("evaluate", log, STORAGE_URL=url, KEEP_PUBLISHED="1")
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr
        stay = {own.name, young, in_use, unreadable, undated, upload, future, "notes"}
        assert names(store / "runs") == stay, old
    assert json.loads((store / "latest.json").read_bytes())["run"] == in_use
    assert len(names(store / "runs" / upload)) == PUBLISHED - 1


@pytest.mark.parametrize("removals", [2, 5, 8])
def test_killed_pruning_is_completed(project: Project, log: str, tmp_path: Path, removals: int) -> None:
    """Wherever a pruning is killed, each run with a manifest is whole, and the next pruning removes the rest."""
    store, (own,) = tmp_path / "store", project.runs()
    for days in (2, 3):
        add_run(store / "runs", days * DAY)
    code = (
        "import os, threading\n"
        "remove, lock, left = os.remove, threading.Lock(), []\n"
        "def stop(path, **options):\n"
        "    with lock:\n"
        f"        if '/store/runs/' in str(path) and len(left) == {removals}:\n"
        "            os._exit(9)\n"
        "        left.extend([1] if '/store/runs/' in str(path) else [])\n"
        "        remove(path, **options)\n"
        "os.remove = stop\n"
    )
    settings = {"STORAGE_URL": f"file://{store}", "KEEP_PUBLISHED": "1"}
    assert project.step("evaluate", log, PYTHONPATH=code_in_steps(project, code), **settings).returncode == 9
    whole = [len(names(run)) for run in (store / "runs").iterdir() if (run / "manifest.json").exists()]
    assert whole == [PUBLISHED, PUBLISHED], "one run is left beside the own one"
    assert project.step("evaluate", log, **settings).returncode == 0
    assert names(store / "runs") == {own.name}


def test_no_right_to_delete(project: Project, log: str, tmp_path: Path) -> None:
    """If the storage refuses the removal, the log has one warning; the publication is done, and no run is damaged."""
    store = tmp_path / "store"
    old = add_run(store / "runs", 3 * DAY)
    code = (
        "import os\n"
        "remove = os.remove\n"
        "def refuse(path, **options):\n"
        "    if '/store/runs/' in str(path) and not str(path).endswith('.part'):\n"
        "        raise PermissionError(13, 'Permission denied', str(path))\n"
        "    remove(path, **options)\n"
        "os.remove = refuse\n"
    )
    settings = {"STORAGE_URL": f"file://{store}", "KEEP_PUBLISHED": "1"}
    done = project.step("evaluate", log, PYTHONPATH=code_in_steps(project, code), **settings)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{log}\n"
    (warning,) = re.findall(r".*\[WARNING\].*", Path(log).read_text(encoding="utf-8"))
    assert "KEEP_PUBLISHED: the run is published, but" in warning
    assert "access denied" in warning
    assert project.step("runs", "rollback", f"file://{store}", old).returncode == 0


def test_interrupted_removal_is_published_again(project: Project, log: str, tmp_path: Path) -> None:
    """Publishing a run whose removal was interrupted makes it whole; nothing removes it while that is under way."""
    folder = tmp_path / "store" / "runs" / project.runs()[0].name
    for name in ("manifest.json", "model.pkl"):
        (folder / name).unlink()
    (folder / ".removing").touch()
    assert project.step("evaluate", log, STORAGE_URL=f"file://{tmp_path}/store").returncode == 0
    assert not (folder / ".removing").exists()
    assert project.step("runs", "verify", f"file://{folder}").returncode == 0


def test_object_store(project: Project, run_up_to: RunUpTo, store: ObjectStore, tmp_path: Path) -> None:
    """In a bucket, old runs are removed with all of their objects."""
    log, files = run_up_to("evaluate"), store.files()
    settings = {"STORAGE_URL": f"{store.scheme}://bucket/pruning", **store.environment}
    assert project.step("evaluate", log, STORAGE_URL=f"file://{tmp_path}/store").returncode == 0
    old = [add_run(tmp_path / "store" / "runs", days * DAY) for days in (2, 3, 4)]
    for stamp in old:
        files.put(f"{tmp_path}/store/runs/{stamp}", f"bucket/pruning/runs/{stamp}", recursive=True)
    files.rm_file(f"bucket/pruning/runs/{old[2]}/manifest.json")
    files.pipe_file(f"bucket/pruning/runs/{old[2]}/.removing", b"")
    done = project.step("evaluate", log, KEEP_PUBLISHED="2", **settings)

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    found = {path.split("/")[3] for path in files.find("bucket/pruning/runs")}
    assert found == {old[0], project.runs()[0].name}
