"""What a run's page says about the gate's verdict, and about what changed since the run in use."""

from collections.abc import Mapping
from typing import Any

from steplib.gate.changes import describe
from steplib.gate.verdicts import MEASURES
from steplib.report.missed import shorten

LONGEST_LINE = 1_000


def show(judged: Mapping[str, Any]) -> dict[str, Any]:
    """Return `verdict`, `measures`, those that were compared, and `changes`, lines that may be warnings."""
    verdict, found = judged["verdict"], judged["changes"]
    measures = [(label, verdict[name]) for name, label in MEASURES.items()]
    lines = describe(found) if found else []
    return {
        "verdict": verdict,
        "measures": [(label, measure) for label, measure in measures if measure["champion"] is not None],
        "changes": [(is_warning, shorten(line, LONGEST_LINE)) for is_warning, line in lines],
    }
