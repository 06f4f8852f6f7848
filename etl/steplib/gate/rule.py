"""The rule by which a run, the challenger, is compared with the run in use, the champion.

It compares the predictions that each run stored when it had not seen the row, for the rows that both have.
The diagnoses are those of the challenger's file.

1. Brier score: the loss counts if it exceeds 5 % of the champion's; p by a one-sided sign-flip permutation test.
2. Accuracy: the loss counts if it exceeds 0.5 points; p by McNemar's exact test, one-sided.
3. Recall: the loss counts if it exceeds 1 point; p by the same test over M alone.

Where a loss is within its margin, p is 1. The first of these that applies is the outcome:

cannot tell    fewer than 100 rows in common, fewer than 20 of them M, or other features
suspect        more than 1 % of these rows, and more than one, have a different diagnosis in the champion's file
worse          the smallest p is below 0.05 / 3: Holm's first step, which decides whether any of the three is rejected
not worse      otherwise

Only `not worse`, and `first` if no run is in use, bring a run into use by themselves.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, permutation_test

from steplib.gate.verdicts import CANNOT_TELL, NOT_WORSE, SUSPECT, WORSE

ALPHA = 0.05
BRIER_MARGIN = 0.05
# As one row in so many, so that no rounding decides.
ACCURACY_MARGIN, RECALL_MARGIN, CHANGED_MARGIN = 200, 100, 100
LEAST_ROWS, LEAST_MALIGNANT = 100, 20
# Above it, the normal limit of the same statistic, which needs neither time nor memory.
MOST_PERMUTED = 5_000
RESAMPLES, SEED, BATCH = 9_999, 0, 100

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Pairs(NamedTuple):
    """Rows that both runs have, in the order of the challenger's file, (rows,).

    `is_m`: the diagnoses in the challenger's file. `before` and `now`: the probabilities of M that champion and
    challenger stored; `called_before` and `called_now`: which rows they called M. `changed`: how many diagnoses differ.
    """

    is_m: Mask
    before: Array
    now: Array
    called_before: Mask
    called_now: Mask
    changed: int


def judge(pairs: Pairs, *, has_same_features: bool) -> dict[str, Any]:
    """Return the outcome, and for each measure what champion and challenger have, and p; None where undefined."""
    rows, malignant = len(pairs.is_m), int(pairs.is_m.sum())
    is_enough = rows >= LEAST_ROWS and malignant >= LEAST_MALIGNANT
    found = {
        "brier": _brier(pairs, is_enough=is_enough),
        "accuracy": _right(pairs, ACCURACY_MARGIN, is_enough=is_enough),
        "recall": _right(_only_malignant(pairs), RECALL_MARGIN, is_enough=is_enough),
    }
    if not is_enough or not has_same_features:
        outcome = CANNOT_TELL
    elif pairs.changed > 1 and pairs.changed * CHANGED_MARGIN > rows:
        outcome = SUSPECT
    elif min(measure["p"] or 0.0 for measure in found.values()) < ALPHA / len(found):
        outcome = WORSE
    else:
        outcome = NOT_WORSE
    return {"outcome": outcome, "common_ids": rows, "changed_diagnoses": pairs.changed, **found}


def _brier(pairs: Pairs, *, is_enough: bool) -> dict[str, float | None]:
    if not len(pairs.is_m):
        return _measure(None, None, None)
    before, now = (np.square(p - pairs.is_m) for p in (pairs.before, pairs.now))
    loss = now - before
    champion = float(before.mean())
    p = _sign_flips(loss) if is_enough and loss.mean() > BRIER_MARGIN * champion else 1.0
    return _measure(champion, float(now.mean()), p if is_enough else None)


def _sign_flips(loss: Array) -> float:
    """Return how often a mean as large as this comes about if the sign of each loss is chance."""
    if len(loss) > MOST_PERMUTED:
        return float(norm.sf(loss.sum() / np.sqrt(np.square(loss).sum())))
    test = permutation_test(
        (loss,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        n_resamples=RESAMPLES,
        batch=BATCH,
        rng=SEED,
    )
    return float(test.pvalue)


def _right(pairs: Pairs, margin: int, *, is_enough: bool) -> dict[str, float | None]:
    """Compare how many rows each run called rightly."""
    rows = len(pairs.is_m)
    if not rows:
        return _measure(None, None, None)
    was_right, is_right = pairs.called_before == pairs.is_m, pairs.called_now == pairs.is_m
    lost, won = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
    is_loss = (lost - won) * margin > rows
    p = float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue) if is_loss else 1.0
    return _measure(float(was_right.mean()), float(is_right.mean()), p if is_enough else None)


def _only_malignant(pairs: Pairs) -> Pairs:
    is_m, before, now, called_before, called_now, changed = pairs
    return Pairs(is_m[is_m], before[is_m], now[is_m], called_before[is_m], called_now[is_m], changed)


def _measure(champion: float | None, challenger: float | None, p: float | None) -> dict[str, float | None]:
    return {"champion": champion, "challenger": challenger, "p": p}
