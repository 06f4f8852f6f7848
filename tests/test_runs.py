"""Several runs together: started in the same second, killed, retried, pruned, on a full disk."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ARTIFACTS, STEPS, Project, RunUpTo, wdbc_rows

ARTIFACT_OF = {
    "data_loader": "raw_data.csv",
    "transform": "clear_data.csv",
    "train": "model.pkl",
    "evaluate": "evaluation.json",
}


def shown_run(project: Project, name: str) -> Path:
    """Return the folder of the run to which results/<name> points."""
    path = (project.root / "results" / name).resolve()
    return path if path.is_dir() else path.parent


@pytest.mark.slow
def test_eight_runs_at_once(project: Project) -> None:
    """Runs started in the same second share no stamp, log or folder, and all succeed."""
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: project.pipeline(), range(8)))

    assert [end.returncode for end in ends] == [0] * 8, "".join(end.stderr for end in ends)
    logs = [path.read_text(encoding="utf-8") for path in (project.root / "logs").iterdir()]
    assert len(project.runs()) == len(logs) == 8
    assert all(log.count(": started") == len(STEPS) for log in logs)
    assert shown_run(project, "latest") == project.runs()[-1]
    assert {shown_run(project, name) for name in project.artifacts()} == {project.runs()[-1]}
    metrics = {(run / "evaluation.json").read_bytes() for run in project.runs()}
    assert len(metrics) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_kill_in_the_middle_of_a_step(project: Project, run_up_to: RunUpTo, name: str) -> None:
    """A kill -9 leaves only whole files, old or new; the step can be repeated, and new runs succeed."""
    run_up_to("evaluate")
    old, before = project.runs()[0], project.artifacts()
    (project.root / "other.csv").write_text("\n".join(wdbc_rows()[:300]) + "\n", encoding="utf-8")
    whole = {artifact: {content} for artifact, content in before.items()}
    project.chain(DATA_URL="other.csv")
    for artifact, content in project.artifacts().items():
        whole[artifact].add(content)
    assert project.step("runs", "rollback", old.name).returncode == 0
    shutil.rmtree(project.runs()[1])
    for path in old.iterdir():
        if path.name in before:
            subprocess.run(
                ["ln", "-sfn", f"runs/{old.name}/{path.name}", project.root / "results" / path.name], check=True
            )

    log = project.run_steps(STEPS[: STEPS.index(name)], DATA_URL="other.csv")
    script = [sys.executable, str(project.root / "etl" / f"{name}.py"), *([log] if log else [])]
    delays = random.Random(name)
    for _ in range(4):
        with subprocess.Popen(
            script, env=project.environment(DATA_URL="other.csv"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr
            process.stderr.readline()
            time.sleep(delays.random() * (0.02 if name in STEPS[:2] else 1.2))
            process.kill()
        assert all(content in whole[artifact] for artifact, content in project.artifacts().items())
        if shown_run(project, "latest") != old:
            assert name == "evaluate"
    if log:
        assert project.step(name, log, DATA_URL="other.csv").returncode == 0
    project.chain()

    assert project.artifacts() == before
    assert shown_run(project, "latest") == project.runs()[-1]


@pytest.mark.parametrize("name", ["transform", "train"])
def test_scratch_of_a_killed_step_is_removed(project: Project, run_up_to: RunUpTo, name: str) -> None:
    """The scratch files of a killed step are removed by the next step of any run."""
    log = run_up_to(STEPS[STEPS.index(name) - 1])
    folder = project.runs()[0].parent
    script = [sys.executable, str(project.root / "etl" / f"{name}.py"), log]
    with subprocess.Popen(script, env=project.environment(BATCH_BYTES="1"), stderr=subprocess.DEVNULL) as process:
        while not list(folder.glob(".scratch_*/*")):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert list(folder.glob(".scratch_*"))
    project.step("data_loader")
    assert not list(folder.glob(".scratch_*"))


def test_stopped_step_is_logged(project: Project, run_up_to: RunUpTo) -> None:
    """SIGTERM ends a step with 143, a line in the log and no partial file."""
    log = run_up_to("transform")
    process = subprocess.Popen(
        [sys.executable, str(project.root / "etl" / "train.py"), log],
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert "started" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (143, "")
    assert err.splitlines()[-1].endswith("stopped by SIGTERM")
    assert "stopped by SIGTERM" in Path(log).read_text(encoding="utf-8")
    assert not list(project.runs()[0].parent.glob(".scratch_*"))
    assert json.loads((project.runs()[0] / "manifest.json").read_bytes())["steps"]["train"]["exit_code"] == 143


def test_second_process_in_one_run_is_kept_out(project: Project, run_up_to: RunUpTo) -> None:
    """A second process on the same run exits with 75, and succeeds later."""
    log = run_up_to("data_loader")
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(project.runs()[0] / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        done = project.step("transform", log)
        holder.kill()

    assert done.returncode == 75
    assert "another process is working on it" in done.stderr
    assert project.step("transform", log).returncode == 0


def test_repeated_load_step_stays_in_its_run(project: Project) -> None:
    """A load step with the same PIPELINE_RUN_ID, or with the log's path, continues in the same log and folder."""
    first = project.step("data_loader", PIPELINE_RUN_ID="a/b c", DATA_URL="missing.csv")
    again = project.step("data_loader", PIPELINE_RUN_ID="a/b c")
    other = project.step("data_loader", PIPELINE_RUN_ID="other")
    by_path = project.step("data_loader", again.stdout.strip())

    assert [done.returncode for done in (first, again, other, by_path)] == [78, 0, 0, 0]
    assert again.stdout == by_path.stdout != other.stdout
    assert len(project.runs()) == 2


