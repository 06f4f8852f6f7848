"""Names and order of runs: taken names, wrong clocks, time zones, several disks, what is kept, who waits for whom."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import STEPS, Project, RunUpTo
from steplib.publish import promotions

MakeProject = Callable[[str], Project]


def latest_in(place: Path) -> str:
    """Return the run that latest.json names."""
    return str(json.loads((place / "latest.json").read_bytes())["run"])


def stamp_of(log: str) -> str:
    """Return the stamp of a run."""
    return Path(log).stem.removeprefix("log_")


def change_manifest(run: Path, **values: Any) -> None:
    """Replace values in a run's manifest."""
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values), encoding="utf-8")


def shifted_clock(project: Project, shift: timedelta) -> str:
    """Return a PYTHONPATH with which a script's clock is wrong."""
    folder = project.root / f"clock {shift.total_seconds()}"
    folder.mkdir(exist_ok=True)
    code = (
        "import datetime, time\n"
        f"shift = {shift.total_seconds()}\n"
        "class Shifted(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return super().now(tz) + datetime.timedelta(seconds=shift)\n"
        "datetime.datetime = Shifted\n"
    )
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return str(folder)


def stamps_from_now(seconds: int) -> list[str]:
    """Return the stamps of the next seconds."""
    now = datetime.now()  # noqa: DTZ005 - stamps are local time
    return [(now + timedelta(seconds=i)).strftime("%Y_%m_%d_%H_%M_%S") for i in range(seconds)]


def test_name_of_a_log_is_not_used_again(project: Project) -> None:
    """A run whose second belongs to an older log, whose run is gone, takes a later one and leaves that log alone."""
    (project.root / "logs").mkdir()
    taken = stamps_from_now(3)
    for stamp in taken:
        (project.root / "logs" / f"log_{stamp}.log").write_text("old\n", encoding="utf-8")
    log = project.step("data_loader").stdout.strip()

    assert stamp_of(log) > taken[-1]
    assert {(project.root / "logs" / f"log_{stamp}.log").read_text(encoding="utf-8") for stamp in taken} == {"old\n"}


def test_two_disks_and_one_storage(make_project: MakeProject, tmp_path: Path) -> None:
    """Runs started in the same second on different disks never share a name in the storage, and all are published."""
    projects = [make_project(name) for name in ("a", "b", "c")]
    place = tmp_path / "store"
    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(lambda each: each.pipeline(STORAGE_URL=f"file://{place}"), projects))

    assert [end.returncode for end in ends] == [0] * 3, "".join(end.stderr for end in ends)
    stamps = sorted(path.name for path in (place / "runs").iterdir())
    assert stamps == sorted(run.name for each in projects for run in each.runs())
    assert len(stamps) == 3
    assert latest_in(place) == stamps[-1]
    # What was begun under a taken name is gone.
    assert [len(list((each.root / "logs").iterdir())) for each in projects] == [1] * 3


@pytest.mark.parametrize("run_id", [{}, {"PIPELINE_RUN_ID": "x"}], ids=["by hand", "orchestrated"])
def test_taken_name_in_the_storage(project: Project, tmp_path: Path, run_id: dict[str, str]) -> None:
    """A new run takes a name that is free; a run that has its name already cannot be published, and removes nothing."""
    claims = tmp_path / "store" / "claims"
    claims.mkdir(parents=True)
    early = project.step("data_loader", **run_id, DATA_URL="missing.csv")
    (begun,) = project.runs()
    for stamp in [begun.name, *stamps_from_now(3)]:
        (claims / stamp).write_text("a run elsewhere", encoding="utf-8")
    url = f"file://{tmp_path}/store"
    done = project.step("data_loader", **run_id, STORAGE_URL=url)

    assert (early.returncode, done.returncode) == (78, 0)
    assert (claims / stamp_of(done.stdout.strip())).read_text(encoding="utf-8") != "a run elsewhere"
    assert len(project.runs()) == (1 if run_id else 2)
    # The log of the first try stays.
    assert "missing.csv" in (project.root / "logs" / f"log_{begun.name}.log").read_text(encoding="utf-8")
    if not run_id:
        log = str(project.root / "logs" / f"log_{begun.name}.log")
        again = project.step("data_loader", log, STORAGE_URL=url)
        assert again.returncode == 64
        assert "a run on a different disk has this name" in again.stderr
        for name in STEPS:
            assert project.step(name, log).returncode == 0
        assert project.step("evaluate", log, STORAGE_URL=url).returncode == 64
        assert not (tmp_path / "store" / "runs").exists()
        assert (claims / begun.name).read_text(encoding="utf-8") == "a run elsewhere"


