"""A picture of the weights: where the frames are, and where the weight is."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lerobot_topreward.files.atomic import replace_file
from lerobot_topreward.train.records import FrameWeights

# Okabe and Ito's palette: distinct with any common color vision deficiency.
_FRAMES, _WEIGHT, _CAP, _ZERO = "#56B4E9", "#D55E00", "#E69F00", "#999999"
_BINS = 40


def save_histogram(path: Path, weights: FrameWeights, *, title: str) -> None:
    """Draw weights, not all zero, as a PNG, at once or not at all.

    Bars are shares of the frames, the line is the share of the weight that they carry: how far
    the two lie apart is how far this is from plain behavior cloning.
    """
    weight, frames = weights.weight.astype(np.float64), len(weights.weight)
    zero = weights.nothing
    capped = weights.capped & ~zero
    edges = np.linspace(0, max(float(weight.max()), 1.5), _BINS + 1)
    width = edges[1]
    free = np.histogram(weight[~zero & ~capped], edges)[0] / frames
    cap = np.histogram(weight[capped], edges)[0] / frames
    carried = np.histogram(weight, edges, weights=weight)[0] / weight.sum()

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    if zero.any():
        label = f"weighs nothing: {zero.mean():.1%} of the frames"
        style: dict[str, Any] = {"color": _ZERO, "hatch": "//", "edgecolor": "white"}
        axes.bar(-1.5 * width, zero.mean(), width, label=label, **style)
    axes.bar(edges[:-1], free, width, align="edge", color=_FRAMES, label="share of the frames")
    if capped.any():
        label = f"at the cap: {capped.mean():.1%} of the frames"
        style = {"color": _CAP, "hatch": "..", "edgecolor": "white"}
        axes.bar(edges[:-1], cap, width, free, align="edge", label=label, **style)
    axes.stairs(carried, edges, color=_WEIGHT, linewidth=1.8, label="share of the weight")
    mean = weight.mean()
    axes.axvline(mean, color="#333333", linestyle=":", linewidth=1)
    axes.annotate(
        f"mean {mean:.2f}",
        (mean, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -12),
        textcoords="offset points",
        fontsize=9,
        color="#333333",
    )
    effective = weights.effective / frames
    axes.set_xlabel(f"weight of a frame ({frames} frames, effective sample size {effective:.1%})")
    axes.set_ylabel("share")
    axes.set_ylim(0, 1.08 * max(zero.mean(), (free + cap).max(), carried.max()))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= edges[-1]])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)

    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