@pytest.mark.slow
def test_results_show_the_newest_finished_output(project: Project, run_up_to: RunUpTo) -> None:
    """results/ shows the newest output of each step, also of an unfinished run, and never returns to an older run."""
    old = run_up_to("evaluate")
    (project.root / "other.csv").write_text("\n".join(wdbc_rows()[:300]), encoding="utf-8")
    new = project.step("data_loader", DATA_URL="other.csv").stdout.strip()
    project.step("transform", new)
    older, newer = project.runs()
    assert [shown_run(project, name) for name in ("raw_data.csv", "clear_data.csv", "model.pkl", "latest")] == [
        *(newer, newer, older, older)
    ]

    for name in STEPS:
        assert project.step(name, old).returncode == 0
    assert shown_run(project, "raw_data.csv") == newer
    assert shown_run(project, "latest") == older
    for name in ("train", "evaluate"):
        assert project.step(name, new).returncode == 0
    assert {shown_run(project, name) for name in (*project.artifacts(), "latest")} == {newer}


def test_other_content_of_a_repeated_step_undoes_the_later_ones(project: Project, run_up_to: RunUpTo) -> None:
    """If the source has changed, repeating the load step undoes the later steps of an unfinished run."""
    log = run_up_to("train")
    manifest = project.runs()[0] / "manifest.json"
    assert project.step("data_loader", log).returncode == 0
    assert list(json.loads(manifest.read_bytes())["steps"]) == list(STEPS[:3])

    (project.root / "other.csv").write_text("\n".join(wdbc_rows()[:300]), encoding="utf-8")
    assert project.step("data_loader", log, DATA_URL="other.csv").returncode == 0
    assert list(json.loads(manifest.read_bytes())["steps"]) == ["data_loader"]
    assert project.step("evaluate", log).returncode == 64
    for name in STEPS[1:]:
        assert project.step(name, log).returncode == 0
    assert shown_run(project, "latest") == project.runs()[0]


@pytest.mark.slow
def test_finished_run_is_never_changed(project: Project) -> None:
    """Different content for a finished run is refused; repeating or failing a step changes nothing."""
    log = project.chain(PIPELINE_RUN_ID="x")
    before = project.artifacts()
    (project.root / "other.csv").write_text("\n".join(wdbc_rows()[:300]), encoding="utf-8")
    done = project.step("data_loader", PIPELINE_RUN_ID="x", DATA_URL="other.csv")

    assert done.returncode == 64
    assert "start a new run" in done.stderr
    assert project.step("data_loader", log, DATA_URL="missing.csv").returncode == 78
    assert project.artifacts() == before
    for name in STEPS:
        assert project.step(name, log).returncode == 0
    assert project.artifacts() == before
    assert shown_run(project, "latest") == project.runs()[0]


