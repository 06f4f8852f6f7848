"""How a script becomes a task of either DAG: settings, form, environment, retries, what is checked and who is told."""

import json
import logging
import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, Context, Param, RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[1]
LOGS = (ROOT / "logs").resolve()
RUNS = ROOT / "results" / "runs"
ENV_FILE = ROOT / ".env"
if not (ROOT / "etl").is_dir():
    raise FileNotFoundError(f"expected the project around dags/, found no {ROOT / 'etl'}; link or copy all of it here")
# What the DAGs read themselves; the steps read theirs.
DEFAULTS = {
    "DATA_TIMEOUT": "30",
    "ETL_PYTHON": sys.executable,
    "NOTIFY_URL": "",
    "OWNER_LINK": "",
    "RETRY_DELAY": "5",
    "SCHEDULE": "",
    "STEP_TIMEOUT": "21600",
}
RETRIES = 2
MODEL = Asset("my_pipeline_model", group="my_pipeline")


def setting(name: str) -> str:
    """Return a setting: the environment's, else that of `.env`, else the default; an empty one counts as none."""
    in_file = dotenv_values(ENV_FILE, encoding="utf-8-sig")
    return (os.environ.get(name) or in_file.get(name) or DEFAULTS[name]).strip()


def seconds(name: str) -> float:
    """Return a setting that is a time. Raises ValueError for another, which the UI shows as an import error."""
    text = setting(name)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError(f"{name}: expected seconds, found {text[:40]!r}; correct the environment or {ENV_FILE}")
    return float(text)


class RetryUnreachable(RetryPolicy):
    """Try again, after a growing pause, if the source could not be reached; any other failure is final."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide by the exit code, which the operator's exception tells; the reason gets into the task's log."""
        del context
        found = re.search(r"exit code (-?[0-9]+)", str(exception))
        if not found or int(found[1]) != os.EX_TEMPFAIL:
            return RetryDecision.fail(f"{found[0] if found else type(exception).__name__} is not tried again")
        # Counted from the last try: after a clear, try_number goes on from where it was.
        pause = seconds("RETRY_DELAY") * 3 ** (RETRIES - 1 - max_tries + try_number)
        return RetryDecision.retry(timedelta(seconds=pause), f"{found[0]}: unreachable, tried again in {pause:g} s")


def environment(after: str | None = None) -> dict[str, str]:
    """Return what a step's process gets beside the worker's own variables, as templates; `after`: the task before."""
    return {
        "LOG_FILE": f"{{{{ ti.xcom_pull(task_ids='{after}') }}}}" if after else "",
        "ETL_PYTHON": setting("ETL_PYTHON"),
        "FORM_DATA_URL": "{{ params.data_url or '' }}",
        "DATA_TIMEOUT": "{{ params.data_timeout }}",
        # The same at every try and after a clear, so that they go on in the same log and folder.
        "PIPELINE_RUN_ID": "{{ dag.dag_id }}/{{ run_id }}/{{ dag_run.run_after }}",
        # With it, Python would not find what the scripts share.
        "PYTHONSAFEPATH": "",
    }


def check_conf(context: Context) -> None:
    """Fail for a parameter that is none: a run with a misspelt one would quietly take the setting's source."""
    unknown = sorted(set(context["dag_run"].conf or {}) - set(PARAMS))
    if unknown:
        raise AirflowFailException(f"conf: expected {', '.join(PARAMS)}, found {', '.join(unknown)}; trigger a new run")


def check_log(line: str) -> str:
    """Return the last line of a task's output, if it is the path of a log of this project."""
    path = Path(line)
    if path.parent != LOGS or not re.fullmatch(r"log_[0-9]{4}(_[0-9]{2}){5}\.log", path.name) or not path.is_file():
        found = "another line, the last above" if line else "none"
        msg = f"last line of output: expected the path of the run's log, {LOGS}/log_….log, found {found}"
        raise AirflowFailException(f"{msg}; the script must write nothing after the path")
    return line


def record_model(context: Context, log_file: str) -> None:
    """Put the metrics, the run's folder and the data's sha256 into the event of the model's asset."""
    folder = RUNS / Path(log_file).stem.removeprefix("log_")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    facts = {"run": str(folder), "data_sha256": manifest["artifacts"]["raw_data.csv"]["sha256"]}
    context["outlet_events"][MODEL].extra.update(manifest["steps"]["evaluate"]["metrics"] | facts)


def notify(context: Context) -> None:
    """Tell the target of NOTIFY_URL, if there is one, which task failed, why, and where the log is."""
    if not setting("NOTIFY_URL"):
        return
    import apprise

    ti = context["ti"]
    log_file = find_log(f"{ti.dag_id}/{ti.run_id}/")
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines() if log_file else []
    errors = [line.partition("]: ")[2] for line in lines if f"][ERROR][{ti.task_id}]: " in line]
    cause = errors[-1] if errors else context.get("exception")
    body = f"Task: {ti.task_id}\nCause: {cause}\nLog: {log_file}"
    target = apprise.Apprise()
    if not target.add(setting("NOTIFY_URL")) or not target.notify(title=f"{ti.dag_id} failed", body=body):
        logging.getLogger(__name__).error("NOTIFY_URL: expected a target that takes messages, found none; correct it")


def find_log(run_name: str) -> Path | None:
    """Return the log of the run whose PIPELINE_RUN_ID begins so."""
    for manifest in RUNS.glob("*/manifest.json"):
        if str(json.loads(manifest.read_bytes())["run_id"]).startswith(run_name):
            return LOGS / f"log_{manifest.parent.name}.log"
    return None


PARAMS = {
    "data_url": Param(
        None,
        type=["null", "string"],
        # No files of the worker, no password that everybody could read who may see the run.
        pattern=r"^([Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@]+([/?#]\S*)?)?$(?!\n)",
        title="Data URL",
        description="Where this run loads the CSV from: http:// or https://, without user and password, since the "
        "address is shown with the run. Empty: the setting DATA_URL.",
    ),
    "data_timeout": Param(
        seconds("DATA_TIMEOUT"),
        type="number",
        minimum=0.001,
        maximum=86_400,
        title="Data timeout",
        description="Seconds to wait for the source to answer, and for each next piece of it.",
    ),
}
DAG_OPTIONS: dict[str, Any] = {
    "params": PARAMS,
    "catchup": False,
    # A paused DAG leaves its first run queued without a word.
    "is_paused_upon_creation": False,
    "tags": ["etl", "machine learning"],
    "owner_links": {"my_pipeline": setting("OWNER_LINK")} if setting("OWNER_LINK") else {},
    "default_args": {
        "owner": "my_pipeline",
        "execution_timeout": timedelta(seconds=seconds("STEP_TIMEOUT")),
        "on_failure_callback": notify,
    },
}
# What the first and the last task have beside the others.
LOAD: dict[str, Any] = {
    "retries": RETRIES,
    # After the death of the task's own process, which no policy is asked about.
    "retry_delay": timedelta(seconds=seconds("RETRY_DELAY")),
    "retry_policy": RetryUnreachable(),
    "pre_execute": check_conf,
}
EVALUATE: dict[str, Any] = {"outlets": [MODEL], "post_execute": record_model}
