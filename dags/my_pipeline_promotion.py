"""Ask a person whether to promote a run that the gate holds back.

Each such run of `my_pipeline` or `my_pipeline_python` is an event of the asset `my_pipeline_held_back` and starts a run
here. Its task `approve` waits under *Required Actions* for seven days and shows the verdict. Once approved, `promote`
runs `etl/runs.py promote`, and the model is an event of the asset `my_pipeline_model`. Rejected or unanswered, the run
stays as it is and `promote` is skipped; `etl/runs.py promote` can still promote it. See `docs/airflow.md`.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Context, Param
from jinja2 import pass_context

sys.path.append(str(Path(__file__).resolve().parent))
from my_pipeline_shared.task import BASH_OPTIONS, DAG_OPTIONS, HELD_BACK, MODEL, variables

TIME_TO_ANSWER = timedelta(days=7)
FIGURES = {"brier": "Brier score", "accuracy": "accuracy", "recall": "recall"}
REASON = Param("approved in Airflow", type="string", title="Reason", description="Recorded with the promotion.")


def held_back(context: Context) -> list[dict[str, Any]]:
    """Return the facts of the runs that started this run, the oldest first; more than one if they came at once."""
    events = context["triggering_asset_events"][HELD_BACK]
    return [event.extra for event in sorted(events, key=lambda event: event.timestamp)]


def describe(context: Context) -> str:
    """Return, in Markdown, what a person has to know about the newest run that is held back."""
    *others, facts = held_back(context)
    verdict = facts["verdict"]
    lines = [f"Run `{facts['stamp']}` is held back: **{verdict['outcome']}**.", "", verdict["reason"], ""]
    lines += [f"| | in use: {verdict['against'] or 'none'} | this run | p |", "|---|---|---|---|"]
    for key, name in FIGURES.items():
        figures = verdict.get(key) or {}
        shown = (_show(figures.get(part)) for part in ("champion", "challenger", "p"))
        lines.append(f"| {name} | {' | '.join(shown)} |")
    lines += ["", f"Its files: `{facts.get('published', facts['run'])}`"]
    if others:
        lines += ["", f"Held back at the same time, not promoted here: {', '.join(one['stamp'] for one in others)}"]
    return "\n".join(lines)


def _show(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.4g}"


def answer(context: Context) -> dict[str, str]:
    """Return who approved, and why."""
    response = context["ti"].xcom_pull(task_ids="approve")
    reason = response["params_input"].get("reason") or REASON.value
    return {"by": response["responded_by_user"]["name"], "reason": reason}


def record_promotion(context: Context, _: object) -> None:
    """Add an event with the run's facts, and who promoted it, to the model's asset."""
    facts = held_back(context)[-1] | {"promoted_by": answer(context)["by"]}
    context["outlet_events"][MODEL].extra.update(facts)


OPTIONS = DAG_OPTIONS | {
    # Started in any other way, it would have no run to ask about.
    "allowed_run_types": ["asset_triggered"],
    "user_defined_macros": {macro.__name__: pass_context(macro) for macro in (answer, describe, held_back)},
}

with DAG("my_pipeline_promotion", schedule=[HELD_BACK], doc_md=__doc__, **OPTIONS):
    approve = ApprovalOperator(
        task_id="approve",
        subject="Promote run {{ held_back()[-1].stamp }}?",
        body="{{ describe() }}",
        params={"reason": REASON},
        response_timeout=TIME_TO_ANSWER,
        defaults=ApprovalOperator.REJECT,
    )
    promote = BashOperator(
        task_id="promote",
        bash_command='exec "$ETL_PYTHON" etl/runs.py promote "$STAMP" --reason="$REASON" --by="$BY"',
        env=variables(STAMP="{{ held_back()[-1].stamp }}", REASON="{{ answer().reason }}", BY="{{ answer().by }}"),
        outlets=[MODEL],
        post_execute=record_promotion,
        **BASH_OPTIONS,
    )

    approve >> promote
