"""The DAG files alone: parsing wherever the project lies, runs by dag.test(), and how wrong settings are reported."""

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import STEPS, Project
from misbehaving import SECRET, serve

DAGS = {"my_pipeline", "my_pipeline_python"}
PROMOTION, PREDICT = "my_pipeline_promotion", "my_pipeline_predict"
PARSE = """
import json, sys, time, warnings
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
warnings.simplefilter("ignore")
start = time.process_time()
bag = DagBag(sys.argv[1])
cpu_time = time.process_time() - start
dags = {
    dag.dag_id: {
        "schedule": dag.schedule if isinstance(dag.schedule, str | None) else [one.name for one in dag.schedule],
        "tasks": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "timeouts": sorted({task.execution_timeout.total_seconds() for task in dag.tasks}),
        "retries": [task.retries for task in dag.tasks],
        "reported": [task.has_on_failure_callback for task in dag.tasks],
        "params": dag.params.dump(),
        "outlets": [outlet.name for task in dag.tasks for outlet in task.outlets],
        "run_types": sorted(dag.allowed_run_types),
        "active": dag.max_active_runs,
        "limit": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(),
    }
    for dag in bag.dags.values()
}
heavy = sorted({"pandas", "sklearn", "numpy"} & set(sys.modules))
files = sorted(stats.file for stats in bag.dagbag_stats)
print(json.dumps({"dags": dags, "errors": bag.import_errors, "cpu_time": cpu_time, "heavy": heavy, "files": files}))
"""
TEST = """
import sys, warnings
warnings.simplefilter("ignore")
from airflow.dag_processing.dagbag import DagBag
from airflow.utils import db
db.initdb()
for name, dag in DagBag(sys.argv[1]).dags.items():
    if "data_loader" not in dag.task_ids:
        continue
    run = dag.test(logical_date=None)
    print("RUN", run.dag_id, run.state.value)
"""
RENDER = """
import json, sys, types, warnings
warnings.simplefilter("ignore")
from airflow.dag_processing.dagbag import DagBag
for name, dag in DagBag(sys.argv[1]).dags.items():
    if "data_loader" not in dag.task_ids:
        continue
    task = dag.get_task("data_loader")
    run = types.SimpleNamespace(run_after="now")
    task.render_template_fields({"dag": dag, "dag_run": run, "run_id": "run", "params": {"data_url": None}})
    env = task.env if dag.dag_id == "my_pipeline" else task.op_kwargs["env"]
    print("RENDERED", json.dumps([env, getattr(task, "cwd", None)]))
"""
FORM = """
import json, os, sys
sys.path.append(sys.argv[1])
from airflow.sdk.exceptions import ParamValidationError
from my_pipeline_predict import PARAMS
from my_pipeline_shared import task
accepted = []
for value in json.loads(os.environ["FORM_VALUES"]):
    try:
        (task.PARAMS | PARAMS)[os.environ["FIELD"]].resolve(value)
    except ParamValidationError:
        continue
    accepted.append(value)
print("ACCEPTED", json.dumps(accepted))
"""
CAUSE = """
import os, pathlib, sys
sys.path.append(sys.argv[1])
from my_pipeline_shared.notice import last_error
print("CAUSE", last_error(pathlib.Path(os.environ["LOG"]), "train"))
"""
CONNECTIONS = """
import json, os, sys
sys.path.append(sys.argv[1])
from airflow.sdk.exceptions import AirflowFailException
from my_pipeline_shared.connection import read_connection
found = {}
for name in json.loads(os.environ["NAMES"]):
    try:
        found[name] = read_connection(name)
    except AirflowFailException as error:
        found[name] = str(error)
print(json.dumps(found))
"""
SLOW_NOTICE = """
import os, sys, time, types
sys.path.append(sys.argv[1])
from my_pipeline_shared import notice
notice.SECONDS_TO_SEND = 1
task = types.SimpleNamespace(dag_id="my_pipeline", run_id="of another worker", task_id="train")
context = {"ti": task, "dag_run": types.SimpleNamespace(run_after="now")}
start = time.monotonic()
accepted = notice.send_failure(context)
print(notice.describe(context), accepted, time.monotonic() - start < 20, sep="\\n", flush=True)
os._exit(0)
"""
TIMED_OUT = """
import sys, types
sys.path.append(sys.argv[1])
from my_pipeline_shared import notice
task = types.SimpleNamespace(dag_id="my_pipeline", run_id="run", task_id="train", xcom_pull=lambda *_, **__: None)
task.get_task_states = lambda *_, **__: {"run": {"train": "skipped"}}
for reason in ("task_failure", "timed_out"):
    context = {"ti": task, "dag_run": types.SimpleNamespace(run_after="now"), "reason": reason}
    notice.notify_if_unsent(context)
"""
QUESTION = """
import os, json, sys, types
sys.path.append(sys.argv[1])
from my_pipeline_promotion import HELD_BACK, describe
runs = [types.SimpleNamespace(extra=facts, timestamp=i) for i, facts in enumerate(json.loads(os.environ["FACTS"]))]
print(json.dumps(describe({"triggering_asset_events": {HELD_BACK: runs[::-1]}})))
"""
OUTPUT = """
import os, sys
sys.path.append(sys.argv[1])
from airflow.sdk.exceptions import AirflowFailException
from my_pipeline_predict import check_output
for line in os.environ["LINES"].splitlines():
    try:
        print("TAKEN", check_output(line))
    except AirflowFailException as error:
        print("REFUSED", error)
"""
POLICY = """
import sys
sys.path.append(sys.argv[1])
from my_pipeline_shared.task import RetryByExitCode
for text, try_number, max_tries in [("code 75", 1, 2), ("code 75", 2, 2), ("code 75", 4, 5), ("timeout", 1, 2)]:
    decision = RetryByExitCode().evaluate(Exception(f"exit {text}"), try_number, max_tries)
    print("DECISION", decision.action.value, decision.retry_delay and decision.retry_delay.total_seconds())
"""