def test_old_runs_are_pruned(project: Project) -> None:
    """KEEP_RUNS runs stay, plus the latest good one and one in progress; all logs stay."""
    waiting = project.step("data_loader").stdout.strip()
    project.chain(KEEP_RUNS="2")
    good = project.runs()[-1]
    for _ in range(3):
        assert project.step("data_loader", DATA_URL="missing.csv", KEEP_RUNS="2").returncode == 78
    runs = project.runs()

    assert len(runs) == 4
    assert {good, project.root / "results" / "runs" / Path(waiting).stem.removeprefix("log_")} <= set(runs)
    assert project.step("transform", waiting).returncode == 0
    assert len(list((project.root / "logs").iterdir())) == 5
    kept = {run.name for run in runs}
    gone = next(log for log in (project.root / "logs").iterdir() if log.stem.removeprefix("log_") not in kept)
    assert "the run of this log has been removed" in project.step("transform", str(gone)).stderr


@pytest.mark.slow
def test_keep_one_run(project: Project) -> None:
    """With KEEP_RUNS=1 only the run in use and the one before it are left, and results/ shows the first."""
    logs = [project.chain(KEEP_RUNS="1") for _ in range(3)]

    assert [str(run)[-19:] for run in project.runs()] == [log[-23:-4] for log in logs[1:]]
    assert shown_run(project, "latest") == project.runs()[-1]
    assert set(project.artifacts()) == ARTIFACTS


def test_foreign_files_beside_the_runs_stay(project: Project, run_up_to: RunUpTo) -> None:
    """A user's files and folders beside the runs stay, and neither they nor damaged manifests stop a run."""
    runs = project.root / "results" / "runs"
    run_up_to("evaluate")
    shutil.copytree(project.runs()[0], runs / "model of the paper")
    (runs / "notes.txt").write_text("mine", encoding="utf-8")
    (project.root / "results" / "loop").symlink_to("loop")
    for i, text in enumerate(["", "[]", "{}", "[" * 100_000, '{"started": "", "steps": [], "artifacts": []}']):
        (runs / f"2020_01_01_00_00_0{i}").mkdir()
        (runs / f"2020_01_01_00_00_0{i}" / "manifest.json").write_text(text, encoding="utf-8")
    project.chain(KEEP_RUNS="1", PIPELINE_RUN_ID="x")

    assert {"model of the paper", "notes.txt"} <= {path.name for path in runs.iterdir()}
    assert shown_run(project, "latest").name > "2020"


@pytest.mark.slow
def test_results_and_logs_may_be_links(project: Project, tmp_path: Path) -> None:
    """results/ and logs/ may be symbolic links to a different disk."""
    for name in ("results", "logs"):
        (tmp_path / f"big {name}").mkdir()
        (project.root / name).symlink_to(tmp_path / f"big {name}")
    for _ in range(3):
        project.chain(KEEP_RUNS="1")

    assert len(project.runs()) == 2
    assert set(project.artifacts()) == ARTIFACTS


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("blocks", [1, 4])
def test_refused_write(project: Project, run_up_to: RunUpTo, name: str, blocks: int) -> None:
    """A write that the system refuses is exit 74 and one line, and earlier results stay unchanged."""
    run_up_to("evaluate")
    before = project.artifacts()
    log = project.run_steps(STEPS[: STEPS.index(name)])
    script = f'ulimit -f {blocks}; exec "$ETL_PYTHON" "{project.root}/etl/{name}.py" {log and chr(34) + log + chr(34)}'
    done = project.run(["sh", "-c", script])

    # A block has 512 bytes; with four, the small artifacts of the last step fit, and only the manifest does not.
    assert done.returncode == 74, done.stderr
    assert done.stdout == ""
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert project.artifacts() == before
    assert not list(project.root.glob("results/runs/.scratch_*"))


@pytest.fixture
def small_disk(project: Project) -> Iterator[Path]:
    """Mount a file system of 700 kB for the project's results and logs."""
    disk = project.root / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], check=False)
    if mounted.returncode and not (os.environ.get("CI") and os.geteuid() == 0):
        pytest.skip("needs root: a small file system cannot be mounted here")
    assert mounted.returncode == 0
    try:
        for name in ("results", "logs"):
            (disk / name).mkdir()
            (project.root / name).symlink_to(disk / name)
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_full_disk(project: Project, small_disk: Path) -> None:
    """A full disk stops a run at any step; earlier results stay, and runs succeed again once there is room."""
    project.chain()
    before = project.artifacts()
    latest = shown_run(project, "latest")
    done = project.pipeline()
    assert done.returncode == 74
    assert "Traceback" not in done.stderr

    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 700_000)
    done = project.pipeline()
    assert done.returncode == 74
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert project.artifacts() == before
    assert shown_run(project, "latest") == latest

    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    project.chain()
    assert project.artifacts() == before
    assert shown_run(project, "latest") != latest
