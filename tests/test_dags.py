"""The DAG files by themselves: parsed wherever the project lies, run by dag.test(), wrong settings named."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import STEPS, Project

DAGS = {"my_pipeline", "my_pipeline_python"}
PARSE = """
import json, sys, time, warnings
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
warnings.simplefilter("ignore")
start = time.perf_counter()
bag = DagBag(sys.argv[1])
seconds = time.perf_counter() - start
dags = {
    dag.dag_id: {
        "schedule": dag.schedule,
        "owner_links": dag.owner_links,
        "tasks": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "timeouts": sorted({task.execution_timeout.total_seconds() for task in dag.tasks}),
        "retries": [task.retries for task in dag.tasks],
    }
    for dag in bag.dags.values()
}
heavy = sorted({"pandas", "sklearn", "numpy"} & set(sys.modules))
files = sorted(stats.file for stats in bag.dagbag_stats)
print(json.dumps({"dags": dags, "errors": bag.import_errors, "seconds": seconds, "heavy": heavy, "files": files}))
"""
TEST = """
import sys, warnings
warnings.simplefilter("ignore")
from airflow.dag_processing.dagbag import DagBag
from airflow.utils import db
db.initdb()
for dag in DagBag(sys.argv[1]).dags.values():
    run = dag.test(logical_date=None)
    print("RUN", run.dag_id, run.state.value)
"""
POLICY = """
import sys
sys.path.append(sys.argv[1])
from my_pipeline_task import RetryUnreachable
for text, try_number, max_tries in [("code 75", 1, 2), ("code 75", 2, 2), ("code 75", 4, 5), ("timeout", 1, 2)]:
    decision = RetryUnreachable().evaluate(Exception(f"exit {text}"), try_number, max_tries)
    print("DECISION", decision.action.value, decision.retry_delay and decision.retry_delay.total_seconds())
"""


def in_airflow(project: Project, code: str, folder: Path, **settings: str) -> str:
    """Run code in an Airflow with an empty home, return its stdout."""
    home = project.root.parent / "home"
    given = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
    }
    done = project.run([sys.executable, "-c", code, str(folder)], **given, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parse(project: Project, folder: Path, **settings: str) -> Any:
    """Return what Airflow finds in a dags folder."""
    return json.loads(in_airflow(project, PARSE, folder, **settings).splitlines()[-1])


@pytest.mark.parametrize("way", ["linked", "copied", "itself"])
def test_only_the_dags_of_a_project_in_the_dags_folder_are_parsed(project: Project, way: str) -> None:
    """Linked or copied with all that may lie in it, it gives two DAGs quickly, and no import error."""
    for trap in (".venv/lib/trap.py", "tests/test_trap.py", "benchmarks/trap.py", "trap.py", "etl/dags/trap.py"):
        (project.root / trap).parent.mkdir(parents=True, exist_ok=True)
        (project.root / trap).write_text("raise ImportError('a dag for airflow')\n", encoding="utf-8")
    folder = project.root if way == "itself" else project.root.parent / "dags"
    folder.mkdir(exist_ok=True)
    if way == "linked":
        (folder / "ours").symlink_to(project.root)
    if way == "copied":
        shutil.copytree(project.root, folder / "ours")
    found = parse(project, folder)

    assert found["errors"] == {}
    assert set(found["dags"]) == DAGS
    assert {Path(file).parent.name for file in found["files"]} == {"dags"}
    assert found["heavy"] == []
    assert found["seconds"] < 0.5
    for dag in found["dags"].values():
        assert list(dag["tasks"]) == list(STEPS)
        assert dag["tasks"] == {
            "data_loader": [],
            "transform": ["data_loader"],
            "train": ["transform"],
            "evaluate": ["train"],
        }
        assert dag["schedule"] is None
        assert dag["retries"] == [2, 0, 0, 0]
        assert dag["timeouts"] == [21600]


def test_settings_of_the_dag(project: Project) -> None:
    """The environment and .env set schedule, time limit and owner's link."""
    (project.root / ".env").write_text("SCHEDULE='0 5 * * 1'\nSTEP_TIMEOUT=9\nOWNER_LINK=\n", encoding="utf-8")
    found = parse(project, project.root, STEP_TIMEOUT="60", OWNER_LINK="mailto:ana@example.org")

    assert found["errors"] == {}
    assert found["dags"]["my_pipeline"]["schedule"] == "0 5 * * 1"
    assert found["dags"]["my_pipeline"]["timeouts"] == [60]
    assert found["dags"]["my_pipeline"]["owner_links"] == {"my_pipeline": "mailto:ana@example.org"}
    assert found["dags"]["my_pipeline_python"]["schedule"] is None


@pytest.mark.parametrize("name", ["STEP_TIMEOUT", "RETRY_DELAY", "DATA_TIMEOUT"])
def test_wrong_setting_is_named(project: Project, name: str) -> None:
    """The import error that the UI shows names the setting and what was found."""
    errors = parse(project, project.root, **{name: "soon"})["errors"]

    assert errors
    assert all(f"{name}: expected seconds, found 'soon'" in error for error in errors.values())


def test_dags_without_the_project_say_so(project: Project) -> None:
    """The folder dags/ alone is not enough."""
    alone = shutil.copytree(project.root / "dags", project.root.parent / "alone" / "dags")
    errors = parse(project, alone)["errors"]

    assert any("expected the project around dags/" in error for error in errors.values())


def test_dag_test(project: Project) -> None:
    """Both DAGs go through with dag.test(), by Airflow's own interpreter, with no date, as from the command line."""
    said = in_airflow(project, TEST, project.root / "dags", ETL_PYTHON="")

    assert {line for line in said.splitlines() if line.startswith("RUN")} == {f"RUN {dag} success" for dag in DAGS}
    assert len(project.runs()) == 2
    assert os.path.realpath(project.root / "results" / "latest") == str(project.runs()[-1])


def test_retries_are_counted_from_the_last(project: Project) -> None:
    """Each pause is three times the last, also after a clear; what has no exit code is final."""
    said = in_airflow(project, POLICY, project.root / "dags", RETRY_DELAY="2")

    assert [line for line in said.splitlines() if line.startswith("DECISION")] == [
        "DECISION retry 2.0",
        "DECISION retry 6.0",
        "DECISION retry 2.0",
        "DECISION fail None",
    ]
