"""Retrain the classifier of a medical CSV: four tasks, one log, metrics from rows that the model never saw.

| task | makes |
|---|---|
| `data_loader` | `raw_data.csv` from the source; tried again twice if that cannot be reached |
| `transform` | `clear_data.csv` |
| `train` | `model.pkl` |
| `evaluate` | `evaluation.json`, `predictions.csv`, an event of the asset `my_pipeline_model`; publishes the run |

Each task runs `etl/<task>.py` and hands on the path of the run's log, which all of them append to. The results lie in
`results/runs/<stamp>`, the stamp being that of the log; `results/latest` is the newest run that went through. A failed
task's log says what was expected, what was found and the way out. Settings: `.env` in the project, see `README.md`.

`my_pipeline_python` is the same chain by `python_callable` in place of bash.
"""

import sys
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# What both DAGs share lies beside this file, which Airflow looks for in its dags folder alone.
sys.path.append(str(Path(__file__).resolve().parent))
from my_pipeline_settings import ROOT, schedule
from my_pipeline_task import DAG_OPTIONS, EVALUATE, LOAD, check_log, environment


def command(step: str) -> dict[str, Any]:
    """Return what runs a step. No value is part of the command's text, so none can be run.

    An empty field of the form leaves the setting in place.
    """
    return {
        "task_id": step,
        "bash_command": f"""
            if [ -n "$FORM_DATA_URL" ]; then export DATA_URL="$FORM_DATA_URL"; fi
            exec "$ETL_PYTHON" etl/{step}.py ${{LOG_FILE:+"$LOG_FILE"}}
        """,
        "append_env": True,
        "cwd": str(ROOT),
        "skip_on_exit_code": None,
        "output_processor": check_log,
    }


with DAG("my_pipeline", schedule=schedule(), doc_md=__doc__, **DAG_OPTIONS):
    data_loader = BashOperator(**command("data_loader"), env=environment(), **LOAD)
    transform = BashOperator(**command("transform"), env=environment(after="data_loader"))
    train = BashOperator(**command("train"), env=environment(after="transform"))
    evaluate = BashOperator(**command("evaluate"), env=environment(after="train"), **EVALUATE)

    data_loader >> transform >> train >> evaluate
