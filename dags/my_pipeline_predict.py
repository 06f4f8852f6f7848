"""Score new cases with the model in use: one task, `predict`, which runs `etl/predict.py`.

The field *Source* of the form names the file to score; if it is empty, the setting `PREDICT_URL` does. If that is set,
a run also starts after each event of the asset `my_pipeline_model`, when a model comes into use. Only one run at a time
is active, so that the predictions of an older model never replace those of a newer one.

The task returns the path of the predictions, in `results/predictions`; `<path>.json` says which model made them. With
`STORAGE_URL`, both are published too, under `predictions/`. The log of a failed task says what happened and what to do.
See `docs/airflow.md`.
"""

import sys
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

sys.path.append(str(Path(__file__).resolve().parent))
from my_pipeline_shared.settings import VALUES
from my_pipeline_shared.task import BASH_OPTIONS, DAG_OPTIONS, MODEL, address, check_conf, variables, wrong_last_line
from steplib.runs.folders import results
from steplib.runs.output import FOLDER

# The source is passed as the setting, because other users of the machine can see a command line.
USE_FORM = 'if [ -n "$FORM_SOURCE" ]; then export PREDICT_URL="$FORM_SOURCE"; fi; '
PUBLISH = " --publish" if VALUES["STORAGE_URL"].text else ""
PARAMS = {
    "source": address("Source", "The file to score", "PREDICT_URL"),
    "output": Param(
        None,
        type=["null", "string"],
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$(?!\n)",
        title="Output",
        description="The name of the file in results/predictions, which is replaced if it exists. Empty: that of the "
        "source.",
    ),
}


def predictions() -> Path:
    """Return the folder of the predictions."""
    return results() / FOLDER


def check_output(line: str) -> str:
    """Return the last line of the task's output, if it is the path of predictions."""
    if Path(line).parent != predictions() or not Path(line).is_file():
        raise wrong_last_line(line, f"the path of the predictions, {predictions()}/…")
    return line


OPTIONS = DAG_OPTIONS | {
    "params": PARAMS,
    "max_active_runs": 1,
    # All but backfill, whose runs would all score today's data with today's model.
    "allowed_run_types": ["manual", "asset_triggered", "operator_triggered"],
    # Evaluated by the task: in a bundle without STATE_DIR there is no such folder.
    "user_defined_macros": {"predictions": predictions},
}

with DAG("my_pipeline_predict", schedule=[MODEL] if VALUES["PREDICT_URL"].text else None, doc_md=__doc__, **OPTIONS):
    BashOperator(
        task_id="predict",
        bash_command=f'{USE_FORM}exec "$ETL_PYTHON" etl/predict.py ${{OUTPUT:+--output "$OUTPUT"}}{PUBLISH}',
        env=variables(
            FORM_SOURCE="{{ params.source or '' }}",
            OUTPUT="{{ predictions() / params.output if params.output else '' }}",
        ),
        pre_execute=check_conf,
        output_processor=check_output,
        **BASH_OPTIONS,
    )
