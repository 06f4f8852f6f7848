"""Whom a failed run is told: the target of NOTIFY_URL."""

import logging
from contextlib import suppress
from pathlib import Path

from airflow.sdk import Context
from my_pipeline_settings import LOGS, RUNS, setting

log = logging.getLogger(__name__)


def notify(context: Context) -> None:
    """Tell which task failed, why, and where the log is; no data. The dag processor calls this, once for a run."""
    if not setting("NOTIFY_URL"):
        return
    try:
        import apprise
    except ModuleNotFoundError:
        log.error("NOTIFY_URL: expected the package apprise beside Airflow, found none; install it")  # noqa: TRY400
        return
    # It would quote an address that it does not know, with the secret in it.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    ti = context["ti"]
    log_file = find_log(f"{ti.dag_id}/{ti.run_id}/{context['dag_run'].run_after}")
    cause = last_error(log_file, ti.task_id) if log_file else None
    body = f"Task: {ti.task_id}\nCause: {cause or 'see the log of the task in Airflow'}\nLog: {log_file}"
    target = apprise.Apprise()
    if not target.add(setting("NOTIFY_URL")):
        log.error("NOTIFY_URL: expected an address of apprise, found something else; correct it")
    elif not target.notify(title=f"{ti.dag_id} failed", body=body):
        log.error("NOTIFY_URL: expected a target that takes messages, found that it did not; check it and the network")


def find_log(run_name: str) -> Path | None:
    """Return the log of the run with this PIPELINE_RUN_ID."""
    for manifest in RUNS.glob("*/manifest.json"):
        # A run may be pruned meanwhile.
        with suppress(OSError):
            if f'"run_id": "{run_name}"' in manifest.read_text(encoding="utf-8", errors="replace"):
                return LOGS / f"log_{manifest.parent.name}.log"
    return None


def last_error(log_file: Path, task: str) -> str | None:
    """Return the last error of a task's last try, if it came to say one."""
    said = None
    for line in log_file.read_text(encoding="utf-8", errors="replace").splitlines():
        head, _, text = line.partition("]: ")
        if head.endswith(f"[INFO][{task}") and text.endswith("]: started"):
            said = None
        if head.endswith(f"[ERROR][{task}"):
            said = text
    return said
