"""The DAGs in a real Airflow: parsing, triggers by CLI, REST and browser, failures of every kind, cleared tasks."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import joblib
import psutil
import pytest
import requests
from conftest import ROOT, STEPS, Project, copy_project, garbled, wdbc_rows
from misbehaving import SECRET, serve

DAGS = ("my_pipeline", "my_pipeline_python")
PREDICT = "my_pipeline_predict"
# The example of docs/airflow.md.
CONSUMER = """
from airflow.sdk import DAG, Asset, task
@task
def after_a_new_model(triggering_asset_events):
    return [event.extra for event in triggering_asset_events[Asset("my_pipeline_model")]]
with DAG("consumer", schedule=[Asset("my_pipeline_model")], is_paused_upon_creation=False):
    after_a_new_model()
"""
SECONDS_TO_END = 120
PASSWORDS = "simple_auth_manager_passwords.json.generated"
# The environment of a user who also has a different Airflow; run_airflow.sh must ignore all of it.
OTHER_AIRFLOW = {
    "AIRFLOW_HOME": "/nowhere",
    "AIRFLOW_CONFIG": "/nowhere/airflow.cfg",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/airflow.db",
    "PYTHONPATH": "/nowhere",
}

# A variable of the workers, which a connection without this value must leave alone.
OWN_VARIABLE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


class Airflow(NamedTuple):
    """A running Airflow with the project in its dags folder."""

    project: Project
    address: str
    session: requests.Session
    source: ThreadingHTTPServer

    @property
    def url(self) -> str:
        """The address of the source server."""
        return f"http://127.0.0.1:{self.source.server_port}"

    def get(self, path: str) -> Any:
        """Return the REST API's answer to a GET request."""
        response = self.request("GET", path)
        assert response.ok, response.text
        return response.json()

    def post(self, path: str, **body: object) -> requests.Response:
        """Send a POST request."""
        return self.request("POST", path, json=body)

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request; repeat it while Airflow answers 500.

        It does so for an asset event whose consumer is still queued, and was seen to once in a few hundred requests.
        """
        for _ in range(5):
            response = self.session.request(method, f"{self.address}/api/v2{path}", timeout=30, **options)
            if response.status_code != requests.codes.server_error:
                break
            time.sleep(1)
        return response

    def trigger(self, dag: str = "my_pipeline", run_after: str | None = None, **conf: object) -> "DagRun":
        """Trigger a run by REST."""
        due = {"run_after": run_after} if run_after else {}
        response = self.post(f"/dags/{dag}/dagRuns", logical_date=None, conf=conf, **due)
        assert response.ok, response.text
        return DagRun(self, dag, response.json()["dag_run_id"])


class DagRun(NamedTuple):
    """A run of a DAG."""

    airflow: Airflow
    dag: str
    run_id: str

    @property
    def path(self) -> str:
        """The run's path in the REST API."""
        return f"/dags/{self.dag}/dagRuns/{quote(self.run_id)}"

    def wait(self) -> str:
        """Wait for the end of the run and return its final state."""
        return wait_for(lambda: self.state() if self.state() in {"success", "failed"} else None)

    def state(self) -> str:
        """Return the current state."""
        return str(self.airflow.get(self.path)["state"])

    def tasks(self) -> dict[str, tuple[str, int]]:
        """Return each task's state and number of tries."""
        found = self.airflow.get(f"{self.path}/taskInstances")["task_instances"]
        return {task["task_id"]: (task["state"], task["try_number"]) for task in found}

    def task_log(self, task: str, try_number: int = 1) -> str:
        """Return a task's log as the UI shows it."""
        lines = self.airflow.get(f"{self.path}/taskInstances/{task}/logs/{try_number}")["content"]
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)

    def xcom(self, task: str) -> Any:
        """Return what a task has returned."""
        return self.airflow.get(f"{self.path}/taskInstances/{task}/xcomEntries/return_value")["value"]

    def question(self) -> Any:
        """Return what the run's task `approve` asks, if it does."""
        asked = self.airflow.get(f"{self.path}/hitlDetails")["hitl_details"]
        return asked[0] if asked and asked[0]["task_instance"]["state"] == "awaiting_input" else None

    def answer(self, option: str, reason: str) -> None:
        """Answer that question, as the UI does."""
        response = self.airflow.session.patch(
            f"{self.airflow.address}/api/v2{self.path}/taskInstances/approve/-1/hitlDetails",
            json={"chosen_options": [option], "params_input": {"reason": reason}},
            timeout=30,
        )
        assert response.ok, response.text

    def clear(self, task: str) -> None:
        """Clear a task and its downstream tasks, as the UI does."""
        response = self.airflow.post(
            f"/dags/{self.dag}/clearTaskInstances",
            dry_run=False,
            dag_run_id=self.run_id,
            task_ids=[task],
            include_downstream=True,
            only_failed=False,
        )
        assert response.ok, response.text

    def asset_event(self) -> Any:
        """Return the run's only asset event."""
        events = self.airflow.get("/assets/events?order_by=-timestamp")["asset_events"]
        (event,) = [event for event in events if event["source_run_id"] == self.run_id]
        return event

    def folders(self) -> list[Path]:
        """Return the run's folders: one, however often its tasks are tried."""
        prefix = f"{self.dag}/{self.run_id}/"
        return [folder for folder in self.airflow.project.runs() if manifest(folder)["run_id"].startswith(prefix)]

    def log_file(self) -> Path:
        """Return the run's only log."""
        (folder,) = self.folders()
        return self.airflow.project.root / "logs" / f"log_{folder.name}.log"

    def log(self) -> str:
        """Return the text of the run's only log."""
        return self.log_file().read_text(encoding="utf-8")

    def notice(self) -> Any:
        """Wait for the run's notice and return it; the end of the tests shows that it has only one."""
        received = self.airflow.source.received  # type: ignore[attr-defined]
        return wait_for(lambda: next((one for one in received if str(self.log_file()) in one["message"]), None))


