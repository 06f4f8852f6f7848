"""Answer what run_pipeline.sh asks: the settings, a pause, where a run's results are. One fact per line.

python bin/ask.py settings        ETL_PYTHON or an empty line; the names of the locks that the steps need
python bin/ask.py pause TRY       the seconds to wait after the try that failed, counted from 1; nothing after the last
python bin/ask.py results LOG     where the results and the log are, the four metrics, and the verdict
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "etl"))
from steplib import settings
from steplib.address import cloud_of
from steplib.envfile import ROOT
from steplib.errors import PipelineError, explain
from steplib.gate import verdicts
from steplib.runs import manifest, opening

# The settings that may name a place in a cloud.
PLACES = ("DATA_URL", "PREDICT_URL", "STORAGE_URL", "RUNS_URL")


def ask_settings() -> list[str]:
    """Return the interpreter and the locks; other wrong values are left to the first step, which logs them."""
    values = settings.read_values()
    settings.state_dir()  # wrong here, it would leave nowhere to log that
    return [settings.etl_python(values), " ".join(locks(values[name].text for name in PLACES))]


def locks(places: Iterable[str]) -> list[str]:
    """Return the names of the locks for these addresses."""
    clouds = {cloud_of(place) for place in places} - {None}
    return [f"requirements-{cloud}.txt" for cloud in sorted(map(str, clouds))] or ["requirements-etl.txt"]


def ask_pause(failed_try: str) -> list[str]:
    """Return the pause before the next try, if there is one."""
    pauses = settings.retry_pauses(settings.read_values())
    return [f"{pause:g}" for pause in pauses[int(failed_try) - 1 : int(failed_try)]]


def ask_results(log_file: str) -> list[str]:
    """Return what run_pipeline.sh prints at the end."""
    run = opening.run_of_log(log_file)
    metrics = manifest.metrics(manifest.read(run.folder))
    return [
        f"Results: {run.folder}",
        f"Log:     {run.log}",
        *(f"  {name}: {metrics[name]}" for name in manifest.METRICS),
        *describe_verdict(run.stamp, verdicts.read(run.folder)),
    ]


def describe_verdict(stamp: str, verdict: verdicts.Verdict | None) -> list[str]:
    """Return the verdict and, for a run that is held back, the command that brings it into use all the same."""
    if verdict is None:
        return []
    if verdict["promotes"]:
        return [f"Verdict: {verdict['outcome']}: {verdict['reason']}"]
    command = shlex.join([sys.executable, f"{ROOT}/etl/runs.py", "promote", stamp]) + ' --reason "..."'
    return [f"Held back: {verdict['outcome']}: {verdict['reason']}; to use it all the same: {command}"]


QUESTIONS: dict[str, Callable[..., list[str]]] = {"settings": ask_settings, "pause": ask_pause, "results": ask_results}

if __name__ == "__main__":
    try:
        answer = QUESTIONS[sys.argv[1]](*sys.argv[2:])
        os.write(1, ("\n".join(answer) + "\n").encode(errors="surrogateescape"))
        if sys.argv[1] == "results":
            opening.run_of_log(sys.argv[2]).release()
    except (PipelineError, OSError) as error:
        text, code = explain(error)
        sys.stderr.write(f"run_pipeline.sh: {text}\n")
        sys.exit(code)
