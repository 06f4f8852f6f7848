"""How well probabilities rank one class above the other, from the two classes' probabilities alone.

scikit-learn's roc_auc_score and average_precision_score give the same, in a dozen times the memory of what is ranked.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def rank(of_b: "NDArray[np.float64]", of_m: "NDArray[np.float64]") -> tuple[float, float]:
    """Return the area under the ROC curve and the average precision; the arrays are sorted in their place.

    The area is the share of pairs of a B and an M in which the M has the higher probability, an equal one counting
    half (Mann and Whitney 1947). The average precision is the mean, over each M, of the share of M among the rows
    that are no less probable than it.
    """
    import numpy as np

    of_b.sort()
    of_m.sort()
    b_below, b_up_to = (np.searchsorted(of_b, of_m, side) for side in ("left", "right"))
    area = float((b_below + b_up_to).sum()) / 2 / len(of_b) / len(of_m)
    m_from = len(of_m) - np.searchsorted(of_m, of_m, "left")
    precision = m_from / (m_from + len(of_b) - b_below)
    return area, float(precision.mean())