@pytest.mark.parametrize("last_step", ["data_loader", "evaluate"])
def test_taken_name_removes_no_work(project: Project, tmp_path: Path, last_step: str) -> None:
    """A repeated load step never removes a run that has made something, whoever has its name in the storage."""
    claims = tmp_path / "store" / "claims"
    claims.mkdir(parents=True)
    log = project.run_steps(STEPS[: STEPS.index(last_step) + 1], PIPELINE_RUN_ID="x")
    (claims / stamp_of(log)).write_text("a run elsewhere", encoding="utf-8")
    before = (project.artifacts(), Path(log).stat().st_size)
    done = project.step("data_loader", PIPELINE_RUN_ID="x", STORAGE_URL=f"file://{tmp_path}/store")

    assert done.returncode == 64
    assert "start a new run" in done.stderr
    assert project.artifacts() == before[0]
    assert Path(log).stat().st_size > before[1]


def test_waiting_for_a_name(project: Project, tmp_path: Path) -> None:
    """As long as names are taken, one is tried each second, and nothing is left of them."""
    claims = tmp_path / "store" / "claims"
    claims.mkdir(parents=True)
    for stamp in stamps_from_now(4):
        (claims / stamp).write_text("a run elsewhere", encoding="utf-8")
    done = project.step("data_loader", STORAGE_URL=f"file://{tmp_path}/store")

    assert done.returncode == 0
    assert 3 <= done.stderr.count("starting again under a new one") <= 5
    assert len(list((project.root / "logs").iterdir())) == len(project.runs()) == 1


def test_starting_run_is_left_alone(project: Project) -> None:
    """Other steps, which prune, never touch a run that is just starting."""
    slow = project.root / "slow"
    slow.mkdir()
    code = (
        "import os, time\n"
        "fsync = os.fsync\n"
        "def later(handle):\n"
        "    time.sleep(0.5)\n"
        "    fsync(handle)\n"
        "os.fsync = later\n"
    )
    (slow / "sitecustomize.py").write_text(code, encoding="utf-8")
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(project.step, "data_loader", PYTHONPATH=str(slow))
        while not starting.done():
            assert project.step("data_loader", KEEP_RUNS="1").returncode == 0
    assert starting.result().returncode == 0, starting.result().stderr


def test_storage_is_tried_before_the_work(project: Project) -> None:
    """A storage that cannot be used stops the load step, with its exit code and a line in the log."""
    done = project.step("data_loader", STORAGE_URL="file:///proc/nowhere")
    (log,) = (project.root / "logs").iterdir()

    assert done.returncode == 74
    assert log.read_text(encoding="utf-8").splitlines()[-1] == done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("Asia/Tokyo", "UTC"), ("Etc/GMT+12", "Etc/GMT-14"), ("UTC", "UTC-26")])
def test_time_zones_do_not_order_runs(project: Project, tmp_path: Path, first: str, second: str) -> None:
    """latest.json and results/latest name the run that started last, whatever its local time."""
    url = f"file://{tmp_path}/store"
    for zones in ((first, second), (second, first)):
        logs = [project.chain(STORAGE_URL=url, TZ=zone) for zone in zones]
        assert latest_in(tmp_path / "store") == stamp_of(logs[1])
        assert (project.root / "results" / "latest").resolve().name == stamp_of(logs[1])
        assert project.step("evaluate", logs[0], STORAGE_URL=url).returncode == 0
        assert latest_in(tmp_path / "store") == stamp_of(logs[1])


