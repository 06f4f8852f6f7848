"""Workers without a shared disk (RUNS_URL): any machine may do any step of a run, after any failure."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import fsspec
import pytest
from conftest import ARTIFACTS, STEPS, Completed, Project, is_verified, wait_until
from misbehaving import serve
from object_store import STORES, ObjectStore

ONE_LINE = re.compile(r"(\[[^]]*\]){3}: \[\w+\]: .*")
# Pauses in the named function until the file `go` exists.
PAUSE = """
import sys, time
from pathlib import Path
from steplib.{module} import {function} as really
import steplib.{module} as module
def wait(*arguments, **named):
    Path({waiting!r}).touch()
    while not Path({go!r}).exists():
        time.sleep(0.02)
    return really(*arguments, **named)
module.{function} = wait
"""


# What does not depend on the store is tried on a disk, which is quicker.
on_disk = pytest.mark.parametrize("running", ["disk"], indirect=True)


def each_step(*on_stores: str) -> pytest.MarkDecorator:
    """Try all steps on a disk, and some on each store."""
    cases = [("disk", step) for step in STEPS] + [(store, step) for store in STORES for step in on_stores]
    return pytest.mark.parametrize(("running", "step"), cases, indirect=["running"])


class Place(NamedTuple):
    """Where runs are between steps, and where they are published."""

    files: "Callable[[], fsspec.AbstractFileSystem]"
    settings: dict[str, str]

    @property
    def runs(self) -> str:
        """RUNS_URL."""
        return self.settings["RUNS_URL"]

    def content(self) -> dict[str, bytes]:
        """Return all objects under RUNS_URL by their names."""
        files = self.files()
        root = files._strip_protocol(self.runs)
        return {path.removeprefix(root): files.cat_file(path) for path in files.find(root)}

    def manifest(self, stamp: str) -> dict[str, object]:
        """Return the highest manifest of a run."""
        found = {int(name.split("/")[3][:-5]): text for name, text in self.content().items() if f"{stamp}/man" in name}
        return dict(json.loads(found[max(found)]))

    def promotions(self) -> list[str]:
        """Return the runs that came into use, in order."""
        files = self.files()
        paths = sorted(files.ls(f"{self.settings['STORAGE_URL']}/promotions", detail=False))
        return [json.loads(files.cat_file(path))["run"] for path in paths]


@pytest.fixture(scope="module", params=["disk", *STORES])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore | None]:
    """Run a store for the tests of this module; a folder needs none."""
    if request.param == "disk":
        yield None
        return
    store = STORES[request.param](tmp_path_factory.mktemp(request.param))
    try:
        store.start()
        yield store
    finally:
        store.stop()


@pytest.fixture
def place(request: pytest.FixtureRequest, running: ObjectStore | None, tmp_path: Path) -> Place:
    """Return a separate place for each test."""
    name = re.sub(r"\W", "_", request.node.name)
    root = f"{running.scheme}://bucket/{name}" if running else f"file://{tmp_path}/{name}"
    settings = {"RUNS_URL": f"{root}/runs", "STORAGE_URL": f"{root}/published", "PIPELINE_RUN_ID": "dag/run: 1"}
    if running:
        return Place(running.files, settings | running.environment)
    return Place(lambda: fsspec.filesystem("file"), settings)


@pytest.fixture
def workers(make_project: Callable[[str], Project]) -> list[Project]:
    """Return three copies of the project in different folders."""
    return [make_project(name) for name in ("worker a", "рабочий b", "c")]


def take(worker: Project, step: str, log: str, place: Place, **settings: str) -> Completed:
    """Run a step on a worker; without a log, the first step."""
    return worker.step(step, *([log] if log else []), **place.settings, **settings)


def take_all(workers: list[Project], steps: tuple[str, ...], log: str, place: Place) -> str:
    """Run steps on the workers in turn, which must succeed; return the log's path on the last one."""
    for number, step in enumerate(steps):
        done = take(workers[number % len(workers)], step, log, place)
        assert done.returncode == 0, done.stderr
        log = done.stdout.strip()
    return log


def stamp_of(log: str) -> str:
    """Return the run's name."""
    return Path(log).stem.removeprefix("log_")


