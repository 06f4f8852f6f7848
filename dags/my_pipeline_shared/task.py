"""How a script becomes a task of a DAG: its form, its environment, its retries, what is checked and recorded."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, AssetAlias, Context, Param, RetryDecision, RetryPolicy, literal
from airflow.sdk.exceptions import AirflowFailException
from steplib.address import check_storage_url
from steplib.gate import verdicts
from steplib.runs import manifest, registry
from steplib.runs.folders import stamp_of_log
from steplib.runs.run import Run
from steplib.source.address import redact

from my_pipeline_shared.connection import WithConnection
from my_pipeline_shared.notice import notify, notify_if_unsent, notify_of_held_back
from my_pipeline_shared.settings import ETL_PYTHON, RETRY_PAUSES, ROOT, STEP_TIMEOUT, STORAGE_CONN, VALUES

MODEL = Asset("my_pipeline_model", group="my_pipeline")
HELD_BACK = Asset("my_pipeline_held_back", group="my_pipeline")
# What a task declares that is to choose between the two: each asset that it declared would get an event.
OUTCOME = AssetAlias("my_pipeline_outcome", group="my_pipeline")
# The web and the clouds only, and without credentials: everyone who can see the run can see its parameters.
WEB_ADDRESS = r"[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@]+([/?#]\S*)?"
CLOUD_ADDRESS = r"([Ss]3[Aa]?|[Gg][Cc]?[Ss]|[Aa][Bb][Ff][Ss][Ss]?|[Aa][Zz])://[^\s/?#@]+/[^\s?#@]+"
ADDRESS = f"{WEB_ADDRESS}|{CLOUD_ADDRESS}"


class RetryByExitCode(RetryPolicy):
    """Retry temporary failures (source or storage out of reach) after growing pauses; all other failures are final."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide by the exit code in the operator's exception; the reason appears in the task's log."""
        del context
        found = re.search(r"exit code (-?[0-9]+)", str(exception))
        if not found or int(found[1]) != os.EX_TEMPFAIL:
            return RetryDecision.fail(f"{found[0] if found else type(exception).__name__} is not retried")
        # Counted from the last try: after a clear, try_number continues from where it was.
        pause = RETRY_PAUSES[max(try_number - max_tries - 1, -len(RETRY_PAUSES))]
        return RetryDecision.retry(timedelta(seconds=pause), f"{found[0]} is temporary: retrying in {pause:g} s")


def environment(after: str | None = None) -> dict[str, Any]:
    """Return the variables of a step's process, as templates; `after` is the task that hands on the log."""
    return variables(
        LOG_FILE=f"{{{{ ti.xcom_pull(task_ids='{after}') }}}}" if after else "",
        FORM_DATA_URL="{{ params.data_url or '' }}",
        # The same at every try and after a clear, so that they continue the same log and folder.
        PIPELINE_RUN_ID="{{ dag.dag_id }}/{{ run_id }}/{{ dag_run.run_after }}",
    )


def variables(**own: str) -> dict[str, Any]:
    """Return these and the variables that each script needs, as templates."""
    # Airflow would read a value that ends with .sh as a file, and render braces in it.
    # If PYTHONSAFEPATH were set, the scripts could not import steplib.
    templates = own | {"ETL_PYTHON": literal(ETL_PYTHON), "PYTHONSAFEPATH": ""}
    return WithConnection(templates) if STORAGE_CONN else templates


def check_conf(context: Context) -> None:
    """Fail on an unknown parameter; a typo would otherwise silently load the configured source."""
    known = context["dag"].params
    unknown = sorted(set(context["dag_run"].conf or {}) - set(known))
    if unknown:
        raise AirflowFailException(f"conf: expected {', '.join(known)}, found {', '.join(unknown)}; trigger a new run")


def check_log(line: str) -> str:
    """Return the last line of a task's output, if it is the path of a log of this project."""
    stamp = stamp_of_log(Path(line))
    if not stamp or Path(line) != Run(stamp).log or not Run(stamp).log.is_file():
        raise wrong_last_line(line, f"the path of the run's log, {Run('…').log}")
    return line