def manifest(folder: Path) -> Any:
    """Return the manifest of a run."""
    return json.loads((folder / "manifest.json").read_bytes())


def wait_for(ask: Callable[[], Any], seconds: float = SECONDS_TO_END) -> Any:
    """Call `ask` until it returns something other than None, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ask()
        if found is not None:
            return found
        time.sleep(0.2)
    raise TimeoutError


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working directory is the folder or below it."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def make_venv(folder: Path) -> tuple[Path, Path]:
    """Make an empty virtual environment; return its site-packages and those that run the tests."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    ours, theirs = (next(root.glob("lib/python3*/site-packages")) for root in (folder, Path(sys.prefix)))
    return ours, theirs


@pytest.fixture(scope="module")
def python_without_airflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interpreter that has all packages except Airflow's."""
    folder = tmp_path_factory.mktemp("python")
    ours, theirs = make_venv(folder)
    for package in theirs.iterdir():
        if "airflow" not in package.name:
            (ours / package.name).symlink_to(package)
    python = folder / "bin" / "python"
    assert subprocess.run([python, "-c", "import airflow"], capture_output=True, check=False, timeout=60).returncode
    return python


def install_here(project: Project) -> None:
    """Give run_airflow.sh the packages of the tests, so that it installs nothing."""
    venv = project.root / ".airflow" / "venv"
    ours, theirs = make_venv(venv)
    (ours / "theirs.pth").write_text(f"{theirs}\n", encoding="utf-8")
    command = venv / "bin" / "airflow"
    command.write_text(f'#!/bin/sh\nexec "{venv}/bin/python" -m airflow "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    shutil.copy(project.root / "requirements.txt", venv / "installed-requirements.txt")
    (venv / "made-in").write_text(f"{venv}\n", encoding="utf-8")


def run_airflow(project: Project, **settings: str) -> "subprocess.Popen[str]":
    """Start run_airflow.sh as if from its own terminal."""
    environment = project.environment(**settings)
    del environment["ETL_PYTHON"]
    with (project.root / ".airflow" / "output").open("w") as output:
        command = ["sh", str(project.root / "run_airflow.sh")]
        return subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, text=True, start_new_session=True
        )


def printed_login(project: Project) -> tuple[str, str] | None:
    """Return the address and the password that run_airflow.sh prints once Airflow is ready."""
    output = (project.root / ".airflow" / "output").read_text(encoding="utf-8")
    found = re.search(
        r"^Address:  (http://127.0.0.1:\d+)/dags/my_pipeline\nLogin:    admin, password (\S+)$", output, re.MULTILINE
    )
    return (found[1], found[2]) if found else None


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, python_without_airflow: Path) -> Iterator[Airflow]:
    """Run run_airflow.sh on a copy of the project; once stopped, it leaves no process."""
    project = copy_project(tmp_path_factory.mktemp("airflow") / "мой проект 2")
    (project.root / ".env").write_text(f"ETL_PYTHON={python_without_airflow}\nRETRY_DELAY=1\n", encoding="utf-8")
    install_here(project)
    (project.root / ".airflow" / "dags").mkdir()
    (project.root / ".airflow" / "dags" / "consumer.py").write_text(CONSUMER, encoding="utf-8")
    with serve() as source, socket.socket() as taken:
        # Port 8080 is in use, by this socket or by any other: run_airflow.sh must take a different port.
        with suppress(OSError):
            taken.bind(("", 8080))
            taken.listen()
        own = {"NOTIFY_URL": f"json://127.0.0.1:{source.server_port}/notices"} | OWN_VARIABLE
        running = run_airflow(project, **own, **OTHER_AIRFLOW)
        try:
            address, secret = wait_for(lambda: printed_login(project), 300)
            assert not address.endswith(":8080")
            running_airflow = Airflow(project, address, log_in(address, secret), source)
            yield running_airflow
            assert running_airflow.get("/importErrors")["import_errors"] == []
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0
            assert processes_in(project.root) == []
    logs = Counter(re.findall(r"Log: .*?\.log", str(source.received)))  # type: ignore[attr-defined]
    assert set(logs.values()) <= {1}, logs


