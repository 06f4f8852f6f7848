"""The metrics of a run in a few lines of its log."""

from typing import Any


def summarize(metrics: dict[str, Any]) -> list[str]:
    """Return the metrics in a few lines for people."""
    (low, high), (recall_low, recall_high) = metrics["accuracy_interval"], metrics["recall_interval"]
    return [
        "accuracy {accuracy:.4f}, precision {precision:.4f}, recall {recall:.4f}, F1 {f1_score:.4f}".format(**metrics),
        f"95 % intervals: accuracy {low:.4f} to {high:.4f}, recall {recall_low:.4f} to {recall_high:.4f}",
        "of {test_rows} test rows: {true_positives} M found, {false_negatives} M missed, "
        "{true_negatives} B recognized, {false_positives} B predicted as M; "
        "always predicting the majority would give accuracy {baseline_accuracy:.4f}".format(**metrics),
        *summarize_validation(metrics["cross_validated"]),
    ]


def summarize_validation(validated: dict[str, Any] | None) -> list[str]:
    """Return the estimate to believe in one line."""
    if not validated:
        return []
    rows = validated["all_rows"]
    (low, high), found = rows["accuracy_interval"], rows["true_positives"]
    line = f"all {rows['rows']} rows, each judged by a model that never saw it: accuracy {rows['accuracy']:.4f}"
    return [f"{line} (about 95 %: {low:.4f} to {high:.4f}), {found} of {found + rows['false_negatives']} M found"]