def test_each_step_on_another_worker(workers: list[Project], place: Place) -> None:
    """The run is published whole, with one whole log and the results that a single machine computes."""
    log = take_all(workers[:2], STEPS, "", place)
    alone = workers[2].chain()

    assert log.startswith(str(workers[1].root))
    said = Path(log).read_text(encoding="utf-8")
    assert [said.count(f"[{step}]: [{step.upper()}]: started") for step in STEPS] == [1, 1, 1, 1]
    published = f"{place.settings['STORAGE_URL']}/runs/{stamp_of(log)}"
    copy = place.files().cat_file(f"{published}/{Path(log).name}").decode()
    assert said.startswith(copy)
    assert copy.splitlines()[-1].rpartition(" in ")[0].endswith("[EVALUATE]: done")
    # The page names its run, and the versions of the packages that were imported.
    for name in ARTIFACTS - {"model.pkl"}:
        assert place.files().cat_file(f"{published}/{name}") == (workers[2].root / "results" / name).read_bytes(), alone
    page = place.files().cat_file(f"{published}/report.html").decode()
    own = (workers[2].root / "results" / "report.html").read_text(encoding="utf-8")
    shown, expected = page.replace(stamp_of(log), ""), own.replace(stamp_of(alone), "")
    assert shown.partition("<td>versions</td>")[0] == expected.partition("<td>versions</td>")[0]
    latest = f"{place.settings['STORAGE_URL']}/latest.json"
    assert is_verified(workers[2].step("runs", "verify", latest, **place.settings))


@on_disk
def test_each_artifact_is_stored_once(workers: list[Project], place: Place) -> None:
    """RUNS_URL has each artifact under its hash, the highest manifest names them, and the pieces make up the log."""
    log = take_all(workers[:2], STEPS, "", place)
    content, artifacts = place.content(), place.manifest(stamp_of(log))["artifacts"]
    stored = {name: data for name, data in content.items() if "/files/" in name}

    assert {name.rpartition("/")[2] for name in stored} == {made["sha256"] for made in artifacts.values()}
    assert all(hashlib.sha256(data).hexdigest() == name.rpartition("/")[2] for name, data in stored.items())
    pieces = {int(re.sub(r".*/log/(\d+)\.log", r"\1", name)): data for name, data in content.items() if "/log/" in name}
    assert len(pieces) == len(STEPS)
    assert b"".join(pieces[n] for n in sorted(pieces)) == Path(log).read_bytes()


def test_repeated_load_finds_its_run(workers: list[Project], place: Place) -> None:
    """A load that is tried again on a different worker continues the same run and log."""
    with serve() as source:
        address = f"http://127.0.0.1:{source.server_port}/second_time_good"
        failed = take(workers[0], "data_loader", "", place, DATA_URL=address)
        done = take(workers[1], "data_loader", "", place, DATA_URL=address)

    assert failed.returncode == 75, failed.stderr
    assert done.returncode == 0, done.stderr
    log = Path(done.stdout.strip())
    assert [stamp_of(str(path)) for path in workers[0].root.glob("logs/*")] == [stamp_of(str(log))]
    said = log.read_text(encoding="utf-8")
    assert said.count("started") == 2
    assert said.count("[ERROR]") == 1


def start(
    worker: Project, step: str, log: str, place: Place, tmp_path: Path, **settings: str
) -> "subprocess.Popen[str]":
    """Start a step that waits in the middle until `go` exists, and wait until it does."""
    modules = {"data_loader": "table.csvfile", "transform": "table.cleaning", "train": "model.training"}
    functions = {
        "data_loader": "check_head",
        "transform": "clean",
        "train": "read_training_rows",
        "evaluate": "measure",
    }
    code = PAUSE.format(
        module=modules.get(step, "model.scoring"),
        function=functions[step],
        waiting=str(tmp_path / "waiting"),
        go=str(tmp_path / "go"),
    )
    folder = tmp_path / "pause"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.path.insert(0, {str(worker.root / 'etl')!r})\n{code}", encoding="utf-8"
    )
    process = subprocess.Popen(
        [sys.executable, str(worker.root / "etl" / f"{step}.py"), *([log] if log else [])],
        env=worker.environment(**place.settings, PYTHONPATH=str(folder), **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "waiting").exists)
    return process