def in_airflow(project: Project, code: str, folder: Path, **settings: str) -> str:
    """Run code in an Airflow with an empty home and return its stdout."""
    home = project.root.parent / "home"
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
    }
    done = project.run([sys.executable, "-c", code, str(folder)], **own, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parse(project: Project, folder: Path, **settings: str) -> Any:
    """Return the DAGs and errors that Airflow finds in a dags folder."""
    return json.loads(in_airflow(project, PARSE, folder, **settings).splitlines()[-1])


@pytest.mark.parametrize("way", ["linked", "copied", "itself"])
def test_only_the_dags_of_a_project_in_the_dags_folder_are_parsed(project: Project, way: str) -> None:
    """A project linked or copied with all its files gives exactly its DAGs, quickly and without an import error."""
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
    assert set(found["dags"]) == DAGS | {PROMOTION, PREDICT}
    assert {Path(file).stem for file in found["files"]} == DAGS | {PROMOTION, PREDICT}
    assert found["heavy"] == []
    assert found["cpu_time"] < 0.5
    promotion = found["dags"].pop(PROMOTION)
    assert promotion["tasks"] == {"approve": [], "promote": ["approve"]}
    assert promotion["schedule"] == ["my_pipeline_held_back"]
    # Otherwise Airflow would show the asset only after its first event.
    assert promotion["outlets"] == ["my_pipeline_model"]
    assert promotion["run_types"] == ["asset_triggered"]
    predict = found["dags"].pop(PREDICT)
    assert (predict["tasks"], predict["schedule"], predict["active"]) == ({"predict": []}, None, 1)
    assert predict["params"] == {"source": None, "output": None}
    assert predict["run_types"] == ["asset_triggered", "manual", "operator_triggered"]
    assert (predict["timeouts"], predict["retries"], predict["reported"]) == ([21600], [2], [True])
    for dag in found["dags"].values():
        assert list(dag["tasks"]) == list(STEPS)
        assert dag["tasks"] == {
            "data_loader": [],
            "transform": ["data_loader"],
            "train": ["transform"],
            "evaluate": ["train"],
        }
        assert dag["schedule"] is None
        assert dag["retries"] == [2, 2, 2, 2]
        assert dag["reported"] == [True] * 4
        assert dag["timeouts"] == [21600]
        assert dag["outlets"] == ["my_pipeline_outcome"]
        assert dag["run_types"] == ["manual", "operator_triggered", "scheduled"]


def test_settings_of_the_dag(project: Project) -> None:
    """The environment and .env set the schedule and the time limit."""
    in_file = "SCHEDULE='0 5 * * 1'\nSTEP_TIMEOUT=9\n"
    (project.root / ".env").write_text(in_file, encoding="utf-8")
    empty = {"ETL_PYTHON": "", "SCHEDULE": ""}
    set_here = {"STEP_TIMEOUT": "60", "RETRY_DELAY": "5", "DATA_URL": "https://example.org/a.csv"}
    found = parse(project, project.root, **set_here, **empty)

    assert found["errors"] == {}
    assert found["dags"]["my_pipeline"]["schedule"] == "0 5 * * 1"
    assert found["dags"]["my_pipeline"]["timeouts"] == [60]
    assert [found["dags"][dag]["limit"] for dag in sorted(DAGS)] == [4 * (3 * 60 + 5 + 15) + 3600] * 2
    assert found["dags"]["my_pipeline_python"]["schedule"] is None
    assert found["dags"]["my_pipeline"]["params"] == {"data_url": "https://example.org/a.csv"}


@pytest.mark.parametrize(
    "url",
    [
        "https://u:p@example.org/a.csv",
        "https://example.org/a.csv?token=x",
        "https://example.org/a.csv;token=x",
        "/a.csv",
        "file:///a",
        "s3://u:p@bucket/a.csv",
        "s3://bucket/a.csv?token=x",
        "s3://bucket/a.csv;token=x",
    ],
)
def test_private_source_is_not_in_the_form(project: Project, url: str) -> None:
    """The form's default is the setting, except if that holds a secret or names a file of the worker."""
    assert parse(project, project.root, DATA_URL=url)["dags"]["my_pipeline"]["params"]["data_url"] is None


@pytest.mark.parametrize("url", ["https://example.org/a.csv", "S3://bucket/a.csv", "gs://b/a.csv", "abfs://c/a.csv"])
def test_public_source_is_the_default_of_the_form(project: Project, url: str) -> None:
    """A plain web address and a plain address in a cloud are shown in the form."""
    assert parse(project, project.root, DATA_URL=url)["dags"]["my_pipeline"]["params"]["data_url"] == url


@pytest.mark.parametrize("field", ["data_url", "source"])
def test_form_takes_the_web_and_the_clouds_without_credentials(project: Project, field: str) -> None:
    """The form accepts a web address or an object in a cloud in any capitals, and nothing that may hold a secret."""
    accepted = [None, "", "HTTP://host", "https://h/x?y=1", "s3://b/x.csv", "S3A://b/x/y.csv", "gs://b/x", "GCS://b/x"]
    accepted += ["abfs://c/x", "Abfss://c/x/", "az://c/x"]
    refused = [
        "s3://k:s@b/x",
        "s3://b/x?y=1",
        "s3://b/x#y",
        "s3://b",
        "s3:///x",
        "abfs://c@a/x",
        "s3://b/x\n",
        "s4://b/x",
    ]
    refused += ["/a.csv", "file:///a", "http://u:p@h", "sftp://h/x", "ws3://b/x", "memory://b/x"]

    assert accepted_by(project, field, [*accepted, *refused]) == accepted


def test_form_takes_the_name_of_an_output(project: Project) -> None:
    """A name is one of a visible file without a folder, and never looks like an option."""
    accepted = [None, "", "new.csv", "_1", "2026-11-22_a.b.csv", "x.sh"]
    refused = ["..", ".hidden", "-o", "a/b", "/a", "../a", "a b", "a\n", "{{ ti }}", "$(pwd)", "a;b", "a\\b", "é"]

    assert accepted_by(project, "output", [*accepted, *refused]) == accepted


def accepted_by(project: Project, field: str, values: Sequence[str | None]) -> Any:
    """Return the values that a field of a form accepts."""
    output = in_airflow(project, FORM, project.root / "dags", FIELD=field, FORM_VALUES=json.dumps(values))
    return json.loads(output.splitlines()[-1].removeprefix("ACCEPTED "))


@pytest.mark.parametrize("url", ["data/new.csv", f"https://u:{SECRET}@example.org/new.csv?token={SECRET}"])
def test_standing_file_is_scored_after_each_promotion(project: Project, url: str) -> None:
    """With PREDICT_URL, each model in use starts a run; the address is no part of the DAG."""
    found = parse(project, project.root, PREDICT_URL=url)

    assert found["errors"] == {}
    assert found["dags"][PREDICT]["schedule"] == ["my_pipeline_model"]
    assert url not in json.dumps(found)
    assert SECRET not in json.dumps(found)


@pytest.mark.parametrize(
    "wrong",
    [
        *("STEP_TIMEOUT=soon", "STEP_TIMEOUT=0", "STEP_TIMEOUT=", "RETRY_DELAY=100000", "RETRY_DELAY=1e3"),
        *("SCHEDULE=@dayly", "SCHEDULE=0 5 * *", "STORAGE_CONN=my storage"),
    ],
)
def test_wrong_setting_is_named(project: Project, wrong: str) -> None:
    """The import error in the UI names the setting, the expected values and the value found."""
    name, _, value = wrong.partition("=")
    errors = parse(project, project.root, **{name: value})["errors"]

    assert errors
    for error in errors.values():
        assert f"{name} (set by the environment): expected " in error
        assert f"found {value!r}; correct it" in error


def test_connection_in_place_of_its_name_is_not_shown(project: Project) -> None:
    """A URI in STORAGE_CONN is an import error without its password."""
    errors = parse(project, project.root, STORAGE_CONN=f"aws://AKIA0:{SECRET}@")["errors"]

    assert errors
    for error in errors.values():
        assert "STORAGE_CONN (set by the environment): expected the name of an Airflow connection, found some" in error
        assert SECRET not in error


GOOGLE, AZURE = "google_cloud_platform", "wasb"
PASSED_ON: list[tuple[dict[str, object], dict[str, str]]] = [
    ({"conn_type": "aws"}, {}),
    (
        {"conn_type": "aws", "login": "AKIA0", "password": "a", "extra": {"region_name": "eu-1", "endpoint_url": ""}},
        {"AWS_ACCESS_KEY_ID": "AKIA0", "AWS_SECRET_ACCESS_KEY": "a", "AWS_DEFAULT_REGION": "eu-1"},
    ),
    (
        {"conn_type": "aws", "extra": {"aws_session_token": "a\"b'\n{{ c }}.sh", "endpoint_url": "http://h"}},
        {"AWS_SESSION_TOKEN": "a\"b'\n{{ c }}.sh", "AWS_ENDPOINT_URL": "http://h"},
    ),
    (
        {"conn_type": AZURE, "login": "a", "password": "b", "host": "https://a.blob.core.windows.net/"},
        {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "b"},
    ),
    (
        {"conn_type": AZURE, "login": "a", "extra": {"extra__wasb__sas_token": "sv=1"}},
        {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": "sv=1"},
    ),
    (
        {"conn_type": AZURE, "extra": {"connection_string": "A=b;C=d"}},
        {"AZURE_STORAGE_CONNECTION_STRING": "A=b;C=d"},
    ),
    (
        {
            "conn_type": AZURE,
            "login": "i",
            "password": "s",
            "host": "a.blob.core.windows.net",
            "extra": {"tenant_id": "t"},
        },
        {
            "AZURE_STORAGE_CLIENT_ID": "i",
            "AZURE_STORAGE_CLIENT_SECRET": "s",
            "AZURE_STORAGE_TENANT_ID": "t",
            "AZURE_STORAGE_ACCOUNT_NAME": "a",
        },
    ),
    (
        {"conn_type": GOOGLE, "extra": {"key_path": "/k.json", "project": "p", "num_retries": 5, "keyfile_dict": ""}},
        {"GOOGLE_APPLICATION_CREDENTIALS": "/k.json", "GOOGLE_CLOUD_PROJECT": "p"},
    ),
]
REFUSED: list[tuple[dict[str, object], str]] = [
    (
        {"conn_type": "postgres", "password": SECRET},
        "a connection of type aws, wasb or google_cloud_platform, found ",
    ),
    ({"conn_type": "aws", "extra": {"role_arn": "arn", "profile_name": "p"}}, "aws, found 'profile_name', 'role_arn'"),
    ({"conn_type": GOOGLE, "extra": {"keyfile_dict": {"private_key": SECRET}}}, f"{GOOGLE}, found 'keyfile_dict'"),
    ({"conn_type": AZURE, "login": "a", "host": "https://a.blob.core.chinacloudapi.cn"}, "wasb, found 'host'"),
    ({"conn_type": "aws", "extra": f"[{SECRET}"}, "a JSON object in the connection's extra, found something else"),
]


def test_connection_becomes_variables(project: Project) -> None:
    """Each type of connection sets what it holds and nothing else; what has no variable is refused, not dropped."""
    cases = {f"c{i}": connection for i, (connection, _) in enumerate([*PASSED_ON, *REFUSED])}
    connections = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(case) for name, case in cases.items()}
    names = json.dumps([*cases, "missing"])
    output = in_airflow(project, CONNECTIONS, project.root / "dags", NAMES=names, STORAGE_CONN="c0", **connections)
    found = list(json.loads(output.splitlines()[-1]).values())

    assert found[: len(PASSED_ON)] == [variables for _, variables in PASSED_ON]
    for message, (_, expected) in zip(found[len(PASSED_ON) :], [*REFUSED, ({}, "found 'missing'")], strict=True):
        assert message.startswith("STORAGE_CONN (set by the environment): expected ")
        assert expected in message
        assert SECRET not in message


def test_dags_without_the_project_say_so(project: Project) -> None:
    """The folder dags/ without the rest of the project is an error that says so."""
    alone = shutil.copytree(project.root / "dags", project.root.parent / "alone" / "dags")
    errors = parse(project, alone)["errors"]

    assert any("expected the whole project around dags/" in error for error in errors.values())


def test_dag_test(project: Project) -> None:
    """Both DAGs succeed with dag.test(), in Airflow's own interpreter and without a date, like on the command line."""
    output = in_airflow(project, TEST, project.root / "dags", ETL_PYTHON="")

    assert {line for line in output.splitlines() if line.startswith("RUN")} == {f"RUN {dag} success" for dag in DAGS}
    assert len(project.runs()) == 2
    assert os.path.realpath(project.root / "results" / "latest") == str(project.runs()[-1])


@pytest.mark.parametrize("odd", ["python.sh", "{{ 7 * 7 }} {% x %}"])
def test_constants_are_not_rendered(make_project: Callable[[str], Project], odd: str) -> None:
    """An interpreter and a project whose paths look like templates or their files reach the process as they are."""
    project = make_project(odd)
    (project.root / ".env").write_text(f"ETL_PYTHON='./{odd}'\n", encoding="utf-8")
    output = in_airflow(project, RENDER, project.root / "dags", ETL_PYTHON="")
    rendered = [json.loads(line.partition(" ")[2]) for line in output.splitlines() if line.startswith("RENDERED")]

    assert [env["ETL_PYTHON"] for env, _ in rendered] == [f"{project.root}/{odd}"] * 2
    assert sorted(str(cwd) for _, cwd in rendered) == sorted(["None", str(project.root)])
    assert {(env["FORM_DATA_URL"], env["LOG_FILE"], env["PYTHONSAFEPATH"]) for env, _ in rendered} == {("", "", "")}
    assert {env["PIPELINE_RUN_ID"] for env, _ in rendered} == {f"{dag}/run/now" for dag in DAGS}


def test_time_limit_stops_the_step(project: Project) -> None:
    """A task that exceeds STEP_TIMEOUT fails at once, and its step ends with it."""
    with serve() as source:
        url = f"http://127.0.0.1:{source.server_port}/held"
        output = in_airflow(project, TEST, project.root / "dags", STEP_TIMEOUT="3", DATA_URL=url)

    assert {line for line in output.splitlines() if line.startswith("RUN")} == {f"RUN {dag} failed" for dag in DAGS}
    logs = [log.read_text(encoding="utf-8") for log in sorted((project.root / "logs").iterdir())]
    assert [log.count("[DATA_LOADER]: started") for log in logs] == [1, 1]
    assert all("stopped by SIGTERM" in log for log in logs)


def test_dags_test_reports_a_failure_once(project: Project) -> None:
    """In `airflow dags test`, which connects no callback of a DAG to Airflow, the task alone reports."""
    with serve() as source:
        target = f"json://127.0.0.1:{source.server_port}/notices"
        output = in_airflow(project, TEST, project.root / "dags", NOTIFY_URL=target, DATA_URL="none.csv")

    assert sorted(notice["title"] for notice in source.received) == sorted(f"{dag} failed" for dag in DAGS)
    assert "Callback failed" not in output


@pytest.mark.parametrize("target", ["https://hooks.example.org/Zq7Secret", "json://127.0.0.1:1/Zq7Secret"])
def test_undelivered_notice_is_an_error_without_the_secret(project: Project, target: str) -> None:
    """An unusable target appears only by its setting's name in everything that Airflow prints."""
    output = in_airflow(project, TEST, project.root / "dags", NOTIFY_URL=target, DATA_URL="none.csv")

    assert "NOTIFY_URL: " in output
    assert SECRET not in output


def test_notice_without_an_answer_and_without_a_log(project: Project) -> None:
    """A server that never answers does not hold up the task; without the log, the notice refers to Airflow."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=60"
        output = in_airflow(project, SLOW_NOTICE, project.root / "dags", NOTIFY_URL=target)

    assert output.splitlines()[-4:] == ["Task: train", "Cause: see the log of the task in Airflow", "False", "True"]


def test_run_that_took_too_long_is_reported(project: Project) -> None:
    """Airflow skips the tasks of such a run, so none of them has failed."""
    with serve() as source:
        target = f"json://127.0.0.1:{source.server_port}/notices"
        in_airflow(project, TIMED_OUT, project.root / "dags", NOTIFY_URL=target)

    assert [notice["title"] for notice in source.received] == ["my_pipeline failed"]


def test_question_shows_the_newest_run(project: Project) -> None:
    """A verdict without a run to compare with is shown with dashes; runs held back at the same time are named."""
    verdict = {"outcome": "cannot tell", "reason": "only 12 records in common", "against": None, "brier": None}
    verdict |= {"accuracy": {"champion": 0.98, "challenger": 0.94, "p": 0}}
    runs = [{"stamp": f"2026_11_22_21_36_{second}", "run": "/r", "verdict": verdict} for second in (36, 37)]
    runs[1]["published"] = "s3://bucket/runs/2026_11_22_21_36_37"
    shown = json.loads(in_airflow(project, QUESTION, project.root / "dags", FACTS=json.dumps(runs)).splitlines()[-1])

    assert shown.startswith("Run `2026_11_22_21_36_37` is held back: **cannot tell**.\n\nonly 12 records in common\n")
    assert "| | in use: none | this run | p |" in shown
    assert "| Brier score | – | – | – |\n| accuracy | 0.98 | 0.94 | 0 |" in shown
    assert "`s3://bucket/runs/2026_11_22_21_36_37`" in shown
    assert shown.endswith("not promoted here: 2026_11_22_21_36_36")


def test_cause_of_a_failure_is_that_of_the_last_try(project: Project, tmp_path: Path) -> None:
    """An error of an earlier try or of a different task is not taken for the cause."""
    log = tmp_path / "log"
    head = "[2026-11-22 18:48:00,123]"
    tries = [f"{head}[INFO][train]: [TRAIN]: started", f"{head}[ERROR][train]: [TRAIN]: ]: first"]
    log.write_text("\n".join([*tries, f"{head}[ERROR][evaluate]: [EVALUATE]: other"]) + "\n", encoding="utf-8")
    first = in_airflow(project, CAUSE, project.root / "dags", LOG=str(log))
    log.write_text("\n".join([*tries, tries[0]]) + "\n", encoding="utf-8")
    second = in_airflow(project, CAUSE, project.root / "dags", LOG=str(log))

    assert first.splitlines()[-1] == "CAUSE [TRAIN]: ]: first"
    assert second.splitlines()[-1] == "CAUSE None"


def test_last_line_of_a_prediction_is_its_path(project: Project) -> None:
    """Only the path of a file in the folder of predictions, wherever STATE_DIR is, is the output of the task."""
    folder = project.root.parent / "state" / "results" / "predictions"
    (folder / "folder").mkdir(parents=True)
    (folder / "new.csv").touch()
    wrong = [f"{folder}/none.csv", f"{folder}/folder", str(folder), "new.csv", "/etc/passwd", "late", " "]
    lines = "\n".join([f"{folder}/new.csv", *wrong])
    output = in_airflow(project, OUTPUT, project.root / "dags", LINES=lines, STATE_DIR=str(folder.parents[1]))
    taken, *refused = [line for line in output.splitlines() if re.match("TAKEN|REFUSED", line)]

    assert taken == f"TAKEN {folder}/new.csv"
    assert len(refused) == len(wrong)
    expected = f"REFUSED last line of output: expected the path of the predictions, {folder}/…, found "
    assert all(line.startswith(expected) for line in refused)


def test_pauses_between_retries_grow(project: Project) -> None:
    """Each pause is three times the previous one, also after a clear; an error without an exit code is final."""
    output = in_airflow(project, POLICY, project.root / "dags", RETRY_DELAY="2")

    assert [line for line in output.splitlines() if line.startswith("DECISION")] == [
        "DECISION retry 2.0",
        "DECISION retry 6.0",
        "DECISION retry 2.0",
        "DECISION fail None",
    ]
