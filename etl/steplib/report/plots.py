"""The plots of a run's page, as SVG with the browser's own fonts."""

import io
import logging
import os
import shutil
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

# Where the home folder cannot be written, matplotlib would say so on stderr; it then works without a cache of fonts.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
# Nothing is shown in a window or a notebook, and matplotlib fails at a name that it does not know.
os.environ.pop("MPLBACKEND", None)
FOLDER = os.environ.get("MPLCONFIGDIR", "")

# ruff: noqa: E402 - only now, because importing matplotlib logs
try:
    import matplotlib as mpl
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
finally:
    # A temporary folder, if it could not use its own. It has read and written there all that it will; what it does at
    # the interpreter's exit to remove it is never done, because steps end at once.
    if (made := os.environ.get("MPLCONFIGDIR", "")) != FOLDER:
        shutil.rmtree(made, ignore_errors=True)
from numpy.typing import NDArray

from steplib.report.curves import LOWEST, Array, Bins, Curve

# Text stays text, and the same data give the same bytes. `Any`, because each parameter has a different type.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "my_pipeline",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.axisbelow": True,
}
# A matplotlibrc of the user's must not change the page; the backend is not used.
mpl.rcParams.update({name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"} | STYLE)
SIZE = (4.2, 3.6)
# Dark and light enough to differ in grey, and for the colour-blind (Okabe and Ito).
M, B, OTHER = "#0072b2", "#e69f00", "#666666"
# For lines in one plot, which also differ in grey.
COLORS, MARKERS = (M, B, "#009e73", "#cc79a7", OTHER), ("o", "s", "^", "D", "x")
POINTS_PER_INCH = 72
SCORE_BINS = np.linspace(0, 1, 21)


def draw_roc(curve: Curve) -> str:
    """Draw sensitivity over 1 - specificity."""
    figure, axes = _axes("1 - specificity (share of B called M)", "sensitivity (share of M found)")
    axes.fill_between(curve.x, curve.low, curve.high, color=M, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(curve.x, curve.y, color=M, label="model")
    axes.plot([0, 1], [0, 1], color=OTHER, linestyle=":", label="chance")
    return _to_svg(figure)


def draw_precision_recall(curve: Curve, share: float) -> str:
    """Draw precision over recall; `share`: that of M among all rows, the precision of chance."""
    figure, axes = _axes("recall (share of M found)", "precision (share of M among those called M)")
    axes.fill_between(curve.x, curve.low, curve.high, color=M, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(curve.x, curve.y, color=M, label="model")
    axes.axhline(share, color=OTHER, linestyle=":", label="chance")
    return _to_svg(figure)


def draw_calibration(bins: Bins) -> str:
    """Draw the share of M over the probability, for rows grouped by probability."""
    figure, axes = _axes("mean probability of the group", "share of M in the group")
    axes.plot([0, 1], [0, 1], color=OTHER, linestyle=":", label="perfect")
    # Where M is rare, all groups are near 0.
    top = min(1.02, 1.1 * float(max(bins.predicted.max(), bins.high.max())))
    axes.set_xlim(-0.02 * top, top)
    axes.set_ylim(-0.02 * top, top)
    bars = np.array([bins.observed - bins.low, bins.high - bins.observed]).clip(0)
    axes.errorbar(bins.predicted, bins.observed, bars, color=M, fmt="o", markersize=4, label="group, 95 % interval")
    return _to_svg(figure)


def draw_net_benefit(thresholds: Array, model: Array, all_treated: Array, in_use: float | None) -> str:
    """Draw the net benefit over the threshold, beside those of treating all and none; `in_use`: the one to mark."""
    figure, axes = _axes("threshold", "net benefit")
    if thresholds[0] < LOWEST:
        axes.set_xscale("log")
        axes.set_xlim(thresholds[0], 1)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.plot(thresholds, model, color=M, label="model")
    axes.plot(thresholds, all_treated, color=B, linestyle="--", label="treat all")
    axes.axhline(0, color=OTHER, linestyle=":", label="treat none")
    top = float(max(model.max(), all_treated.max()))
    axes.set_ylim(-top / 4, top * 1.1)
    _mark(axes, in_use)
    return _to_svg(figure, columns=2)


def draw_scores(benign: Array, malignant: Array, threshold: float | None) -> str:
    """Draw how many rows of each class have which probability, on a logarithmic axis."""
    figure, axes = _axes("probability of M", "rows")
    axes.hist([benign, malignant], bins=list(SCORE_BINS), color=[B, M], label=["B", "M"])
    axes.set_yscale("symlog", linthresh=1)
    most = max(int(np.histogram(rows, SCORE_BINS)[0].max()) for rows in (benign, malignant))
    axes.set_ylim(0, 2 * most)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _mark(axes, threshold)
    return _to_svg(figure)


def draw_weights(names: Sequence[str], weights: Array) -> str:
    """Draw weights as bars, the first at the top."""
    # A letter that matplotlib's font does not have may be wider in the browser's, by up to half its height.
    wide = max(sum(unicodedata.east_asian_width(letter) in "WF" for letter in name) for name in names)
    left = wide / 2 * STYLE["font.size"] / POINTS_PER_INCH / (2 * SIZE[0])
    layout = ConstrainedLayoutEngine(rect=(left, 0, 1 - left, 1))
    figure = Figure(figsize=(2 * SIZE[0], 0.6 + 0.2 * len(names)), layout=layout)
    axes = figure.subplots()
    axes.barh(range(len(names)), weights, color=[M if weight > 0 else B for weight in weights])
    # Otherwise matplotlib would take a $ for the start of a formula.
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("weight per standard deviation (right: towards M)")
    return _to_svg(figure, has_legend=False)


def draw_over_time(when: NDArray[np.datetime64], series: Mapping[str, Array], label: str) -> str:
    """Draw metrics over time, a line for each; `label`: of which rows."""
    figure = Figure(figsize=(2.4 * SIZE[0], SIZE[1]), layout="constrained")
    axes = figure.subplots()
    for (name, values), marker, color in zip(series.items(), MARKERS, COLORS, strict=False):
        axes.plot(when, values, color=color, marker=marker, markersize=4, label=name)
    axes.set_ylabel(label)
    # The parts of matplotlib for dates have no types.
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    return _to_svg(figure, columns=5)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    return figure, axes


def _mark(axes: Axes, threshold: float | None) -> None:
    if threshold is not None:
        axes.axvline(threshold, color=OTHER, linestyle="--", label=f"threshold {threshold:.3g}")


def _to_svg(figure: Figure, *, has_legend: bool = True, columns: int = 3) -> str:
    """Return the SVG element alone, without the head of a file."""
    if has_legend:
        # Above the plot, where it hides nothing.
        figure.legend(loc="outside upper left", ncols=columns, columnspacing=1, handlelength=1.5)
    file = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text, so the browser finds a letter that matplotlib's font does not have.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
