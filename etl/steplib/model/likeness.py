"""Whether new cases are like the rows that a model was trained on; warnings name features, never a value."""

from collections.abc import Sequence
from typing import Any

from steplib.errors import printable, shorten
from steplib.model.drift import Array, find_drift, find_missing
from steplib.model.prediction import Scored

# Of a feature's rows, this share may be outside the range of the training rows; among those it is 0.01.
MOST_OUTSIDE = 0.2
# With fewer cases, the test would find little.
LEAST_ROWS = 50
MOST_NAMES = 20


def compare(
    scored: Scored, names: Sequence[str], about_training: dict[str, Any], training: Array | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what the new cases are like, ready for JSON, and warnings.

    `about_training`: what ranges.describe returned, {} for a run of an older version; `training`: (rows, features), the
    training rows or a sample of them, None: the distributions are not tested.
    """
    ranges, rows = about_training.get("features", {}), about_training.get("train_rows", 0)
    outside = {
        name: count / scored.rows if ranges.get(name, {}).get("low") is not None else None
        for name, count in zip(names, scored.outside.tolist(), strict=True)
    }
    counts = {
        name: (round(ranges[name]["missing"] * rows), rows, count, scored.rows)
        for name, count in zip(names, scored.missing.tolist(), strict=True)
        if name in ranges
    }
    drift = None
    if training is not None and len(training):
        drift = find_drift(dict(zip(names, zip(training.T, scored.sample.T, strict=True), strict=True)))
    changed = find_missing(counts)
    found = {
        "features": {
            name: {
                "outside": outside[name],
                "missing": missing / scored.rows,
                "missing_in_training": ranges.get(name, {}).get("missing"),
            }
            for name, missing in zip(names, scored.missing.tolist(), strict=True)
        },
        "drift": drift,
        "missing_changed": changed,
    }
    far = sorted(
        (name for name in names if (outside[name] or 0) > MOST_OUTSIDE), key=lambda name: -(outside[name] or 0)
    )
    lines = [
        (
            "many cases are outside the range of the training rows (percentiles 0.5 to 99.5)",
            [f"{printable(name)} ({outside[name]:.0%})" for name in far],
        ),
        (
            "features are distributed differently from the training rows",
            [f"{printable(one['feature'])} (distance {one['d']:.2f})" for one in drift or []],
        ),
        (
            "the share of missing values differs from the training rows",
            [f"{printable(one['feature'])} ({one['before']:.3f} there, {one['now']:.3f} here)" for one in changed],
        ),
    ]
    return found, [f"{text}: {shorten(those, MOST_NAMES)}; check the source" for text, those in lines if those]