@pytest.mark.slow
@pytest.mark.parametrize("shift", [timedelta(days=365), timedelta(minutes=6)], ids=str)
def test_clock_that_was_ahead(project: Project, tmp_path: Path, shift: timedelta) -> None:
    """A run from the future counts as the oldest: it hides no later run, pushes none out, and each one warns of it."""
    url = f"file://{tmp_path}/store"
    good = [project.chain(STORAGE_URL=url)]
    odd = project.chain(STORAGE_URL=url, PYTHONPATH=shifted_clock(project, shift))
    # While its clock is believed, it is the newest.
    assert latest_in(tmp_path / "store") == stamp_of(odd)
    for _ in range(2):
        good.append(project.chain(STORAGE_URL=url, KEEP_RUNS="3"))
        assert latest_in(tmp_path / "store") == stamp_of(good[-1])
        assert (project.root / "results" / "latest").resolve().name == stamp_of(good[-1])
        assert (project.root / "results" / "model.pkl").resolve().parent.name == stamp_of(good[-1])
    assert {run.name for run in project.runs()} == set(map(stamp_of, good))
    warnings = [line for line in Path(good[1]).read_text(encoding="utf-8").splitlines() if "WARNING" in line]
    assert [stamp_of(odd) in line and "the future" in line for line in warnings] == [True, True]


@pytest.mark.slow
def test_wrong_clock_stays_wrong(project: Project, tmp_path: Path) -> None:
    """A run whose start was in the future does not come into use when that time has come."""
    url = f"file://{tmp_path}/store"
    good = project.chain(STORAGE_URL=url)
    odd = project.chain(STORAGE_URL=url, PYTHONPATH=shifted_clock(project, timedelta(minutes=6)))
    last = project.chain(STORAGE_URL=url)
    later = shifted_clock(project, timedelta(minutes=7))
    for log in (good, odd, last):
        assert project.step("evaluate", log, STORAGE_URL=url, PYTHONPATH=later).returncode == 0
    assert latest_in(tmp_path / "store") == stamp_of(last)
    assert (project.root / "results" / "latest").resolve().name in {stamp_of(odd), stamp_of(last)}


@pytest.mark.slow
def test_clock_that_is_behind(project: Project, tmp_path: Path) -> None:
    """A run of a clock that is behind is promoted once at most: repeating it takes nothing back."""
    url, slow = f"file://{tmp_path}/store", shifted_clock(project, timedelta(minutes=-10))
    project.chain(STORAGE_URL=url)
    behind = project.chain(STORAGE_URL=url, PYTHONPATH=slow)
    last = project.chain(STORAGE_URL=url)
    assert latest_in(tmp_path / "store") == stamp_of(last)
    assert project.step("evaluate", behind, STORAGE_URL=url, PYTHONPATH=slow).returncode == 0
    assert latest_in(tmp_path / "store") == stamp_of(last)


def test_start_within_five_minutes_is_believed(project: Project) -> None:
    """A start two minutes ahead is accepted, because clocks differ a little."""
    ahead = project.chain(PYTHONPATH=shifted_clock(project, timedelta(minutes=2)))
    log = project.chain()

    said = Path(log).read_text(encoding="utf-8")
    assert "in the future" not in said
    assert f"[WARNING][evaluate]: [EVALUATE]: verdict: not worse: it started before run {stamp_of(ahead)}" in said
    assert (project.root / "results" / "latest").resolve().name == stamp_of(ahead)


