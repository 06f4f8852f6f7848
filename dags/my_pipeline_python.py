"""`my_pipeline` by `python_callable` in place of bash: the same steps, settings, form and results, byte for byte.

For whoever extends the chain in Python; it has no schedule of its own.
"""

import os
import sys
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, get_current_context
from airflow.sdk.exceptions import AirflowException

sys.path.append(str(Path(__file__).resolve().parent))
from my_pipeline_settings import ROOT
from my_pipeline_task import DAG_OPTIONS, EVALUATE, LOAD, check_log, environment


def run_step(step: str, env: dict[str, str]) -> str:
    """Run a step in a process of its own, since its interpreter need not be Airflow's, and return the log's path."""
    hook = SubprocessHook()
    # A timeout and "mark as failed" then end the step as well.
    setattr(get_current_context()["task"], "on_kill", hook.send_sigterm)  # noqa: B010 - mypy takes no other way
    chosen = {"DATA_URL": env["FORM_DATA_URL"]} if env["FORM_DATA_URL"] else {}
    command = [env["ETL_PYTHON"], f"etl/{step}.py", *filter(None, [env["LOG_FILE"]])]
    result = hook.run_command(command, env=dict(os.environ) | env | chosen, cwd=str(ROOT))
    if result.exit_code:
        raise AirflowException(f"{step}: the script returned exit code {result.exit_code}")
    return check_log(result.output)


def call(step: str, env: dict[str, str]) -> dict[str, Any]:
    """Return what runs a step."""
    return {"task_id": step, "python_callable": run_step, "op_kwargs": {"step": step, "env": env}}


with DAG("my_pipeline_python", schedule=None, doc_md=__doc__, **DAG_OPTIONS):
    data_loader = PythonOperator(**call("data_loader", environment()), **LOAD)
    transform = PythonOperator(**call("transform", environment(after="data_loader")))
    train = PythonOperator(**call("train", environment(after="transform")))
    evaluate = PythonOperator(**call("evaluate", environment(after="train")), **EVALUATE)

    data_loader >> transform >> train >> evaluate
