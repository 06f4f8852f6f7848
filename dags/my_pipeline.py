"""Retrain the classifier of a medical CSV: four tasks, one log, metrics from rows that the model never saw.

| task | makes |
|---|---|
| `data_loader` | `raw_data.csv` from the source; retried twice if the source cannot be reached |
| `transform` | `clear_data.csv` |
| `train` | `model.pkl`, `cross_validation.csv` |
| `evaluate` | `evaluation.json`, `predictions.csv`, the verdict; publishes the run and promotes it, or holds it back |

Each task runs `etl/<task>.py` and passes on the path of the run's log, which all of them append to. The results are in
`results/runs/<stamp>`; the log's name has the same stamp. `results/latest` is the run in use. The log
of a failed task says what happened and what to do. Settings: `.env` in the project, see `docs/settings.md`.

A promoted run is an event of the asset `my_pipeline_model`. A run that is held back is one of `my_pipeline_held_back`,
after which `my_pipeline_promotion` asks a person whether to promote it.

`my_pipeline_python` is the same chain with `PythonOperator` instead of `BashOperator`.
"""

import sys
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# Airflow's import path has only its dags folder; what both DAGs share is beside this file.
sys.path.append(str(Path(__file__).resolve().parent))
from my_pipeline_shared.settings import schedule
from my_pipeline_shared.task import (
    BASH_OPTIONS,
    OUTCOME,
    PIPELINE_OPTIONS,
    check_conf,
    check_log,
    environment,
    record_outcome,
)

BASH = BASH_OPTIONS | {"output_processor": check_log}

# An empty field of the form leaves the setting in place.
USE_FORM = 'if [ -n "$FORM_DATA_URL" ]; then export DATA_URL="$FORM_DATA_URL"; fi; '

with DAG("my_pipeline", schedule=schedule(), doc_md=__doc__, **PIPELINE_OPTIONS):
    data_loader = BashOperator(
        task_id="data_loader",
        bash_command=USE_FORM + 'exec "$ETL_PYTHON" etl/data_loader.py',
        env=environment(),
        pre_execute=check_conf,
        **BASH,
    )
    transform = BashOperator(
        task_id="transform",
        bash_command=USE_FORM + 'exec "$ETL_PYTHON" etl/transform.py "$LOG_FILE"',
        env=environment(after="data_loader"),
        **BASH,
    )
    train = BashOperator(
        task_id="train",
        bash_command=USE_FORM + 'exec "$ETL_PYTHON" etl/train.py "$LOG_FILE"',
        env=environment(after="transform"),
        **BASH,
    )
    evaluate = BashOperator(
        task_id="evaluate",
        bash_command=USE_FORM + 'exec "$ETL_PYTHON" etl/evaluate.py "$LOG_FILE"',
        env=environment(after="train"),
        outlets=[OUTCOME],
        post_execute=record_outcome,
        **BASH,
    )

    data_loader >> transform >> train >> evaluate