@each_step("train")
def test_worker_that_is_lost(workers: list[Project], place: Place, tmp_path: Path, step: str) -> None:
    """A worker that is killed in the middle of a step, and its disk removed, is replaced by a different one."""
    before = STEPS[: STEPS.index(step)]
    log = take_all(workers[:1], before, "", place)
    process = start(workers[0], step, log, place, tmp_path)
    process.kill()
    process.communicate()
    shutil.rmtree(workers[0].root)
    log = take_all(workers[1:], STEPS[len(before) :], log, place)

    assert place.promotions() == [stamp_of(log)]
    assert is_verified(
        workers[1].step("runs", "verify", f"{place.settings['STORAGE_URL']}/latest.json", **place.settings)
    )
    assert [f"[{name}]" in Path(log).read_text(encoding="utf-8") for name in STEPS] == [True] * 4


@each_step("train", "evaluate")
def test_worker_that_returns(workers: list[Project], place: Place, tmp_path: Path, step: str) -> None:
    """A worker whose run was taken over while it was cut off ends with 75 and changes nothing."""
    log = take_all(workers[:1], STEPS[: STEPS.index(step)], "", place)
    process = start(workers[0], step, log, place, tmp_path)
    process.send_signal(signal.SIGSTOP)
    log = take_all(workers[1:], STEPS[STEPS.index(step) :], log, place)
    before, promotions = place.content(), place.promotions()
    (tmp_path / "go").touch()
    process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=100)

    assert process.returncode == 75, stderr
    assert "a different attempt has taken over this run" in stderr.splitlines()[-1]
    assert all(ONE_LINE.fullmatch(line) for line in stderr.splitlines()), stderr
    assert stdout == ""
    assert place.content() == before
    assert place.promotions() == promotions == [stamp_of(log)]