@pytest.mark.slow
def test_roll_back_lasts_until_a_newer_run(project: Project, tmp_path: Path) -> None:
    """Repeating the evaluation of any older run does not undo a roll-back; the next new run does."""
    url = f"file://{tmp_path}/store"
    logs = [project.chain(STORAGE_URL=url) for _ in range(3)]
    assert project.step("runs", "rollback", url, stamp_of(logs[0])).returncode == 0
    for log in (*logs, *reversed(logs)):
        assert project.step("evaluate", log, STORAGE_URL=url).returncode == 0
        assert latest_in(tmp_path / "store") == stamp_of(logs[0])
        assert (project.root / "results" / "latest").resolve().name == stamp_of(logs[0])
    assert project.step("runs", "verify", f"{url}/latest.json").returncode == 0
    new = project.chain(STORAGE_URL=url)
    assert latest_in(tmp_path / "store") == stamp_of(new)
    records = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "store" / "promotions").iterdir())]
    assert [(record["number"], record["act"]) for record in records] == [
        *((1, "gate"), (2, "gate"), (3, "gate"), (4, "rollback"), (5, "gate"))
    ]
    assert (tmp_path / "store" / "latest.json").read_bytes() == (
        tmp_path / "store" / "promotions" / "5.json"
    ).read_bytes()


def test_latest_that_is_behind_or_damaged_is_repaired(project: Project, run_up_to: RunUpTo, tmp_path: Path) -> None:
    """latest.json is a copy of the highest record; whatever else it is, the next publication repairs it."""
    project.shorten_wait("SECONDS_TO_COPY = 1", "SECONDS_TO_COPY = 0.1")
    store = tmp_path / "store"
    log = run_up_to("evaluate")
    numbers = ["x", -5, 7, 10**400]
    odd = [json.dumps({"run": "2020_01_01_00_00_00", "number": number}).encode() for number in numbers]
    for content in (None, b"", b"{", b'{"run": 3}', b"[" * 10_000, *odd):
        if content is not None:
            (store / "latest.json").write_bytes(content)
        assert project.step("evaluate", log, STORAGE_URL=f"file://{store}").returncode == 0
        assert (store / "latest.json").read_bytes() == (store / "promotions" / "1.json").read_bytes()
    later = json.loads((store / "promotions" / "1.json").read_bytes()) | {"number": 2, "act": "roll-back"}
    (store / "promotions" / "2.json").write_text(json.dumps(later), encoding="utf-8")
    assert project.step("evaluate", log, STORAGE_URL=f"file://{store}").returncode == 0
    assert json.loads((store / "latest.json").read_bytes()) == later


@pytest.mark.parametrize("content", [b"", b'{"run": 3}'])
def test_record_that_cannot_be_read(project: Project, run_up_to: RunUpTo, tmp_path: Path, content: bytes) -> None:
    """A record that cannot be read keeps its number, changes nothing, and stops no publication."""
    store = tmp_path / "store"
    (store / "promotions").mkdir(parents=True)
    for number in (1, 3, 4):
        (store / "promotions" / f"{number}.json").write_bytes(content)
    log = run_up_to("evaluate")
    for number in (2, 5):
        # The second time, a roll-back follows: publishing a run again does not promote it.
        done = (
            project.step("evaluate", log, STORAGE_URL=f"file://{store}")
            if number == 2
            else project.step("runs", "rollback", f"file://{store}", stamp_of(log))
        )
        assert done.returncode == 0, done.stderr
        record = (store / "promotions" / f"{number}.json").read_bytes()
        assert json.loads(record)["number"] == number
        assert (store / "latest.json").read_bytes() == record
    assert len(list((store / "promotions").iterdir())) == 5


def test_roll_back_by_a_clock_that_is_behind(project: Project, run_up_to: RunUpTo, tmp_path: Path) -> None:
    """A roll-back lasts, whatever the clock of the machine from which it was asked for."""
    store = tmp_path / "store"
    log = run_up_to("evaluate")
    assert project.step("evaluate", log, STORAGE_URL=f"file://{store}").returncode == 0
    older = store / "runs" / "2020_01_01_00_00_00"
    shutil.copytree(store / "runs" / stamp_of(log), older)
    (older / f"log_{stamp_of(log)}.log").rename(older / f"log_{older.name}.log")
    path = older / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace(stamp_of(log), older.name), encoding="utf-8")
    change_manifest(older, started="2020-01-01T00:00:00+00:00")
    clock = shifted_clock(project, timedelta(days=-3))
    assert project.step("runs", "rollback", f"file://{store}", older.name, PYTHONPATH=clock).returncode == 0
    assert project.step("evaluate", log, STORAGE_URL=f"file://{store}").returncode == 0
    assert latest_in(store) == older.name


