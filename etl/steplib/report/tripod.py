"""The items of TRIPOD+AI, the reporting statement for prediction models (Collins and others, BMJ 2024;385:e078378)."""

from collections.abc import Mapping
from typing import Any

OPEN = "to be filled in by you"


def items(record: Mapping[str, Any], metrics: Mapping[str, Any], unjudged: int) -> list[tuple[str, str]]:
    """Return each item with what the run says about it, or that only a person can fill it in.

    `unjudged`: the number of rows that cross-validation left out.
    """
    validation = "cross-validated in up to ten folds" if metrics["cross_validated"] else "no cross-validation"
    if unjudged:
        validation = f"cross-validated, except for {unjudged} rows whose folds could not be judged"
    train, transform = record["steps"]["train"], record["steps"]["transform"]
    return [
        ("1 to 4. Title, abstract, background, objectives", OPEN),
        ("5. Data: source and dates", f"source: under How it was made; dates of collection: {OPEN}"),
        ("6. Participants: setting, eligibility, treatment", OPEN),
        (
            "7. Data preparation",
            f"{transform.get('duplicates_dropped', '?')} exact duplicates dropped; features without any value dropped",
        ),
        ("8. Outcome", f"M or B, as recorded in the source; how and by whom it was assessed: {OPEN}"),
        ("9. Predictors", f"all columns from the third on; how they were measured: {OPEN}"),
        (
            "10. Sample size",
            "{train_rows} training and {test_rows} test rows; reason for this size: ".format(**metrics) + OPEN,
        ),
        (
            "11. Missing data",
            "counts: under The data; how they are filled: in the Pipeline of model.pkl",
        ),
        ("12. Analytical methods", f"{metrics['classifier']}; split and settings: under How it was made"),
        ("13. Class imbalance", "no resampling; weighting, if any, is a setting of the classifier"),
        ("14. Fairness", OPEN),
        ("15. Model output", f"the probability of M; M or B by the threshold, {_origin(metrics, train)}"),
        ("16. Training versus evaluation", f"one source, divided by the id; differences, if any: {OPEN}"),
        ("17 to 19. Ethical approval, open science, involvement of patients", OPEN),
        ("20. Participants in the results", f"numbers by class: under The data; characteristics: {OPEN}"),
        ("21 and 22. Model development and specification", "model.pkl of this run, a scikit-learn Pipeline"),
        ("23. Model performance", f"with intervals: under How good it is; {validation}"),
        ("24. Model updating", "trained anew by each run"),
        ("25 to 27. Interpretation, limitations, usability", OPEN),
    ]


def _origin(metrics: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    if metrics["threshold"] is None:
        return "which the classifier decides in its own way"
    return "chosen for MIN_RECALL" if train["min_recall"] else "not chosen from the data"
