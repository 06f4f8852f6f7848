"""The notice of a failed run, sent to NOTIFY_URL."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from airflow.sdk import Context, TaskInstanceState
from steplib.errors import PipelineError
from steplib.runs import registry

from my_pipeline_shared.settings import NOTIFY_URL

# Airflow kills a task whose callbacks take longer than 20 s, and would then try it again.
SECONDS_TO_SEND = 10
SENT = "notice_sent"

log = logging.getLogger(__name__)


def notify(context: Context) -> None:
    """Report the failure of a task from its own process, on the worker that has the run's log."""
    # A task that has failed already was marked as failed or has lost its worker; notify_if_unsent reports it.
    if NOTIFY_URL and state_of(context) == TaskInstanceState.RUNNING and send(context):
        context["ti"].xcom_push(SENT, value=True)


def notify_if_unsent(context: Context) -> None:
    """Report a failed run if its task has not, for example because it was killed. The DAG processor calls this."""
    ti = context["ti"]
    # `airflow dags test` calls this without a connection to Airflow; there, the task itself has reported.
    with suppress(NameError):
        # A task that was cleared meanwhile is running again, without the mark.
        if NOTIFY_URL and state_of(context) == TaskInstanceState.FAILED and not ti.xcom_pull(ti.task_id, key=SENT):
            send(context)


def state_of(context: Context) -> str | None:
    """Return the task's state as Airflow knows it, which changes only after the task's process has ended."""
    ti = context["ti"]
    states = ti.get_task_states(ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    state: str | None = states[ti.run_id].get(ti.task_id)
    return state


def send(context: Context) -> bool:
    """Send which task failed, why, and where the log is, but no data; return whether the message was accepted."""
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
    title, failure = f"{context['ti'].dag_id} failed", apprise.NotifyType.FAILURE
    sending = ThreadPoolExecutor(1).submit(target.notify, describe(context), title, failure)
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