def test_slow_copy_does_not_replace_a_newer_one(project: Project, tmp_path: Path) -> None:
    """A process that copies its record late does not take latest.json back from a run that was published meanwhile."""
    store, slow = tmp_path / "store", project.root / "slow"
    slow.mkdir()
    code = (
        "import shutil, time\n"
        "move = shutil.move\n"
        "def later(source, target, *rest, **options):\n"
        "    time.sleep(0.5 if str(target).endswith('latest.json') else 0)\n"
        "    return move(source, target, *rest, **options)\n"
        "shutil.move = later\n"
    )
    (slow / "sitecustomize.py").write_text(code, encoding="utf-8")
    before = stamp_of(project.chain(STORAGE_URL=f"file://{store}"))
    log = project.run_steps(STEPS[:-1])
    seen: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(project.step, "evaluate", log, STORAGE_URL=f"file://{store}", PYTHONPATH=str(slow))
        while not (store / "promotions" / "2.json").exists():
            time.sleep(0.01)
        second = pool.submit(promotions.roll_back, f"file://{store}", before, None, None)
        while not (first.done() and second.done()):
            if (store / "latest.json").exists():
                seen.append(json.loads((store / "latest.json").read_bytes())["number"])
    assert first.result().returncode == 0
    assert second.result() == before
    assert seen == sorted(seen)
    assert seen[-1] == 3


def test_storage_of_an_older_version(project: Project, run_up_to: RunUpTo, tmp_path: Path) -> None:
    """What latest.json of an older version names is in use until a newer run comes; its runs keep their names."""
    store = tmp_path / "store"
    log = run_up_to("evaluate")
    assert project.step("evaluate", log, STORAGE_URL=f"file://{store}").returncode == 0
    latest = json.loads((store / "latest.json").read_bytes())
    rolled_back = {name: latest[name] for name in ("manifest", "manifest_sha256", "metrics")} | {
        "run": "2020_01_01_00_00_00",
        "started": "2020-01-01T00:00:00+00:00",
    }
    for folder in ("promotions", "claims"):
        shutil.rmtree(store / folder)
    (store / "latest.json").write_text(json.dumps(rolled_back), encoding="utf-8")
    for path in (project.runs()[0], store / "runs" / stamp_of(log)):
        record = json.loads((path / "manifest.json").read_bytes())
        del record["id"]
        (path / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
    assert project.step("evaluate", log, STORAGE_URL=f"file://{store}").returncode == 0
    assert latest_in(store) == "2020_01_01_00_00_00"

    done = project.step("runs", "promote", f"file://{store}", stamp_of(log), "--reason", "it is newer")
    assert done.returncode == 0, done.stderr
    assert latest_in(store) == stamp_of(log)

    for stamp in stamps_from_now(3):
        shutil.copytree(store / "runs" / stamp_of(log), store / "runs" / stamp)
        path = store / "runs" / stamp / "manifest.json"
        path.write_text(path.read_text(encoding="utf-8").replace(stamp_of(log), stamp), encoding="utf-8")
    new = project.chain(STORAGE_URL=f"file://{store}")
    assert latest_in(store) == stamp_of(new) == max(path.name for path in (store / "runs").iterdir())


def test_copy_under_a_different_name_is_not_a_run(project: Project, run_up_to: RunUpTo, tmp_path: Path) -> None:
    """A manifest counts only under its own name, in the storage and on this disk."""
    url, store = f"file://{tmp_path}/store", tmp_path / "store"
    log = run_up_to("evaluate")
    assert project.step("evaluate", log, STORAGE_URL=url).returncode == 0
    own, copy = stamp_of(log), "2030_01_01_00_00_00"
    shutil.copytree(store / "runs" / own, store / "runs" / copy)
    (project.root / "logs" / f"log_{copy}.log").touch()
    shutil.copytree(project.runs()[0], project.runs()[0].parent / copy)
    (store / "latest.json").unlink()
    assert project.step("evaluate", log, STORAGE_URL=url).returncode == 0

    assert json.loads((store / "latest.json").read_bytes())["manifest"] == f"runs/{own}/manifest.json"
    for name in (f"{url}/runs/{copy}", copy, str(project.root / "results" / "runs" / copy)):
        done = project.step("runs", "verify", name)
        assert done.returncode == 65, done.stderr
    assert project.step("runs", "rollback", url, copy).returncode == 65
    assert project.step("transform", str(project.root / "logs" / f"log_{copy}.log")).returncode == 65
    assert (project.root / "results" / "latest").resolve().name == own


@pytest.mark.slow
def test_good_and_failed_runs_are_counted_apart(project: Project) -> None:
    """Failed runs never cause finished ones to be removed, nor the reverse."""
    good = [stamp_of(project.chain(KEEP_RUNS="3")) for _ in range(3)]
    for _ in range(5):
        assert project.step("data_loader", DATA_URL="missing.csv", KEEP_RUNS="3").returncode == 78
    names = [run.name for run in project.runs()]
    assert names[:3] == good
    assert len(names) == 6
    new = stamp_of(project.chain(KEEP_RUNS="3"))
    assert [run.name for run in project.runs()] == [*good[1:], *names[3:], new]


@pytest.mark.slow
def test_run_is_kept_until_its_caller_has_read_it(project: Project) -> None:
    """A run that an orchestrator named is not pruned before its result was read."""
    log = project.chain(KEEP_RUNS="1", PIPELINE_RUN_ID="a")
    for _ in range(3):
        project.chain(KEEP_RUNS="1")
    assert (project.runs()[0].name, len(project.runs())) == (stamp_of(log), 3)

    assert project.run([sys.executable, str(project.root / "bin" / "ask.py"), "results", log]).returncode == 0
    newest = project.chain(KEEP_RUNS="1")
    assert (project.runs()[-1].name, len(project.runs())) == (stamp_of(newest), 2)


@pytest.mark.slow
def test_many_runs_at_once_with_room_for_one(project: Project) -> None:
    """Every run that succeeds prints its result, even if only one is kept."""
    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(lambda _: project.pipeline(KEEP_RUNS="1"), range(6)))

    assert [end.returncode for end in ends] == [0] * 6, "".join(end.stderr for end in ends)
    assert all("accuracy: 0.99" in end.stdout for end in ends)


