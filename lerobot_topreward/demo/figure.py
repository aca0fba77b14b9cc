"""The demo's picture: rewards over time beside the truth, and what the camera saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

STRIP_FRAMES = 8  # images under a curve

# Okabe and Ito's palette: told apart with any common color vision deficiency.
_SUCCESS, _FAILURE, _TRUTH = "#0072B2", "#D55E00", "#555555"
_COLUMNS = 2
_WIDTH, _GAP = 5.6, 0.5  # inches, of a panel and between panels
_CURVE, _ROW, _HEADER = 1.55, 3.05, 0.85  # inches, heights


@dataclass(frozen=True, slots=True)
class Panel:
    """One episode of the picture."""

    title: str
    success: bool  # what truly happened
    times: Float[np.ndarray, " prefixes"]  # s, last frame shown by each scored prefix
    values: Float[np.ndarray, " prefixes"]  # 0..1
    truth_times: Float[np.ndarray, " frames"]  # s
    truth: Float[np.ndarray, " frames"]  # 0..1
    strip: UInt8[np.ndarray, "images height width 3"]  # the middles of equal spans of time


def strip_indices(num_frames: int, *, count: int = STRIP_FRAMES) -> Int64[np.ndarray, " images"]:
    """Choose frames for a strip: the middle of each of `count` equal spans of an episode.

    Raises:
        ValueError: num_frames < 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be >= 1; got {num_frames}")
    middles = (np.arange(count) + 0.5) / count * num_frames
    return np.minimum(middles.astype(np.int64), num_frames - 1)


def draw_figure(
    panels: Sequence[Panel], path: Path, *, caption: str = "", value_name: str = "P(True)"
) -> None:
    """Draw a panel per episode, two in a row, as a PNG.

    Args:
        panels: at least one.
        path: where the PNG goes; its folder exists.
        caption: a line above everything, such as the measured numbers.
        value_name: what the values are called.

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
        _draw_strip(add_axes(left, top + _CURVE + 0.3, _WIDTH / len(panel.strip)), panel)
    # Colors differ between panels, so the legend shows the lines' styles alone.
    handles = [
        Line2D([], [], color="#222222", marker="o", markersize=3.6, linewidth=2.0),
        Line2D([], [], color=_TRUTH, linestyle="--", linewidth=1.4),
    ]
    figure.legend(
        handles,
        [f"{value_name} of every prefix", "simulator's truth"],
        loc="upper right",
        ncols=2,
        frameon=False,
        fontsize=10,
    )
    figure.text(_GAP / width, 1.0 - 0.22 / height, caption, fontsize=11, va="center")
    figure.savefig(path)


def _draw_curve(axes: Axes, panel: Panel) -> None:
    color = _SUCCESS if panel.success else _FAILURE
    axes.plot(panel.truth_times, panel.truth, "--", color=_TRUTH, linewidth=1.4)
    axes.plot(panel.times, panel.values, "o-", color=color, linewidth=2.0, markersize=3.6)
    axes.set_xlim(0.0, float(panel.truth_times[-1]))
    axes.set_ylim(-0.04, 1.06)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, length=3, color="#888888")
    outcome = "succeeds" if panel.success else "fails"
    axes.set_title(f"{panel.title} — {outcome}", loc="left", fontsize=11, color=color, pad=5)
    axes.xaxis.set_major_formatter("{x:g} s")


def _draw_strip(axes: Axes, panel: Panel) -> None:
    """Images side by side, each under the span of time that it stands for."""
    for i, image in enumerate(panel.strip):
        axes.imshow(image, extent=(i + 0.03, i + 0.97, 0.0, 1.0), aspect="auto")
    axes.set_xlim(0.0, len(panel.strip))
    axes.set_ylim(0.0, 1.0)
    axes.axis("off")
