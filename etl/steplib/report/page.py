"""The page of a run: one file for a clinician and a statistician, without scripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from sklearn.pipeline import Pipeline

from steplib.errors import printable
from steplib.model.scoring import Measured
from steplib.model.threshold import DEFAULT, split_threshold
from steplib.report import curves, missed, plots, rounding, tripod, verdict
from steplib.report.by_class import LEAST_ROWS, MOST_FEATURES, QUANTILES, OfClass, summarize
from steplib.report.curves import Array
from steplib.runs import manifest
from steplib.settings import Settings
from steplib.table.pool import open_pool

TEMPLATE = Path(__file__).with_name("page.html")
SHOWN_METRICS = {
    "accuracy": "accuracy",
    "recall": "sensitivity (recall): of all M, the share found",
    "specificity": "specificity: of all B, the share called B",
    "precision": "precision (PPV): of those called M, the share that is M",
    "roc_auc": "area under the ROC curve",
    "brier_score": "Brier score (0 is perfect)",
    "baseline_accuracy": "accuracy of always predicting the more common class",
}
MOST_WEIGHTS, LONGEST_IN_PLOT = 30, 25
# Between the share of M among the rows that were judged and that among all rows, as a part of the latter.
LARGEST_DIFFERENCE = 0.1
WAY_OUT = (
    "a lost page is made again only by the same version of the project and of matplotlib, with the same REPORT_IDS: "
    "use these, or copy the file from the storage"
)
Record = Mapping[str, Any]


def write(  # noqa: PLR0913, PLR0917 - where, and what the page is about
    path: Path, run: Path, model: Pipeline, measured: Measured, judged: Record, settings: Settings
) -> None:
    """Write the page of a run; `run`: its folder, with the manifest and the CSVs; `judged`: `verdict` and `changes`."""
    record = manifest.read(run)
    rows = record["artifacts"]["clear_data.csv"]["rows"]
    with open_pool(settings.workers, settings.dask_scheduler) as pool:
        counts = len(measured.benign), len(measured.malignant)
        expected = rows * counts[0] / sum(counts), rows * counts[1] / sum(counts)
        classes = summarize(run / "clear_data.csv", expected, settings.batch_bytes, pool)
    missed_ids = missed.read_ids(run, model, measured.metrics) if settings.report_ids else []
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"share": rounding.show_share, "digits": rounding.show_digits}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    names = [missed.shorten(name) for name in model[0].feature_names_in_]
    unjudged = _unjudged(measured, classes)
    context = {
        **verdict.show(judged),
        **_model(record, model, names),
        **_estimates(measured, unjudged["unjudged"]),
        **unjudged,
        **_curves(model, measured),
        "missed": missed.count(measured),
        "missed_ids": missed_ids,
        **_data(names, classes),
        "made": _made(record),
        "tripod": tripod.items(record, measured.metrics, unjudged["unjudged"]),
    }
    context["plots"] |= {"weights": (weights := _weights(model)) is not None and _draw_weights(names, weights)}
    path.write_text(template.render(context), encoding="utf-8")


def _model(record: Record, model: Pipeline, names: Sequence[str]) -> dict[str, Any]:
    return {
        "run": record["run"],
        "train_rows": record["steps"]["train"]["train_rows"],
        "classifier": type(split_threshold(model)[0]).__name__,
        "fixed": split_threshold(model)[1] is not None,
        "min_recall": record["steps"]["train"]["min_recall"] or "none",
        "features": len(names),
        "weights_shown": MOST_WEIGHTS,
        "weights_left_out": len(names) > MOST_WEIGHTS,
    }


def _estimates(measured: Measured, unjudged: int) -> dict[str, Any]:
    """Return the columns of the first table; the first of them is what the page is about."""
    metrics = measured.metrics
    held_out = {**metrics, "name": "held-out rows", "rows": metrics["test_rows"]}
    found = [held_out]
    if validated := metrics["cross_validated"]:
        found = [{**validated["all_rows"], "name": "all judged rows" if unjudged else "all rows"}, held_out]
        found.append({**validated["out_of_fold"], "name": "training rows, cross-validated"})
    for estimate in found:
        negatives, called = (estimate[a] + estimate["false_positives"] for a in ("true_negatives", "true_positives"))
        estimate["specificity"] = estimate["true_negatives"] / negatives if negatives else None
        estimate["precision"] = estimate["precision"] if called else None
    return {
        "estimates": found,
        "main": found[0],
        "held_out": held_out,
        "shown_metrics": SHOWN_METRICS.items(),
        "threshold": metrics["threshold"],
    }


def _unjudged(measured: Measured, classes: tuple[OfClass, OfClass]) -> dict[str, Any]:
    """Return what cross-validation left out, because no model could be fitted without it, and whether that matters."""
    rows, malignant = classes[0].rows + classes[1].rows, classes[1].rows
    judged = len(measured.benign) + len(measured.malignant)
    is_whole = judged == rows or not measured.metrics["cross_validated"]
    share, share_of_all = len(measured.malignant) / judged, malignant / rows
    return {
        "unjudged": 0 if is_whole else rows - judged,
        "unjudged_malignant": malignant - len(measured.malignant),
        "is_alike": is_whole or abs(share / share_of_all - 1) <= LARGEST_DIFFERENCE,
        "share_of_all": share_of_all,
    }


def _curves(model: Pipeline, measured: Measured) -> dict[str, Any]:
    benign, malignant = measured.benign, measured.malignant
    prevalence = len(malignant) / (len(benign) + len(malignant))
    in_use = measured.metrics["threshold"]
    thresholds = curves.acting_thresholds(prevalence, in_use)
    net_benefit = curves.net_benefit(benign, malignant, thresholds)
    return {
        "prevalence": prevalence,
        "mean": float(np.concatenate([benign, malignant]).mean()),
        "thresholds": _thresholds(measured, is_fixed=split_threshold(model)[1] is not None),
        "recalibration": curves.recalibrate(benign, malignant),
        "plots": {
            "roc": plots.draw_roc(curves.roc(benign, malignant)),
            "precision_recall": plots.draw_precision_recall(curves.precision_recall(benign, malignant), prevalence),
            "calibration": plots.draw_calibration(curves.calibrate(benign, malignant)),
            "net_benefit": plots.draw_net_benefit(thresholds, *net_benefit, in_use),
            "scores": plots.draw_scores(benign, malignant, in_use),
        },
    }


def _thresholds(measured: Measured, *, is_fixed: bool) -> list[dict[str, Any]]:
    """Return a row for each threshold; the one in use has the counts that were measured."""
    in_use = measured.metrics["threshold"]
    cuts = np.array(sorted({*curves.THRESHOLDS, *([] if in_use is None else [in_use])}))
    # A model without a fixed threshold calls a row M above 0.5, not at it.
    exact = np.where((cuts == DEFAULT) & (not is_fixed), np.nextafter(DEFAULT, 1), cuts)
    cases = curves.count(measured.benign, measured.malignant, exact)
    rows = []
    for cut, tp, fp, tn, fn in zip(cuts.tolist(), *(counts.tolist() for counts in cases[1:]), strict=True):
        row = {"threshold": cut, "in_use": cut == in_use, "missed": fn, "alarmed": fp}
        shares = {"sensitivity": (tp, fn), "specificity": (tn, fp), "ppv": (tp, fp), "npv": (tn, fn)}
        rows.append(row | {name: a / (a + b) if a + b else None for name, (a, b) in shares.items()})
    return rows


def _data(names: Sequence[str], classes: tuple[OfClass, OfClass]) -> dict[str, Any]:
    named, rows = dict(zip("BM", classes, strict=True)), []
    for number, name in enumerate(names[:MOST_FEATURES]):
        for label, part in named.items():
            shown = ["-" if np.isnan(value) else rounding.show_digits(value) for value in part.quantiles[number]]
            missing = int(part.missing[number])
            rows.append({"name": name if label == "B" else "", "class": label, "missing": missing, "quantiles": shown})
    return {
        "classes": named,
        "by_class": rows,
        "quantile_names": [f"{quantile:.0%}" for quantile in QUANTILES],
        "sampled": any(part.sampled < part.rows for part in classes),
        "left_out": len(names) > MOST_FEATURES,
        "shown": MOST_FEATURES,
        "too_small": any(np.isnan(part.quantiles).any() for part in classes),
        "least_rows": LEAST_ROWS,
    }


def _weights(model: Pipeline) -> Array | None:
    """Return the weights of a linear classifier, for features that are scaled in the Pipeline; None for any other."""
    weights = getattr(split_threshold(model)[0], "coef_", None)
    is_scaled = any(type(step).__name__ == "StandardScaler" for step in model[:-1])
    if weights is None or not is_scaled or np.shape(weights) != (1, len(model[0].feature_names_in_)):
        return None
    return np.asarray(weights[0], dtype=np.float64)


def _draw_weights(names: Sequence[str], weights: Array) -> str:
    largest = np.argsort(-np.abs(weights), kind="stable")[:MOST_WEIGHTS]
    return plots.draw_weights([missed.shorten(names[i], LONGEST_IN_PLOT) for i in largest], weights[largest])


def _made(record: Record) -> dict[str, Any]:
    """Return where the run came from, its settings and its versions."""
    steps, artifacts = record["steps"], record["artifacts"]
    train = steps["train"]
    packages = ", ".join(f"{name} {version}" for name, version in train["packages"].items())
    return {
        "source": printable(str(steps["data_loader"].get("source", "?"))),
        "rows loaded": artifacts["raw_data.csv"]["rows"],
        "duplicates dropped": steps["transform"].get("duplicates_dropped", "?"),
        "features dropped, because they had no value": len(steps["transform"].get("features_dropped", [])),
        "test rows and folds": train["split"],
        "solver": ", ".join(f"{name} {value}" for name, value in train["solver"].items()) or "that of the classifier",
        "MIN_RECALL": train["min_recall"] or "none",
        "seed": train["seed"],
        "versions": f"Python {train['python']}, {packages}; revision {train['git_revision'] or 'unknown'}",
        **{f"sha256 of {name}": made["sha256"] for name, made in artifacts.items() if made["step"] != "evaluate"},
    }
