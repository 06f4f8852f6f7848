"""Whether new cases are like the rows that a model was trained on; warnings name features, never a value."""

from collections.abc import Sequence
from typing import Any

from steplib.errors import printable, shorten
from steplib.model.drift import Array, find_drift, find_missing
from steplib.model.prediction import Scored
from steplib.model.ranges import Range

# Of a feature's rows, this share may be outside the range of the training rows; among those it is 0.01.
MOST_OUTSIDE = 0.2
# Fewer rows are not tested: chance would decide.
LEAST_ROWS = 50
MOST_NAMES = 20


def compare(
    scored: Scored, names: Sequence[str], ranges: dict[str, Range], training: Array | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what the new cases are like, ready for JSON, and warnings.

    `training`: (rows, features), the training rows or a sample of them; None: no test.
    """
    shares = {
        name: {
            "outside": outside if ranges.get(name, {}).get("low") is not None else None,
            "missing": missing,
            "missing_in_training": ranges.get(name, {}).get("missing"),
        }
        for name, outside, missing in zip(
            names, (scored.outside / scored.rows).tolist(), (scored.missing / scored.rows).tolist(), strict=True
        )
    }
    drift, missing_more = None, []
    if training is not None and len(training):
        columns = dict(zip(names, zip(training.T, scored.sample.T, strict=True), strict=True))
        drift, missing_more = find_drift(columns), find_missing(columns)
    outside = {name: share["outside"] for name, share in shares.items() if (share["outside"] or 0) > MOST_OUTSIDE}
    found = [
        (
            "many rows are outside the range of the training rows (0.5 to 99.5 percentile)",
            [f"{printable(name)} ({outside[name]:.0%})" for name in sorted(outside, key=outside.__getitem__)[::-1]],
        ),
        (
            "the rows are distributed differently from the training rows",
            [f"{printable(one['feature'])} (distance {one['d']:.2f})" for one in drift or []],
        ),
        (
            "a different share is missing",
            [f"{printable(one['feature'])} ({one['before']:.3f} before, {one['now']:.3f} now)" for one in missing_more],
        ),
    ]
    warnings = [f"{text}: {shorten(those, MOST_NAMES)}; check the source" for text, those in found if those]
    return {"features": shares, "drift": drift, "missing": missing_more}, warnings