def log_in(address: str, secret: str) -> requests.Session:
    """Return an authenticated session of the REST API."""
    session = requests.Session()
    session.trust_env = False
    login = {"username": "admin", "password": secret}
    token = session.post(f"{address}/auth/token", json=login, timeout=30).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    return session


def results(folder: Path) -> dict[str, bytes]:
    """Return what must not differ for the same input: four files and the model's coefficients."""
    names = ("raw_data.csv", "clear_data.csv", "evaluation.json", "predictions.csv")
    coefficients = joblib.load(folder / "model.pkl")[-1].coef_.tobytes()
    return {name: (folder / name).read_bytes() for name in names} | {"model.pkl": coefficients}


ALL_GREEN = dict.fromkeys(STEPS, ("success", 1))


def test_dag_is_there_at_once(airflow: Airflow) -> None:
    """A new user finds the DAGs and no others, unpaused, without import errors, their docstring as their page."""
    dags = wait_for(lambda: found if len(found := airflow.get("/dags")["dags"]) == 5 else None)
    found = {dag["dag_id"]: dag for dag in dags}

    assert airflow.get("/importErrors")["total_entries"] == 0
    assert set(found) == {*DAGS, "my_pipeline_promotion", PREDICT, "consumer"}
    assert not any(dag["is_paused"] for dag in found.values())
    details = airflow.get("/dags/my_pipeline/details")
    assert "| `evaluate` |" in details["doc_md"]
    assert (details["catchup"], details["timetable_summary"]) == (False, None)
    operators = {task["task_id"]: task["operator_name"] for task in airflow.get("/dags/my_pipeline/tasks")["tasks"]}
    assert operators == dict.fromkeys(STEPS, "BashOperator")


@pytest.mark.parametrize("dag", DAGS)
def test_same_results_as_by_shell(airflow: Airflow, dag: str) -> None:
    """A run has four green tasks, the results of run_pipeline.sh, and its metrics on the model's asset."""
    env_file, place = airflow.project.root / ".env", f"{airflow.project.root}/published"
    storage = f"STORAGE_URL='FILE://{place}/'\n" if dag == "my_pipeline" else ""
    with replaced(env_file, env_file.read_text(encoding="utf-8") + storage):
        run = airflow.trigger(dag, data_url=f"{airflow.url}/good")
        assert run.wait() == "success", run.tasks()

    assert run.tasks() == ALL_GREEN
    assert {line.split("][")[2].partition("]")[0] for line in run.log().splitlines()} == set(STEPS)
    (folder,) = run.folders()
    done = airflow.project.pipeline(DATA_URL=f"{airflow.url}/good")
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(airflow.project.runs()[-1])
    event = run.asset_event()
    assert event["name"] == "my_pipeline_model"
    metrics = json.loads((folder / "evaluation.json").read_bytes())
    source = manifest(folder)["artifacts"]["raw_data.csv"]
    assert bool(storage) == (Path(place) / "runs" / folder.name / "manifest.json").exists()
    published = {"published": f"file://{place}/runs/{folder.name}"} if storage else {}
    facts = {"stamp": folder.name, "run": str(folder), "data_sha256": source["sha256"]}
    assert event["extra"] == facts | {"verdict": manifest(folder).get("verdict")} | published | metrics
    assert airflow.get(f"{run.path}/taskInstances/evaluate/xcomEntries/metrics")["value"] == metrics
    consumer = started_by(event, airflow, "consumer")
    assert consumer.wait() == "success"
    assert event["extra"] in consumer.xcom("after_a_new_model")


