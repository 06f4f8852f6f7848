"""The notice of a failed run, sent to NOTIFY_URL."""

import logging
from contextlib import suppress
from pathlib import Path

from airflow.sdk import Context
from steplib.errors import SettingError
from steplib.runs import registry

from my_pipeline_shared.settings import NOTIFY_URL

log = logging.getLogger(__name__)


def notify(context: Context) -> None:
    """Report which task failed, why, and where the log is; no data. The DAG processor calls this, once for a run."""
    if not NOTIFY_URL:
        return
    try:
        import apprise
    except ModuleNotFoundError:
        log.error("NOTIFY_URL: the package apprise is not installed in Airflow's environment; install it")  # noqa: TRY400
        return
    # apprise would log an address that it does not recognize, with the secret in it.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    ti = context["ti"]
    run = None
    with suppress(SettingError):  # without STATE_DIR in a bundle, which is then the cause of the failure
        run = registry.find_run(f"{ti.dag_id}/{ti.run_id}/{context['dag_run'].run_after}")
    cause = last_error(run.log, ti.task_id) if run else None
    body = f"Task: {ti.task_id}\nCause: {cause or 'see the log of the task in Airflow'}\nLog: {run and run.log}"
    target = apprise.Apprise()
    if not target.add(NOTIFY_URL):
        log.error("NOTIFY_URL: expected an apprise URL, found something else; correct it")
    elif not target.notify(title=f"{ti.dag_id} failed", body=body):
        log.error("NOTIFY_URL: the message was not accepted; check the address and the network")


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
