"""The notices of a failed run and of one that is held back, sent to NOTIFY_URL."""

import logging
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.sdk import Context, TaskInstanceState
from steplib.errors import PipelineError
from steplib.runs import registry

from my_pipeline_shared.settings import ETL_PYTHON, NOTIFY_URL, ROOT

# Airflow kills a task whose callbacks take longer than 20 s, and would then try it again.
SECONDS_TO_SEND = 10
SENT = "notice_sent"

log = logging.getLogger(__name__)


def notify(context: Context) -> None:
    """Report the failure of a task from its own process, on the worker that has the run's log."""
    # A task that has failed already was marked as failed or has lost its worker; notify_if_unsent reports it.
    if NOTIFY_URL and state_of(context) == TaskInstanceState.RUNNING and send_failure(context):
        context["ti"].xcom_push(SENT, value=True)


def notify_if_unsent(context: Context) -> None:
    """Report a failed run if its task has not, for example because it was killed. The DAG processor calls this."""
    ti = context["ti"]
    # `airflow dags test` calls this without a connection to Airflow; there, the task itself has reported.
    with suppress(NameError):
        # A task that was cleared meanwhile is running again, without the mark; one whose run took too long is skipped.
        has_failed = context.get("reason") == "timed_out" or state_of(context) == TaskInstanceState.FAILED
        if NOTIFY_URL and has_failed and not ti.xcom_pull(ti.task_id, key=SENT):
            send_failure(context)


def notify_of_held_back(context: Context, stamp: str, verdict: dict[str, Any]) -> None:
    """Report a run that waits for a person, and how to promote it."""
    if NOTIFY_URL:
        command = shlex.join([ETL_PYTHON, f"{ROOT}/etl/runs.py", "promote", stamp])
        text = f"Verdict: {verdict['outcome']}\nReason: {verdict['reason']}"
        text += f"\nTo promote it: {command} --reason TEXT --by NAME"
        send(f"{context['ti'].dag_id}: run {stamp} is held back", text, "warning")


def state_of(context: Context) -> str | None:
    """Return the task's state as Airflow knows it, which changes only after the task's process has ended."""
    ti = context["ti"]
    states = ti.get_task_states(ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    state: str | None = states[ti.run_id].get(ti.task_id)
    return state


def send_failure(context: Context) -> bool:
    """Send which task failed, why, and where the log is, but no data; return whether the message was accepted."""
    return send(f"{context['ti'].dag_id} failed", describe(context), "failure")


def send(title: str, text: str, kind: str) -> bool:
    """Send a message of one of apprise's kinds; return whether it was accepted. If not, the log says why."""
    try:
        import apprise
    except ModuleNotFoundError:
        log.error("NOTIFY_URL: the package apprise is not installed in Airflow's environment; install it")  # noqa: TRY400
        return False
    # They would log an address that is not recognized, and parts of others, with its secret.
    for name in ("apprise", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    target = apprise.Apprise()
    if not target.add(NOTIFY_URL):
        log.error("NOTIFY_URL: expected an apprise URL, found something else; correct it")
        return False
    sending = ThreadPoolExecutor(1).submit(target.notify, text, title, apprise.NotifyType(kind))
    with suppress(TimeoutError):
        if sending.result(SECONDS_TO_SEND):
            return True
    log.error("NOTIFY_URL: the message was not accepted; check the address and the network")
    return False


def describe(context: Context) -> str:
    """Return the text of the notice; without the run's files on this machine, it refers to Airflow."""
    ti = context["ti"]
    cause, place = None, ""
    with suppress(OSError, PipelineError):
        run = registry.find_run(f"{ti.dag_id}/{ti.run_id}/{context['dag_run'].run_after}")
        if run:
            cause, place = last_error(run.log, ti.task_id), f"\nLog: {run.log}"
    return f"Task: {ti.task_id}\nCause: {cause or 'see the log of the task in Airflow'}{place}"


def last_error(log_file: Path, task: str) -> str | None:
    """Return the last error of a task's last try, if it has logged one."""
    error = None
    for line in log_file.read_text(encoding="utf-8", errors="replace").splitlines():
        head, _, text = line.partition("]: ")
        if head.endswith(f"[INFO][{task}") and text.endswith("]: started"):
            error = None
        if head.endswith(f"[ERROR][{task}"):
            error = text
    return error