def started_by(event: Any, airflow: Airflow, dag: str) -> DagRun:
    """Wait for the run of a DAG that an asset event starts, and return it."""

    def find() -> DagRun | None:
        for run in airflow.get(f"/dags/{dag}/dagRuns?order_by=-run_after")["dag_runs"]:
            found = DagRun(airflow, dag, run["dag_run_id"])
            events = airflow.get(f"{found.path}/upstreamAssetEvents")["asset_events"]
            if event["id"] in {one["id"] for one in events}:
                return found
        return None

    found: DagRun = wait_for(find)
    return found


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_held_back_run_waits_for_a_person(airflow: Airflow, option: str) -> None:
    """A run that is held back is no event of the model's asset, but is reported, and promoted once it is approved."""
    root, reason = airflow.project.root, "; touch pwned $(touch pwned) {{ 7 * 7 }} it's .sh"
    (root / "worse.csv").write_text("\n".join(garbled(wdbc_rows())) + "\n", encoding="utf-8")
    assert airflow.trigger().wait() == "success"
    settings = (root / ".env").read_text(encoding="utf-8")
    with replaced(root / ".env", f"{settings}\nDATA_URL=worse.csv\nGATE=on\n"):
        run = airflow.trigger()
        assert run.wait() == "success"
        event, stamp = run.asset_event(), run.folders()[0].name
        promotion = started_by(event, airflow, "my_pipeline_promotion")
        question = wait_for(promotion.question)
        promotion.answer(option, reason)
        assert promotion.wait() == "success"
    verdict = manifest(run.folders()[0])["verdict"]

    assert (verdict["outcome"], event["name"]) == ("worse", "my_pipeline_held_back")
    assert event["extra"]["verdict"] == verdict
    assert question["subject"] == f"Promote run {stamp}?"
    assert verdict["reason"] in question["body"]
    assert re.search(r"\| accuracy \| 0\.97\d* \| 0\.\d+ \| \S+ \|\n\| recall \| 0\.96", question["body"])
    (notice,) = [one for one in airflow.source.received if stamp in one["title"]]  # type: ignore[attr-defined]
    assert (notice["title"], notice["type"]) == (f"my_pipeline: run {stamp} is held back", "warning")
    assert notice["message"].startswith(f"Verdict: worse\nReason: {verdict['reason']}\nTo promote it: ")
    assert notice["message"].endswith(f"/etl/runs.py' promote {stamp} --reason TEXT --by NAME")
    act = json.loads((root / "results" / "promotions" / "latest.json").read_bytes())
    assert (act["run"] == stamp) == (option != "Reject")
    if option == "Reject":
        assert promotion.tasks() == {"approve": ("success", 1), "promote": ("skipped", 0)}
        return
    assert promotion.tasks() == dict.fromkeys(("approve", "promote"), ("success", 1))
    assert (act["act"], act["reason"], act["by"], act["verdict"]) == ("promote", reason, "admin", verdict)
    promoted = promotion.asset_event()
    assert (promoted["name"], promoted["extra"]) == ("my_pipeline_model", event["extra"] | {"promoted_by": "admin"})
    consumer = started_by(promoted, airflow, "consumer")
    assert consumer.wait() == "success"
    assert promoted["extra"] in consumer.xcom("after_a_new_model")


def test_form_names_source_and_output(airflow: Airflow) -> None:
    """A source that is down at first is tried again; the task returns the path of the output that the form names."""
    assert airflow.trigger().wait() == "success"
    airflow.source.tries.clear()  # type: ignore[attr-defined]
    run = airflow.trigger(PREDICT, source=f"{airflow.url}/third_time_good", output="monday.csv")

    assert run.wait() == "success"
    assert run.tasks() == {"predict": ("success", 3)}
    output = airflow.project.root / "results" / "predictions" / "monday.csv"
    assert run.xcom("predict") == str(output)
    assert len(output.read_text(encoding="utf-8").splitlines()) == 1 + len(wdbc_rows())


def test_promoted_model_scores_the_standing_file(airflow: Airflow) -> None:
    """A model that comes into use starts the scoring of PREDICT_URL, whose secret Airflow never shows."""
    env_file, place = airflow.project.root / ".env", f"{airflow.project.root}/published"
    url = f"{airflow.url}/good?token={SECRET}".replace("//", f"//user:{SECRET}@", 1)
    settings = f"{env_file.read_text(encoding='utf-8')}GATE=off\nPREDICT_URL={url}\nSTORAGE_URL='file://{place}'\n"
    with replaced(env_file, settings):
        schedule_predictions(airflow, "Asset")
        model = airflow.trigger()
        assert model.wait() == "success"
        run = started_by(model.asset_event(), airflow, PREDICT)
        assert run.wait() == "success", run.task_log("predict")
    schedule_predictions(airflow, None)

    predictions = Path(run.xcom("predict"))
    (published,) = Path(place).glob(f"predictions/*/{predictions.name}")
    assert published.read_bytes() == predictions.read_bytes()
    about = json.loads(published.with_name(f"{predictions.name}.json").read_bytes())
    assert about["run"] == model.folders()[0].name
    shown = airflow.get(f"{run.path}/taskInstances/predict")["rendered_fields"]
    assert shown["env"]["ETL_PYTHON"]
    assert SECRET not in json.dumps([shown, airflow.get(f"/dags/{PREDICT}/details"), run.task_log("predict")])