def test_simultaneous_attempts(workers: list[Project], place: Place) -> None:
    """Of two attempts at one step at the same moment, one continues and the other ends with 75."""
    log = take_all(workers[:1], STEPS[:2], "", place)
    attempts = [
        subprocess.Popen(
            [sys.executable, str(worker.root / "etl" / "train.py"), log],
            env=worker.environment(**place.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for worker in workers[1:]
    ]
    ended = [(attempt.communicate(timeout=100), attempt.returncode) for attempt in attempts]

    codes = sorted(code for _, code in ended)
    assert codes in ([0, 0], [0, 75]), ended  # one may have ended before the other began
    assert take_all(workers, STEPS[3:], log, place)
    assert len(place.promotions()) == 1


def test_two_machines_start_in_the_same_second(workers: list[Project], place: Place) -> None:
    """Runs that start in the same second on different machines get different names, and both end well."""
    for _ in range(5):
        time.sleep(1 - time.time() % 1)
        begun = [
            subprocess.Popen(
                [sys.executable, str(worker.root / "etl" / "data_loader.py")],
                env=worker.environment(**place.settings | {"PIPELINE_RUN_ID": str(worker.root)}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for worker in workers[:2]
        ]
        ended = [process.communicate(timeout=100) for process in begun]
        assert [process.returncode for process in begun] == [0, 0], ended
        logs = [stdout.strip() for stdout, _ in ended]
        assert stamp_of(logs[0]) != stamp_of(logs[1])
        if "this name is taken" in ended[0][1] + ended[1][1]:
            return
        for worker in workers[:2]:
            shutil.rmtree(worker.root / "results")
            shutil.rmtree(worker.root / "logs")
        place.files().rm(f"{place.runs}/names", recursive=True)
    pytest.fail("never in the same second")


@each_step("evaluate")
def test_step_of_a_finished_run(workers: list[Project], place: Place, step: str) -> None:
    """A step that is repeated on a worker which never had the run ends with 0 and changes nothing."""
    log = take_all(workers[:2], STEPS, "", place)
    before, promotions = place.content(), place.promotions()
    done = take(workers[2], step, "" if step == "data_loader" else log, place)

    assert done.returncode == 0, done.stderr
    assert stamp_of(done.stdout.strip()) == stamp_of(log)
    assert place.content() == before
    assert place.promotions() == promotions


@on_disk
def test_changed_source_of_a_finished_run(workers: list[Project], place: Place) -> None:
    """A load that would change a finished run ends with 64 and changes nothing."""
    log = take_all(workers[:2], STEPS, "", place)
    before = place.content()
    rows = (workers[2].root / "data" / "wdbc.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (workers[2].root / "fewer.csv").write_text("".join(rows[:-1]), encoding="utf-8")
    done = take(workers[2], "data_loader", log, place, DATA_URL="fewer.csv")

    assert done.returncode == 64, done.stderr
    assert "raw_data.csv: run" in done.stderr
    assert place.content() == before


@on_disk
@pytest.mark.parametrize("fault", ["changed", "removed"])
def test_damaged_artifact(workers: list[Project], place: Place, fault: str) -> None:
    """An input that RUNS_URL no longer has as it was recorded is refused, and the message says which step to repeat."""
    log = take_all(workers[:1], STEPS[:3], "", place)
    made = place.manifest(stamp_of(log))["artifacts"]["model.pkl"]  # type: ignore[index]
    path = f"{place.runs}/{stamp_of(log)}/files/{made['sha256']}"
    place.files().rm_file(path)
    if fault == "changed":
        place.files().pipe_file(path, bytes(made["bytes"]))
    done = take(workers[1], "evaluate", log, place)

    assert done.returncode == 65, done.stderr
    assert "model.pkl: expected what train recorded" in done.stderr
    if fault == "removed":
        assert take(workers[1], "train", log, place).returncode == 0
        assert take(workers[0], "evaluate", log, place).returncode == 0


def test_old_runs_are_removed(workers: list[Project], place: Place) -> None:
    """KEEP_RUNS limits the runs in RUNS_URL too; a step of a run that is gone says so."""
    logs = []
    for number in range(3):
        place.settings["PIPELINE_RUN_ID"] = str(number)
        logs.append(take_all(workers[number:] + workers[:number], STEPS[:3], "", place))
        done = take(workers[number], "evaluate", logs[-1], place, KEEP_RUNS="2")
        assert done.returncode == 0, done.stderr
        assert "[WARNING]" not in done.stderr
    left = {name.split("/")[1] for name in place.content()} - {"names"}

    assert left == {stamp_of(log) for log in logs[1:]}
    assert sum("/names/" in name for name in place.content()) == 2
    gone = take(workers[1], "evaluate", logs[0], place)
    assert gone.returncode == 64
    assert f"{place.runs} has no run {stamp_of(logs[0])}, or it has been removed; start a new run" in gone.stderr


@on_disk
def test_interrupted_removal(workers: list[Project], place: Place) -> None:
    """A run whose removal was interrupted is not continued, and the next pruning removes what is left."""
    log = take_all(workers[:1], STEPS[:2], "", place)
    number = max(int(name.split("/")[3][:-5]) for name in place.content() if "/manifest/" in name)
    marked = place.manifest(stamp_of(log)) | {"removed": "2026-11-22T00:00:00+00:00"}
    place.files().pipe_file(f"{place.runs}/{stamp_of(log)}/manifest/{number + 1}.json", json.dumps(marked).encode())
    refused = take(workers[1], "train", log, place)
    place.settings["PIPELINE_RUN_ID"] = "a new one"
    later = take_all(workers[1:], STEPS, "", place)

    assert refused.returncode == 64, refused.stderr
    assert "or it has been removed" in refused.stderr
    assert {name.split("/")[1] for name in place.content()} - {"names"} == {stamp_of(later)}


@on_disk
def test_log_of_a_killed_attempt_on_the_same_disk(workers: list[Project], place: Place, tmp_path: Path) -> None:
    """What a killed attempt has logged is kept if its own worker repeats the step."""
    log = take_all(workers[:1], STEPS[:2], "", place)
    process = start(workers[0], "train", log, place, tmp_path)
    process.kill()
    process.communicate()
    log = take_all([workers[0], workers[1]], STEPS[2:], log, place)

    assert Path(log).read_text(encoding="utf-8").count("[TRAIN]: started") == 2


@on_disk
def test_run_of_this_disk_alone(workers: list[Project], place: Place) -> None:
    """A run on this disk that has the same name as a different run in RUNS_URL stays as it is."""
    log = take_all(workers[:1], STEPS[:2], "", place)
    folder = workers[1].root / "results" / "runs" / stamp_of(log)
    shutil.copytree(workers[0].root / "results" / "runs" / stamp_of(log), folder)
    record = json.loads((folder / "manifest.json").read_bytes()) | {"id": "different"}
    (folder / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = take(workers[1], "train", log, place)

    assert done.returncode == 64
    assert "a run on a different disk has this name" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@on_disk
def test_unknown_run(workers: list[Project], place: Place) -> None:
    """A log whose run RUNS_URL does not have is refused, and leaves nothing on this disk."""
    done = take(workers[0], "transform", "/elsewhere/logs/log_2020_01_01_00_00_00.log", place)

    assert done.returncode == 64
    assert f"{place.runs} has no run 2020_01_01_00_00_00, or it has been removed; start a new run" in done.stderr
    assert workers[0].runs() == []
    assert list(workers[0].root.glob("logs/*")) == []


@on_disk
def test_published_runs_beside_it(workers: list[Project], place: Place) -> None:
    """Removing old runs from RUNS_URL removes no published one, if one place is inside the other."""
    place.settings["RUNS_URL"] = f"{place.settings['STORAGE_URL']}/runs"
    stamps = []
    for number in range(2):
        place.settings["PIPELINE_RUN_ID"] = str(number)
        log = take_all(workers[:1], STEPS[:3], "", place)
        assert take(workers[1], "evaluate", log, place, KEEP_RUNS="1").returncode == 0
        stamps.append(stamp_of(log))

    names = {name for name in place.content() if f"/{stamps[0]}/" in name}
    files = (*ARTIFACTS, "report.html", "manifest.json", f"log_{stamps[0]}.log")
    assert names == {f"/{stamps[0]}/{name}" for name in files}
    assert is_verified(workers[0].step("runs", "verify", f"{place.runs}/{stamps[0]}", **place.settings))


@on_disk
def test_running_step_is_not_removed(workers: list[Project], place: Place, tmp_path: Path) -> None:
    """A run that failed before, but in which a step is working, is not an old one."""
    log = take_all(workers[:1], STEPS[:2], "", place)
    assert take(workers[0], "evaluate", log, place).returncode == 64
    process = start(workers[0], "train", log, place, tmp_path)
    place.settings["PIPELINE_RUN_ID"] = "another"
    for _ in range(2):
        assert take(workers[1], "data_loader", "", place, DATA_URL="bin/ask.py", KEEP_RUNS="1").returncode == 65
        place.settings["PIPELINE_RUN_ID"] += "."
    (tmp_path / "go").touch()
    _, stderr = process.communicate(timeout=100)

    assert process.returncode == 0, stderr
    assert take(workers[2], "evaluate", log, place).returncode == 0


@on_disk
@pytest.mark.parametrize("content", [b"", b"../../etc", b"\xff"])
def test_damaged_name(workers: list[Project], place: Place, content: bytes) -> None:
    """A damaged record of an orchestrator's name is exit 65 and one line."""
    take_all(workers[:1], STEPS[:1], "", place)
    (path,) = place.files().find(f"{place.runs}/names")
    place.files().pipe_file(path, content)
    done = take(workers[1], "data_loader", "", place)

    assert done.returncode == 65
    assert done.stderr.rstrip().endswith("expected the stamp of a run, found something else; remove this object")
    assert len(done.stderr.splitlines()) == 1


@on_disk
@pytest.mark.parametrize("damage", [{"run_id": 5}, {"x": 10**400}, {"run_id": "\ud800"}, {"id": None}, {"steps": 1}])
def test_damaged_manifest_of_an_old_run(workers: list[Project], place: Place, damage: dict[str, object]) -> None:
    """However damaged an old run is, removing old runs does not make a later one fail."""
    stamps = []
    for number in range(2):
        place.settings["PIPELINE_RUN_ID"] = str(number)
        log = take_all(workers[:1], STEPS[:3], "", place)
        if number:
            done = take(workers[1], "evaluate", log, place, KEEP_RUNS="1")
            assert done.returncode == 0, done.stderr
            break
        stamps.append(stamp_of(log))
        text = json.dumps(place.manifest(stamps[0]) | damage).replace(f"{10**400}", "1e999")
        place.files().pipe_file(f"{place.runs}/{stamps[0]}/manifest/99.json", text.encode())


@on_disk
def test_load_of_a_run_that_has_been_removed(workers: list[Project], place: Place) -> None:
    """A load of a removed run starts a new run for the same PIPELINE_RUN_ID, which every worker then finds."""
    first = take_all(workers[:1], STEPS, "", place)
    place.files().rm(f"{place.runs}/{stamp_of(first)}", recursive=True)
    place.files().rm(f"{place.runs}/names", recursive=True)
    second = take(workers[1], "data_loader", "", place)
    third = take(workers[0], "data_loader", "", place)

    assert second.returncode == third.returncode == 0, third.stderr
    assert stamp_of(second.stdout.strip()) == stamp_of(third.stdout.strip()) != stamp_of(first)


@on_disk
@pytest.mark.parametrize("last", ["transform", "evaluate"])
def test_runs_url_that_is_set_later(workers: list[Project], place: Place, last: str) -> None:
    """A run that began without RUNS_URL is not continued with it, and stays as it is."""
    steps = STEPS[: STEPS.index(last) + 1]
    log = workers[0].run_steps(steps, PIPELINE_RUN_ID=place.settings["PIPELINE_RUN_ID"])
    (run,) = workers[0].runs()
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    done = take(workers[0], last, log, place)

    assert done.returncode == 64, done.stderr
    assert f"{place.runs} has no run" in done.stderr
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@on_disk
def test_log_of_a_different_run(workers: list[Project], place: Place) -> None:
    """If this disk has the log of an older run of the same name, it is kept beside the new one."""
    log = take_all(workers[:1], STEPS[:2], "", place)
    older = workers[1].root / "logs" / Path(log).name
    older.parent.mkdir()
    older.write_text("[an older run]\n", encoding="utf-8")
    assert take(workers[1], "train", log, place).returncode == 0

    assert older.with_name(f"{older.name}.before").read_text(encoding="utf-8") == "[an older run]\n"
    assert older.read_bytes().startswith((workers[0].root / "logs" / Path(log).name).read_bytes())


@on_disk
def test_runs_url_that_cannot_be_written(workers: list[Project], place: Place, tmp_path: Path) -> None:
    """The error is in the log of the run, which the next try of the load continues."""
    (tmp_path / "file").touch()
    place.settings["RUNS_URL"] = f"file://{tmp_path}/file"
    for number in (1, 2):
        done = take(workers[0], "data_loader", "", place)
        assert done.returncode == 74, done.stderr
        (log,) = workers[0].root.glob("logs/*")
        assert log.read_text(encoding="utf-8").count("[ERROR]") == number
        assert len(done.stderr.splitlines()) == 1


@on_disk
def test_pipeline_with_runs_elsewhere(workers: list[Project], place: Place) -> None:
    """run_pipeline.sh works as without RUNS_URL, and a step on a different worker finds the run by the log's name."""
    done = workers[0].pipeline(**place.settings)

    assert done.returncode == 0, done.stderr
    assert "\n  accuracy: 0.99" in done.stdout
    assert take(workers[1], "evaluate", str(next(workers[0].root.glob("logs/*"))), place).returncode == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"RUNS_URL": "file:///x"}, "expected STORAGE_URL to be set too, for finished runs, found none"),
        ({"RUNS_URL": "sftp://h/x", "STORAGE_URL": "file:///x"}, "expected an address like s3://, gs://, abfs:// or"),
        (
            {"RUNS_URL": "s3://k:Zq7@b/x", "STORAGE_URL": "file:///x"},
            "RUNS_URL (set by the environment): expected a URL",
        ),
        (
            {"RUNS_URL": "file:///x", "STORAGE_URL": "file:///x", "DASK_SCHEDULER": "tcp://h:8786"},
            "expected DASK_SCHEDULER to be empty, because its workers need a shared disk",
        ),
    ],
)
def test_wrong_settings(project: Project, settings: dict[str, str], message: str) -> None:
    """RUNS_URL that cannot be used, alone or with other settings, is exit 78 and one line."""
    done = project.step("data_loader", **settings)

    assert done.returncode == 78
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Zq7" not in done.stderr