@pytest.mark.parametrize("name", ["data_loader", "evaluate"])
def test_lock_that_is_held_for_ever(project: Project, run_up_to: RunUpTo, name: str) -> None:
    """A step waits for the lock of results/ for a bounded time, then ends with 75 and names the lock."""
    project.shorten_wait("SECONDS_FOR_LOCK = 30", "SECONDS_FOR_LOCK = 1")
    log = run_up_to("train")
    lock = project.root / "results" / ".lock"
    with lock.open("r") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        done = project.step(name, *([] if name == "data_loader" else [log]))
    assert done.returncode == 75
    assert f"{lock}: another process has held this lock for 1 s" in done.stderr.splitlines()[-1]
    assert project.step("evaluate", log).returncode == 0


def test_locks_belong_to_their_owner(project: Project) -> None:
    """Nobody else may open a lock, and so hold it; one that an older version made for all is closed."""
    (project.root / "results").mkdir()
    (project.root / "results" / ".lock").touch(mode=0o666)
    assert project.step("data_loader").returncode == 0
    locks = [project.root / "results" / ".lock", project.runs()[0] / ".lock"]
    assert [oct(lock.stat().st_mode & 0o777) for lock in locks] == ["0o600"] * 2


def test_run_of_a_different_user_is_left_alone(project: Project) -> None:
    """A run whose lock cannot be opened is not removed, and stops no step."""
    folder = project.root / "denied"
    folder.mkdir()
    assert project.step("data_loader", DATA_URL="missing.csv").returncode == 78
    (old,) = project.runs()
    (old.parent / f".scratch_{old.name}_x").mkdir()
    code = (
        "import os\n"
        "real = os.open\n"
        "def refuse(path, *rest, **options):\n"
        f"    if str(path).endswith('{old.name}/.lock'):\n"
        "        raise PermissionError(13, 'Permission denied', str(path))\n"
        "    return real(path, *rest, **options)\n"
        "os.open = refuse\n"
    )
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    assert project.step("data_loader", DATA_URL="missing.csv").returncode == 78
    done = project.step("data_loader", KEEP_RUNS="1", PYTHONPATH=str(folder))

    assert done.returncode == 0, done.stderr
    assert f"run {old.name} could not be removed" in done.stderr
    assert old in project.runs()