def schedule_predictions(airflow: Airflow, schedule: str | None) -> None:
    """Make Airflow read the DAG again, and wait until it has this schedule."""
    dag = airflow.get(f"/dags/{PREDICT}")
    assert airflow.request("PUT", f"/parseDagFile/{dag['file_token']}").ok
    wait_for(lambda: True if airflow.get(f"/dags/{PREDICT}")["timetable_summary"] == schedule else None)


def test_source_that_cannot_be_scored_is_tried_once(airflow: Airflow) -> None:
    """Without a source, and with a wrong one, the task fails at once, and its log says why."""
    assert airflow.trigger().wait() == "success"
    for way, message in {"": "PREDICT_URL", "/html": "HTML", "/404": "found 404"}.items():
        run = airflow.trigger(PREDICT, source=way and airflow.url + way)
        assert run.wait() == "failed"
        assert run.tasks() == {"predict": ("failed", 1)}
        assert message in run.task_log("predict")


def test_only_one_at_a_time(airflow: Airflow) -> None:
    """A second run_airflow.sh of the same project reports the first and leaves it alone."""
    done = airflow.project.run(["sh", "run_airflow.sh"])

    assert done.returncode == os.EX_TEMPFAIL
    assert "already running" in done.stderr
    assert airflow.get("/monitor/health")["scheduler"]["status"] == "healthy"


def test_trigger_by_cli(airflow: Airflow) -> None:
    """The environment file makes `airflow dags trigger` work in a second terminal, with the form's parameters."""
    conf = json.dumps({"data_url": f"{airflow.url}/good"})
    done = airflow.project.run(
        ["sh", "-c", '. .airflow/environment && airflow dags trigger my_pipeline -r by_cli --conf "$1"', "sh", conf],
        **OTHER_AIRFLOW,
    )
    run = DagRun(airflow, "my_pipeline", "by_cli")

    assert done.returncode == 0, done.stderr
    assert run.wait() == "success"
    assert manifest(run.folders()[0])["steps"]["data_loader"]["source"] == f"{airflow.url}/good"


@pytest.mark.parametrize("dag", DAGS)
def test_source_down_for_the_first_two_tries(airflow: Airflow, dag: str) -> None:
    """The third try succeeds, in the log and folder of the first."""
    airflow.source.tries.clear()  # type: ignore[attr-defined]
    run = airflow.trigger(dag, data_url=f"{airflow.url}/third_time_good")

    assert run.wait() == "success"
    assert run.tasks() == ALL_GREEN | {"data_loader": ("success", 3)}
    assert run.log().count("[DATA_LOADER]: started") == 3
    assert "exit code 75 is temporary: retrying in 1 s" in run.task_log("data_loader", 1)
    assert "exit code 75 is temporary: retrying in 3 s" in run.task_log("data_loader", 2)


@pytest.mark.parametrize("dag", DAGS)
def test_source_down_for_good(airflow: Airflow, dag: str) -> None:
    """The run fails after three tries in one log, and NOTIFY_URL receives one message, without data."""
    run = airflow.trigger(dag, data_url=f"{airflow.url}/503?token=hidden")

    assert run.wait() == "failed"
    assert run.tasks() == dict.fromkeys(STEPS, ("upstream_failed", 0)) | {"data_loader": ("failed", 3)}
    assert run.log().count("found 503") == 3
    notice = run.notice()
    assert (notice["title"], notice["type"]) == (f"{dag} failed", "failure")
    cause = "[DATA_LOADER]: http://127.0.0.1:"
    assert notice["message"].startswith(f"Task: data_loader\nCause: {cause}")
    assert notice["message"].endswith(f"found 503; check DATA_URL and its server\nLog: {run.log_file()}")


@pytest.mark.parametrize("dag", DAGS)
def test_bad_data_is_tried_once(airflow: Airflow, dag: str) -> None:
    """A source that is not a CSV fails at once, and the task's log says why."""
    run = airflow.trigger(dag, data_url=f"{airflow.url}/html")

    assert run.wait() == "failed"
    assert run.tasks()["data_loader"] == ("failed", 1)
    log = run.task_log("data_loader")
    assert "exit code 65 is not retried" in log
    assert "HTML" in log