def wrong_last_line(line: str, expected: str) -> AirflowFailException:
    """Return the error of a task whose output does not end with a path."""
    found = "a different line, the last one above" if line else "none"
    msg = f"last line of output: expected {expected}, found {found}; the script must write nothing after the path"
    return AirflowFailException(msg)


def record_outcome(context: Context, log_file: str) -> None:
    """Add an event with the run's facts to the asset of promoted models or to that of runs held back.

    The facts: the metrics, the run's stamp and folder, its verdict, the data's sha256, and where the run is published.
    """
    run = Run(stamp_of_log(Path(log_file)) or "")
    record, verdict = manifest.read(run.folder), verdicts.read(run.folder)
    run.release()
    metrics = manifest.metrics(record)
    sha256 = record["artifacts"]["raw_data.csv"]["sha256"]
    facts = metrics | {"stamp": run.stamp, "run": str(run.folder), "data_sha256": sha256, "verdict": verdict}
    storage = VALUES["STORAGE_URL"]
    if storage.text:
        facts["published"] = f"{check_storage_url(storage.text, storage.name).rstrip('/')}/runs/{run.stamp}"
    context["ti"].xcom_push(key="metrics", value=metrics)
    events = context["outlet_events"][OUTCOME]
    if verdict is None or verdict["promotes"]:
        # A cleared task of an old run is no news.
        if registry.latest_stamp() == run.stamp:
            events.add(MODEL, facts)
    else:
        events.add(HELD_BACK, facts)
        notify_of_held_back(context, run.stamp, verdict)


def shown_url() -> str | None:
    """Return the setting DATA_URL, if it may be shown: a query or a parameter may be a token."""
    url = VALUES["DATA_URL"].text
    return url if re.fullmatch(ADDRESS, url) and redact(url) == url else None


def address(title: str, meaning: str, setting: str, default: str | None = None) -> Param:
    """Return the field of a form for an address, in whose place a setting applies if it is empty."""
    return Param(
        default,
        type=["null", "string"],
        pattern=rf"^({ADDRESS})?$(?!\n)",
        title=title,
        description=f"{meaning}: http://, https://, s3://, gs:// or abfs://, without user and password, because the "
        f"address is shown with the run. Empty: the setting {setting}.",
    )


PARAMS = {"data_url": address("Data URL", "Where this run loads the CSV from", "DATA_URL", shown_url())}
# Values are passed in `env`, never in the command's text, so none can be executed.
BASH_OPTIONS: dict[str, Any] = {"append_env": True, "cwd": literal(str(ROOT)), "skip_on_exit_code": None}
# What all DAGs have in common.
DAG_OPTIONS: dict[str, Any] = {
    "catchup": False,
    # A paused DAG would leave its first run queued without a message.
    "is_paused_upon_creation": False,
    "tags": ["etl", "machine learning"],
    "on_failure_callback": notify_if_unsent,
    "default_args": {
        "owner": "my_pipeline",
        "execution_timeout": timedelta(seconds=STEP_TIMEOUT),
        "on_failure_callback": notify,
        # The first task depends on the source, the last on the storage, and with RUNS_URL all of them do.
        "retries": len(RETRY_PAUSES),
        "retry_policy": RetryByExitCode(),
        # Used when the task's own process dies, because no retry policy is asked then.
        "retry_delay": timedelta(seconds=RETRY_PAUSES[0]),
    },
}
SECONDS_FOR_A_STEP = (1 + len(RETRY_PAUSES)) * STEP_TIMEOUT + sum(RETRY_PAUSES)
PIPELINE_OPTIONS = DAG_OPTIONS | {
    "params": PARAMS,
    # All but backfill, whose runs would load today's data under the dates of the past.
    "allowed_run_types": ["manual", "scheduled", "operator_triggered"],
    # All tries of all steps, and an hour in queues.
    "dagrun_timeout": timedelta(seconds=len(manifest.STEPS) * SECONDS_FOR_A_STEP, hours=1),
}
