"""`my_pipeline` with `PythonOperator` instead of `BashOperator`: the same steps, settings, form and results.

For extending the chain in Python; it has no schedule.
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
from my_pipeline_shared.settings import ROOT
from my_pipeline_shared.task import OUTCOME, PIPELINE_OPTIONS, check_conf, check_log, environment, record_outcome


def run_step(step: str, env: dict[str, str]) -> str:
    """Run a step in its own process, because its interpreter need not be Airflow's, and return the log's path."""
    hook = SubprocessHook()
    # So that a timeout and "mark as failed" end the step too.
    setattr(get_current_context()["task"], "on_kill", hook.send_sigterm)  # noqa: B010 - mypy accepts no other way
    chosen = {"DATA_URL": env["FORM_DATA_URL"]} if env["FORM_DATA_URL"] else {}
    command = [env["ETL_PYTHON"], f"etl/{step}.py", *filter(None, [env["LOG_FILE"]])]
    result = hook.run_command(command, env=dict(os.environ) | env | chosen, cwd=str(ROOT))
    if result.exit_code:
        raise AirflowException(f"{step}: the script returned exit code {result.exit_code}; see its last error above")
    return check_log(result.output)


def call(step: str, after: str | None = None) -> dict[str, Any]:
    """Return the arguments of the operator that runs a step."""
    return {
        "task_id": step,
        "python_callable": run_step,
        "op_kwargs": {"step": step, "env": environment(after)},
    }


with DAG("my_pipeline_python", schedule=None, doc_md=__doc__, **PIPELINE_OPTIONS):
    data_loader = PythonOperator(**call("data_loader"), pre_execute=check_conf)
    transform = PythonOperator(**call("transform", after="data_loader"))
    train = PythonOperator(**call("train", after="transform"))
    evaluate = PythonOperator(**call("evaluate", after="train"), outlets=[OUTCOME], post_execute=record_outcome)

    data_loader >> transform >> train >> evaluate