def test_stopped_step_holds_up_its_own_run_only(project: Project, run_up_to: RunUpTo) -> None:
    """While a step is paused, other runs continue; a second step of its run is refused."""
    log = run_up_to("transform")
    command = [sys.executable, str(project.root / "etl" / "train.py"), log]
    with subprocess.Popen(command, env=project.environment(), stderr=subprocess.PIPE) as step:
        assert step.stderr
        step.stderr.readline()
        time.sleep(0.3)
        step.send_signal(signal.SIGSTOP)
        try:
            done = project.step("train", log)
            other = project.step("data_loader")
        finally:
            step.kill()
    assert done.returncode == 75
    assert other.returncode == 0


def test_state_in_a_different_folder(project: Project, tmp_path: Path) -> None:
    """With STATE_DIR, everything that runs write is in that folder, and the scripts find it there."""
    state = tmp_path / "the state"
    before = sorted(project.root.rglob("*"))
    # matplotlib keeps a list of the fonts in the home folder.
    done = project.pipeline(STATE_DIR=str(state), PYTHONDONTWRITEBYTECODE="1", HOME=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert f"Results: {state}/results/runs/" in done.stdout
    assert sorted(project.root.rglob("*")) == before
    assert {path.name for path in state.iterdir()} == {"logs", "results"}
    (run,) = (state / "results" / "runs").glob("2*")
    assert project.step("runs", "verify", run.name, STATE_DIR=str(state)).returncode == 0
    assert run.name in project.step("runs", "list", STATE_DIR=str(state)).stdout
    (project.root / ".env").write_text("STATE_DIR='state of mine'\n", encoding="utf-8")
    assert project.step("data_loader", cwd=tmp_path).stdout.startswith(f"{project.root}/state of mine/logs/log_")


@pytest.mark.parametrize(
    "folder",
    [
        "bundles/mine/versions/0123456789abcdef0123456789abcdef01234567",
        "bundles/mine/versions/0123456789abcdef0123456789abcdef01234567/sub/folder",
        "mine/tracking_repo",
        "airflow/dag_bundles/mine",
    ],
)
def test_folder_that_airflow_removes(make_project: MakeProject, tmp_path: Path, folder: str) -> None:
    """In the checkout of an Airflow bundle nothing runs without a STATE_DIR."""
    project = make_project(folder)
    for done in (project.pipeline(), project.step("transform", "x"), project.step("runs", "list")):
        assert done.returncode == 78
        assert "STATE_DIR (set by the default): expected a full path outside" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert project.step("data_loader", "--help").returncode == 0
    for inside in (".", "state", str(project.root / "state")):
        assert project.step("data_loader", STATE_DIR=inside).returncode == 78
    assert not (project.root / "logs").exists()
    assert project.step("data_loader", STATE_DIR=str(tmp_path / "state")).returncode == 0


def test_state_that_cannot_be_written(project: Project, tmp_path: Path) -> None:
    """A STATE_DIR that is not a folder, or cannot be written, is a wrong setting."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for place in (
        f"{tmp_path}/file",
        "/proc/nowhere",
        "/dev/null/x",
        f"{tmp_path}/loop",
        "/" + "x" * 300,
        "~nobody_x/y",
    ):
        done = project.step("data_loader", STATE_DIR=place)
        assert done.returncode == 78, done.stderr
        assert place in done.stderr
        assert len(done.stderr.splitlines()) == 1
