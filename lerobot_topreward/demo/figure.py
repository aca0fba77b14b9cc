"""The demo's picture: rewards over time beside the truth, and what the camera saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lerobot_topreward.records import PrefixScores
from lerobot_topreward.simulation.truth import Truth

STRIP_FRAMES = 8  # images under a curve

# Okabe and Ito's palette: told apart with any common color vision deficiency.
_SUCCESS, _FAILURE, _TRUTH = "#0072B2", "#D55E00", "#555555"
_COLUMNS = 2
_WIDTH, _GAP = 5.6, 0.5  # inches, of a panel and between panels
_CURVE, _ROW, _HEADER = 1.55, 3.05, 0.85  # inches, heights


@dataclass(frozen=True, slots=True)
class Panel:
    """One episode of the picture."""

    scores: PrefixScores
    truth: Truth
    frames: UInt8[np.ndarray, "frames height width 3"]
    fps: float  # Hz


def strip_indices(num_frames: int, *, count: int = STRIP_FRAMES) -> Int64[np.ndarray, " images"]:
    """Choose frames for a strip: the middle of each of `count` equal spans of an episode."""
    return ((np.arange(count) + 0.5) / count * num_frames).astype(np.int64)


def draw_figure(panels: Sequence[Panel], path: Path, *, caption: str) -> None:
    """Draw a panel per episode, two in a row, as a PNG, below a line with the measured numbers.

    Raises:
        ValueError: there is no panel.
    """
    if not panels:
        raise ValueError("panels must hold at least one episode; got none")
    rows = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * (_WIDTH + _GAP) + _GAP, rows * _ROW + _HEADER
    figure = Figure(figsize=(width, height), dpi=130, facecolor="white")

    def add_axes(left: float, top: float, axes_height: float) -> Axes:
        bounds = (left / width, (height - top - axes_height) / height)
        return figure.add_axes((*bounds, _WIDTH / width, axes_height / height))

    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        left, top = _GAP + column * (_WIDTH + _GAP), _HEADER + row * _ROW
        _draw_curve(add_axes(left, top, _CURVE), panel)
        # Images side by side, each under the span of time that it stands for.
        axes = add_axes(left, top + _CURVE + 0.3, _WIDTH / STRIP_FRAMES)
        for i, index in enumerate(strip_indices(len(panel.frames))):
            axes.imshow(panel.frames[index], extent=(i + 0.03, i + 0.97, 0, 1), aspect="auto")
        axes.set(xlim=(0, STRIP_FRAMES), ylim=(0, 1))
        axes.axis("off")
    # Colors differ between panels, so the legend shows the lines' styles alone.
    handles = [
        Line2D([], [], color="#222222", marker="o", markersize=3.6, linewidth=2.0),
        Line2D([], [], color=_TRUTH, linestyle="--", linewidth=1.4),
    ]
    names = ["P(True) of every prefix", "simulator's truth"]
    figure.legend(handles, names, loc="upper right", ncols=2, frameon=False, fontsize=10)
    figure.text(_GAP / width, 1.0 - 0.22 / height, caption, fontsize=11, va="center")
    figure.savefig(path)


def _draw_curve(axes: Axes, panel: Panel) -> None:
    scores, truth = panel.scores, panel.truth
    color = _SUCCESS if truth.success else _FAILURE
    times = np.arange(len(truth.progress)) / panel.fps
    values = np.exp(scores.log_prob_true)
    axes.plot(times, truth.progress, "--", color=_TRUTH, linewidth=1.4)
    axes.plot(
        scores.frame_index / panel.fps, values, "o-", color=color, linewidth=2.0, markersize=3.6
    )
    axes.set(xlim=(0.0, float(times[-1])), ylim=(-0.04, 1.06), yticks=[0.0, 0.5, 1.0])
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, length=3, color="#888888")
    outcome = "succeeds" if truth.success else "fails"
    title = f"{truth.kind.replace('_', ' ')}: {scores.segment.instruction} — {outcome}"
    axes.set_title(title, loc="left", fontsize=11, color=color, pad=5)
    axes.xaxis.set_major_formatter("{x:g} s")
