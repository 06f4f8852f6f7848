"""How a script becomes a task of either DAG: its form, its environment, its retries, what is checked and recorded."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, Context, Param, RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException
from my_pipeline_notice import notify
from my_pipeline_settings import DAY, LOGS, RUNS, owner_links, seconds, setting

RETRIES = 2
RETRY_DELAY = seconds("RETRY_DELAY", least=0)
MODEL = Asset("my_pipeline_model", group="my_pipeline")
# No files of the worker, no password that everybody could read who may see the run.
WEB_ADDRESS = r"[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@]+([/?#]\S*)?"


class RetryByExitCode(RetryPolicy):
    """Try again, after a growing pause, what may pass: a source or a storage out of reach. Other failures are final."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide by the exit code, which the operator's exception tells; the reason gets into the task's log."""
        del context
        found = re.search(r"exit code (-?[0-9]+)", str(exception))
        if not found or int(found[1]) != os.EX_TEMPFAIL:
            return RetryDecision.fail(f"{found[0] if found else type(exception).__name__} is not tried again")
        # Counted from the last try: after a clear, try_number goes on from where it was.
        pause = RETRY_DELAY * 3 ** (RETRIES - 1 - max_tries + try_number)
        return RetryDecision.retry(timedelta(seconds=pause), f"{found[0]} may pass: tried again in {pause:g} s")


def environment(after: str | None = None) -> dict[str, str]:
    """Return what a step's process gets beside the worker's own variables, as templates; `after`: the task before."""
    return {
        "LOG_FILE": f"{{{{ ti.xcom_pull(task_ids='{after}') }}}}" if after else "",
        "ETL_PYTHON": setting("ETL_PYTHON"),
        "FORM_DATA_URL": "{{ params.data_url or '' }}",
        "DATA_TIMEOUT": "{{ params.data_timeout | round(3) }}",
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


def shown_url() -> str | None:
    """Return the setting DATA_URL, if it may be shown: a query may hold a token."""
    url = setting("DATA_URL")
    return url if re.fullmatch(WEB_ADDRESS, url) and not re.search("[?#]", url) else None


PARAMS = {
    "data_url": Param(
        shown_url(),
        type=["null", "string"],
        pattern=rf"^({WEB_ADDRESS})?$(?!\n)",
        title="Data URL",
        description="Where this run loads the CSV from: http:// or https://, without user and password, since the "
        "address is shown with the run. Empty: the setting DATA_URL.",
    ),
    "data_timeout": Param(
        seconds("DATA_TIMEOUT", least=0.001),
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
    "owner_links": owner_links(),
    "on_failure_callback": notify,
    "default_args": {
        "owner": "my_pipeline",
        "execution_timeout": timedelta(seconds=seconds("STEP_TIMEOUT", least=1, most=30 * DAY)),
    },
}
RETRY: dict[str, Any] = {
    "retries": RETRIES,
    # After the death of the task's own process, which no policy is asked about.
    "retry_delay": timedelta(seconds=RETRY_DELAY),
    "retry_policy": RetryByExitCode(),
}
# What the first and the last task have beside the others: they depend on the source, and on the storage.
LOAD: dict[str, Any] = {"pre_execute": check_conf, **RETRY}
EVALUATE: dict[str, Any] = {"outlets": [MODEL], "post_execute": record_model, **RETRY}
