"""How the frames of a dataset are weighted in training: one frozen configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lerobot_topreward.errors import UserError

Scheme = Literal["awr", "top-awr", "rabc", "filter", "uniform"]


@dataclass(frozen=True, kw_only=True)
class WeightingConfig:
    """Weight the loss of every frame by its labelled rewards; see `weights` for the formulas."""

    scheme: Scheme = "awr"
    horizon: float | None = None  # span of the advantage, seconds; the policy's action chunk if None
    normalize: Literal["dataset", "batch"] | None = None  # mean 1 over; rabc: batch, as in LeRobot
    unlabelled_weight: float | None = None  # of frames without a label; an error if None
    source: Literal["auto", "columns", "sidecar"] = "auto"  # auto: the sidecar if there is one
    sidecar: Path | None = None  # the file; in the dataset's folder if None

    beta: float = 0.5  # awr: temperature, standard deviations of the advantage
    w_min: float = 0.0  # awr: smallest weight before normalisation
    w_max: float = 20.0  # awr: largest weight before normalisation
    per: Literal["dataset", "task"] = "dataset"  # awr: what the advantage is standardised over

    tau: float = 2.0  # top-awr: factor before the exponential
    delta_max: float = 2.0  # top-awr: largest weight
    span: Literal["prefix", "chunk"] | float = "chunk"  # top-awr: of the increment; or seconds
    centre: Literal["none", "increment"] = "increment"  # top-awr: subtract the dataset's mean

    kappa: float = 0.01  # rabc: progress gained that earns the full weight, 0..1
    epsilon: float = 1e-6  # rabc: keeps its division finite
    tail: Literal["shrink", "slide"] = "shrink"  # rabc: the window at an episode's end

    by: Literal["advantage", "success"] = "success"  # filter: frames, or whole episodes
    threshold: float | None = None  # filter: keep what is above; progress gained, or nats
    quantile: float | None = None  # filter: keep what is above this quantile, 0..1

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before a dataset is opened."""
        for name in ("beta", "w_max", "tau", "delta_max", "epsilon", "horizon", "span"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 < value < float("inf"):
                raise UserError(f"--weighting.{name} must be > 0 and finite; got {value}")
