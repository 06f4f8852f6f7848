"""The steps on a Dask cluster: a scheduler and two workers, each a process in its own folder."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from conftest import Project, RunUpTo


def start(stack: ExitStack, folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process of the cluster, which is killed at the end of the test."""
    folder.mkdir()
    command = [sys.executable, "-m", f"distributed.cli.dask_{name}", "--host", "127.0.0.1", "--no-dashboard"]
    process = stack.enter_context(
        subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=os.environ | {"TMPDIR": str(folder)},  # workers keep their files there
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(process.kill)
    return process


def wait_for_line(process: subprocess.Popen[str], pattern: str) -> str:
    """Wait for a line on the process's stderr and return the part that matches."""
    assert process.stderr
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found[0]
    raise AssertionError(pattern)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Return the address of a cluster's scheduler."""
    with ExitStack() as stack:
        address = wait_for_line(start(stack, tmp_path / "scheduler", "scheduler", "--port", "0"), r"tcp://127[\d.:]+")
        for name in ("first", "second"):
            worker = start(stack, tmp_path / name, "worker", address, "--nthreads", "1", "--no-nanny")
            wait_for_line(worker, "Registered to")
        yield address


def test_cluster_gives_the_same_answer(project: Project, scheduler: str) -> None:
    """Two workers without this project's code give the data and the model of one process, to the last bit."""
    project.chain(BATCH_BYTES="4096", WORKERS="1")
    alone, alone_predictions = project.artifacts(), predictions(project)
    project.chain(BATCH_BYTES="4096", DASK_SCHEDULER=scheduler)

    assert len(project.runs()) == 2
    for name in ("clear_data.csv", "model.pkl"):
        assert project.artifacts()[name] == alone[name]
    # The workers may sum the products behind a probability in a different order.
    pd.testing.assert_frame_equal(predictions(project), alone_predictions, rtol=0, atol=1e-8)


def predictions(project: Project) -> pd.DataFrame:
    """Return the newest predictions."""
    return pd.read_csv(project.root / "results" / "predictions.csv")


def test_scheduler_that_is_missing(project: Project, run_up_to: RunUpTo) -> None:
    """An unreachable cluster is exit 75, and the error names the setting."""
    project.shorten_wait("SECONDS_TO_CONNECT = 30", "SECONDS_TO_CONNECT = 1")
    log = run_up_to("data_loader")
    done = project.step("transform", log, BATCH_BYTES="4096", DASK_SCHEDULER="tcp://127.0.0.1:9")

    assert done.returncode == 75
    assert "DASK_SCHEDULER: there is no scheduler at tcp://127.0.0.1:9" in done.stderr.splitlines()[-1]