@pytest.mark.parametrize("dag", DAGS)
def test_hostile_value_is_never_executed(airflow: Airflow, dag: str) -> None:
    """Shell syntax in an address stays part of the address; a value that is not a web address is refused."""
    run = airflow.trigger(
        dag, data_url=f"{airflow.url}/404?;touch${{IFS}}pwned;$(touch${{IFS}}pwned)`touch${{IFS}}pwned`"
    )
    refused = [
        "/etc/passwd",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "http://u:secret@h/x",
        "http://h/; touch pwned",
    ]
    refused += ["http://", "http://h/x\n", "ftp://h/x", "{{ ti }}"]

    for value in refused:
        response = airflow.post(f"/dags/{dag}/dagRuns", logical_date=None, conf={"data_url": value})
        assert response.status_code == 400, (value, response.text)
    assert run.wait() == "failed"
    assert run.tasks()["data_loader"] == ("failed", 1)
    assert "found 404" in run.log()
    assert not list(airflow.project.root.rglob("pwned*"))


@pytest.mark.parametrize(
    ("dag", "task", "known"),
    [("my_pipeline", "data_loader", "data_url"), (PREDICT, "predict", "source, output")],
)
def test_misspelt_parameter_fails(airflow: Airflow, dag: str, task: str, known: str) -> None:
    """A run with an unknown parameter fails instead of loading the default source."""
    run = airflow.trigger(dag, data_ulr=f"{airflow.url}/good")

    assert run.wait() == "failed"
    assert run.tasks()[task] == ("failed", 1)
    assert f"conf: expected {known}, found data_ulr" in run.task_log(task)
    assert run.folders() == []


def test_two_runs_in_the_same_second(airflow: Airflow) -> None:
    """Two runs that are due within a millisecond have their own log, folder and source each."""
    # In the future, so that Airflow, however busy, knows both before it starts one.
    now = datetime.now(UTC)
    due = [(now + timedelta(seconds=5, milliseconds=i)).isoformat() for i in range(2)]
    ways = ("good", "chunked")
    runs = [airflow.trigger(run_after=at, data_url=f"{airflow.url}/{way}") for at, way in zip(due, ways, strict=True)]

    shown = [datetime.fromisoformat(airflow.get(run.path)["run_after"]) for run in runs]
    assert abs(shown[0] - shown[1]) < timedelta(seconds=1)
    assert [run.wait() for run in runs] == ["success", "success"]
    sources = [manifest(run.folders()[0])["steps"]["data_loader"]["source"] for run in runs]
    assert sources == [f"{airflow.url}/good", f"{airflow.url}/chunked"]
    assert [run.log().count("started") for run in runs] == [4, 4]


@pytest.mark.parametrize("dag", DAGS)
def test_killed_step_and_cleared_task(airflow: Airflow, dag: str) -> None:
    """A killed step fails its task and leaves no partial file; a cleared task continues in the same log and folder."""
    airflow.source.release.clear()  # type: ignore[attr-defined]
    run = airflow.trigger(dag, data_url=f"{airflow.url}/held")
    process = wait_for(lambda: find_step(airflow.project, "data_loader"))
    wait_for(lambda: True if run.folders() and "bytes" in run.log() else None)
    process.kill()

    assert run.wait() == "failed"
    assert run.tasks()["data_loader"] == ("failed", 1)
    assert "exit code -9 is not retried" in run.task_log("data_loader")
    assert not (run.folders()[0] / "raw_data.csv").exists()
    airflow.source.release.set()  # type: ignore[attr-defined]
    run.clear("data_loader")
    wait_for(lambda: True if run.state() != "failed" else None)
    assert run.wait() == "success"
    assert run.log().count("[DATA_LOADER]: started") == 2
    run.clear("train")
    wait_for(lambda: True if run.state() != "success" else None)
    assert run.wait() == "success"
    assert run.log().count("[TRAIN]: started") == 2


def test_killed_task_is_tried_again_in_the_same_log(airflow: Airflow) -> None:
    """If Airflow's process is killed instead of the step, the step continues and the next try waits for it."""
    airflow.source.release.clear()  # type: ignore[attr-defined]
    run = airflow.trigger(data_url=f"{airflow.url}/held")
    process = wait_for(lambda: find_step(airflow.project, "data_loader"))
    process.parent().kill()
    airflow.source.release.set()  # type: ignore[attr-defined]

    assert run.wait() == "success"
    assert run.tasks()["data_loader"][1] > 1
    assert run.log().count("[DATA_LOADER]: done") == 2


@pytest.mark.parametrize("dag", DAGS)
def test_killed_task_is_reported(airflow: Airflow, dag: str) -> None:
    """The notice is also sent if the process that should send it is killed, at each of its tries."""
    with replaced(airflow.project.root / "etl" / "transform.py", "import time; time.sleep(60)\n"):
        run = airflow.trigger(dag)
        for _ in range(3):
            process = wait_for(lambda: find_step(airflow.project, "transform"))
            process.parent().kill()
            process.kill()
            process.wait(10)

    assert run.wait() == "failed"
    assert run.notice()["message"].startswith("Task: transform\nCause: see the log of the task in Airflow\nLog: ")


# The first line is masked by itself, and so is the second.
AWKWARD = "Zq7'\"Secret\n{{ 7 * 7 }} $HOME `pwd` \\n.sh"
SHOW_CREDENTIALS = """
import json, os, pathlib, sys
found = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
pathlib.Path("seen.json").write_text(json.dumps(found))
print(*found.values(), sep="\\n")
print(sys.argv[1])
"""


@pytest.mark.parametrize("dag", DAGS)
def test_credentials_of_a_connection(airflow: Airflow, dag: str) -> None:
    """A step gets what STORAGE_CONN holds, unchanged, and keeps the worker's other variables; Airflow shows ***."""
    name, root = f"storage-{dag}", airflow.project.root
    extra = json.dumps({"region_name": "eu-central-1", "aws_session_token": f"session {AWKWARD}", "endpoint_url": ""})
    made = airflow.post(
        "/connections", connection_id=name, conn_type="aws", login="AKIA0123", password=AWKWARD, extra=extra
    )
    assert made.ok, made.text
    settings = (root / ".env").read_text(encoding="utf-8") + f"STORAGE_CONN={name}\n"
    with replaced(root / ".env", settings), replaced(root / "etl" / "transform.py", SHOW_CREDENTIALS):
        run = airflow.trigger(dag)
        run.wait()

    credentials = {"AWS_ACCESS_KEY_ID": "AKIA0123", "AWS_SECRET_ACCESS_KEY": AWKWARD}
    credentials |= {"AWS_SESSION_TOKEN": f"session {AWKWARD}", "AWS_DEFAULT_REGION": "eu-central-1"}
    assert json.loads((root / "seen.json").read_bytes()) == credentials | OWN_VARIABLE
    fields = airflow.get(f"{run.path}/taskInstances/transform")["rendered_fields"]
    shown = (fields.get("env") or fields["op_kwargs"]["env"]).items()
    assert [value for key, value in shown if key.startswith("AWS_")] == ["***", "eu-central-1", "***", "***"]
    log = run.task_log("transform")
    assert "AKIA0123" in log
    assert not [part for part in ("Zq7", "7 * 7", "$HOME") if part in log]


@pytest.mark.parametrize("dag", DAGS)
def test_missing_connection_is_not_retried(airflow: Airflow, dag: str) -> None:
    """A run without its connection fails at once, and the task's log names the setting."""
    env_file = airflow.project.root / ".env"
    with replaced(env_file, env_file.read_text(encoding="utf-8") + "STORAGE_CONN=missing\n"):
        run = airflow.trigger(dag)
        assert run.wait() == "failed"

    assert run.tasks()["data_loader"] == ("failed", 1)
    expected = "expected a connection that exists in Airflow, found 'missing'; correct it"
    assert f"STORAGE_CONN (set by {env_file}): {expected}" in run.task_log("data_loader")


@contextmanager
def replaced(file: Path, text: str) -> Iterator[None]:
    """Give a file other content for a while."""
    original = file.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(original, encoding="utf-8")


def find_step(project: Project, step: str) -> psutil.Process | None:
    """Return the running process of a step, if any."""
    for process in processes_in(project.root):
        if process.cmdline()[1:2] == [f"etl/{step}.py"]:
            return process
    return None


@pytest.mark.parametrize("dag", DAGS)
def test_stopped_task_stops_its_step(airflow: Airflow, dag: str) -> None:
    """Marking a task as failed ends its step, which logs the signal, and is reported."""
    airflow.source.release.clear()  # type: ignore[attr-defined]
    run = airflow.trigger(dag, data_url=f"{airflow.url}/held")
    wait_for(lambda: find_step(airflow.project, "data_loader"))
    response = airflow.session.patch(
        f"{airflow.address}/api/v2{run.path}/taskInstances/data_loader", json={"new_state": "failed"}, timeout=30
    )

    assert response.ok, response.text
    wait_for(lambda: True if find_step(airflow.project, "data_loader") is None else None)
    assert "stopped by SIGTERM" in run.log()
    assert run.notice()
    airflow.source.release.set()  # type: ignore[attr-defined]


LAST_LINES = {"stray": "print('late')", "none": "pass", "hostile": "print('/etc/passwd; touch pwned')"}


@pytest.mark.parametrize("dag", DAGS)
@pytest.mark.parametrize("last", LAST_LINES)
def test_output_with_a_wrong_last_line_is_an_error(airflow: Airflow, dag: str, last: str) -> None:
    """A line printed after the log's path, or instead of it, is never taken for the path."""
    path = "import sys; print(sys.argv[1], flush=True); sys.stdout = sys.stderr\n" if last == "stray" else ""
    with replaced(airflow.project.root / "etl" / "transform.py", path + LAST_LINES[last] + "\n"):
        run = airflow.trigger(dag)
        assert run.wait() == "failed"

    assert run.tasks() == {
        "data_loader": ("success", 1),
        "transform": ("failed", 1),
        "train": ("upstream_failed", 0),
        "evaluate": ("upstream_failed", 0),
    }
    assert "expected the path of the run's log" in run.task_log("transform")
    assert run.notice()["message"].startswith("Task: transform\n")


@pytest.fixture
def page(airflow: Airflow, chromium: Any) -> Any:
    """Open the DAG's page in Chromium, logged in with the printed password."""
    _, secret = printed_login(airflow.project)
    page = chromium.new_page(viewport={"width": 1280, "height": 800}, locale="en-US")
    page.goto(f"{airflow.address}/dags/my_pipeline")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", secret)
    page.click("button[type=submit]")
    return page


def test_trigger_by_clicking(airflow: Airflow, page: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A user logs in, fills in the form, clicks Trigger, and sees four green tasks and the metrics on the asset."""
    pictures = ROOT / "images" if pytestconfig.getoption("--pictures") else tmp_path
    page.get_by_role("button", name="Trigger Dag").first.click()
    form = page.get_by_role("dialog")
    form.get_by_text("Where this run loads the CSV from").wait_for()
    take(page, pictures / "airflow_form.png")
    form.locator("[name=element_data_url]").fill(f"{airflow.url}/good")
    form.get_by_role("button", name="Trigger", exact=True).click()
    page.wait_for_url(re.compile("/runs/"))
    page.wait_for_function("document.querySelectorAll('table').length > 0")
    page.locator("table").get_by_text("Success").nth(3).wait_for(timeout=60_000)
    take(page, pictures / "airflow.png")
    run = DagRun(airflow, "my_pipeline", unquote(page.url.partition("/runs/")[2]))

    assert run.wait() == "success"
    assert run.tasks() == ALL_GREEN
    assert manifest(run.folders()[0])["steps"]["data_loader"]["source"] == f"{airflow.url}/good"
    show_metrics(page, airflow)
    page.get_by_text(str(json.loads((run.folders()[0] / "evaluation.json").read_bytes())["accuracy"])).first.wait_for()
    take(page, pictures / "airflow_asset.png", clip={"x": 504, "y": 70, "width": 776, "height": 690})


def show_metrics(page: Any, airflow: Airflow) -> None:
    """Open the asset, expand its newest event and widen it to half of the window."""
    page.goto(f"{airflow.address}/assets")
    page.get_by_role("link", name="my_pipeline_model").first.click()
    page.locator(".codicon-folding-collapsed").first.click()
    border = page.get_by_role("separator").first.bounding_box()
    page.mouse.move(border["x"] + 1, 400)
    page.mouse.down()
    page.mouse.move(500, 400, steps=10)
    page.mouse.up()


def take(page: Any, path: Path, **part: Any) -> None:
    """Take a screenshot, or a part of it, after the animations have ended."""
    page.wait_for_timeout(1500)
    page.screenshot(path=path, **part)
    assert path.stat().st_size > 20_000


def test_next_run_airflow_ends_what_a_killed_one_left(make_project: Callable[[str], Project]) -> None:
    """Processes that survive a kill -9 end before Airflow starts again; Ctrl-C during the start leaves none."""
    project = make_project("project")
    install_here(project)
    first = run_airflow(project)
    wait_for(lambda: True if len(processes_in(project.root)) >= 5 else None)
    (head,) = [
        process for process in processes_in(project.root) if process.cmdline()[-3:] == ["-m", "airflow", "standalone"]
    ]
    orphans = [process for process in head.children(recursive=True) if process.is_running()]
    first.kill()
    first.wait()
    head.kill()
    second = run_airflow(project)
    wait_for(lambda: None if any(orphan.is_running() for orphan in orphans) else True)
    wait_for(lambda: True if len(processes_in(project.root)) >= 3 else None)
    second.send_signal(signal.SIGINT)

    assert second.wait(60) == 0
    assert processes_in(project.root) == []


def test_airflow_that_ends_is_never_called_ready(make_project: Callable[[str], Project]) -> None:
    """If Airflow cannot start, run_airflow.sh reports that, names the log and ends."""
    project = make_project("project")
    install_here(project)
    (project.root / ".airflow" / "airflow.db").mkdir()
    running = run_airflow(project)
    code = running.wait(110)
    output = (project.root / ".airflow" / "output").read_text(encoding="utf-8")

    assert code == os.EX_SOFTWARE
    assert "Airflow ended unexpectedly" in output
    assert "ready" not in output
    assert processes_in(project.root) == []
