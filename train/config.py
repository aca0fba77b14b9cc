"""How the frames of a dataset are weighted in training: one frozen configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lerobot_topreward.config import as_json, check_options
from lerobot_topreward.errors import UserError

PREFIX = "--weighting."  # of these options on the command line

Scheme = Literal["awr", "top-awr", "rabc", "filter", "uniform"]
Normalize = Literal["dataset", "batch"]
Source = Literal["auto", "columns", "sidecar"]
Per = Literal["dataset", "task"]
Span = Literal["prefix", "chunk"]
Centre = Literal["none", "increment", "weight"]
Tail = Literal["shrink", "slide"]
By = Literal["advantage", "success"]


@dataclass(frozen=True, kw_only=True)
class WeightingConfig:
    """Weight the loss of every frame by its labelled rewards; see `weights` for the formulas."""

    scheme: Scheme = "awr"
    horizon: float | None = None  # span of the advantage, seconds; by default the action chunk
    normalize: Normalize | None = None  # mean 1 over; by default the batch for rabc, as in LeRobot
    unlabelled_weight: float | None = None  # of frames without a label, in averages of the others
    source: Source = "auto"  # auto: the sidecar if there is one
    sidecar: Path | None = None  # the file; in the dataset's folder if None

    beta: float = 0.5  # awr: temperature, standard deviations of the advantage
    w_min: float = 0.0  # awr: smallest weight before normalisation
    w_max: float = 20.0  # awr: largest weight before normalisation
    per: Per = "dataset"  # awr: what the advantage is standardised over

    tau: float = 2.0  # top-awr: factor before the exponential
    delta_max: float = 2.0  # top-awr: largest weight
    span: Span | float = "chunk"  # top-awr: of the increment; or seconds
    centre: Centre = "increment"  # top-awr: subtract the mean increment, or the mean weight

    kappa: float = 0.01  # rabc: progress gained that earns the full weight, 0..1
    epsilon: float = 1e-6  # rabc: keeps its division finite
    tail: Tail = "shrink"  # rabc: the window at an episode's end

    by: By = "success"  # filter: frames by advantage, or whole episodes by success
    threshold: float | None = None  # filter: keep what is at least this; progress gained, or nats
    quantile: float | None = None  # filter: keep what is at least this quantile, 0..1

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before a dataset is opened."""
        for name in ("beta", "w_max", "tau", "delta_max", "epsilon", "horizon", "span"):
            _check_range(name, getattr(self, name), above=0)
        for name in ("w_min", "unlabelled_weight"):
            _check_range(name, getattr(self, name), low=0)
        for name in ("kappa", "quantile"):
            _check_range(name, getattr(self, name), low=0, high=1)
        self._check_together()
        if self.scheme == "filter":
            self._check_filter()

    def _check_together(self) -> None:
        if self.w_min > self.w_max:
            raise UserError(
                f"--weighting.w_min must be <= --weighting.w_max; got {self.w_min} > {self.w_max}"
            )
        if self.sidecar is not None and self.source == "columns":
            raise UserError(
                f"--weighting.sidecar={self.sidecar} is not read with --weighting.source=columns; "
                "leave one of them out"
            )
        if self.horizon is not None and self.scheme == "top-awr" and self.span != "chunk":
            raise UserError(
                f"--weighting.horizon and --weighting.span={self.span} both give the span of "
                "top-awr; leave one of them out"
            )
        for item in fields(self):
            schemes = _SCHEMES_OF.get(item.name)
            value = getattr(self, item.name)
            if schemes and self.scheme not in schemes and value != item.default:
                raise UserError(
                    f"--weighting.{item.name} is an option of {' and '.join(schemes)}, not of "
                    f"{self.scheme}; leave it at {_plain(item.default)}; got {_plain(value)}"
                )

    def _check_filter(self) -> None:
        given = [name for name in ("threshold", "quantile") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UserError(
                "--weighting.scheme=filter must have one of --weighting.threshold and "
                f"--weighting.quantile; got {'both' if given else 'neither'}"
            )
        if self.by == "success" and self.horizon is not None:
            raise UserError(
                f"--weighting.horizon={self.horizon:g} is the span of the advantage, which "
                "--weighting.by=success does not use; leave one of them out"
            )
        if self.threshold is None:
            return
        if self.by == "success" and self.threshold > 0:
            raise UserError(
                "--weighting.threshold must be <= 0 with --weighting.by=success, a log-probability "
                f"in nats; got {self.threshold}"
            )
        if self.by == "advantage" and not -1 <= self.threshold <= 1:
            raise UserError(
                "--weighting.threshold must be -1..1 with --weighting.by=advantage, progress "
                f"gained; got {self.threshold}"
            )

    @property
    def normalization(self) -> Normalize:
        """What the weights have mean 1 over, once it is decided."""
        return self.normalize or ("batch" if self.scheme == "rabc" else "dataset")


_SCHEMES_OF = {
    **dict.fromkeys(("beta", "w_min", "w_max", "per"), ("awr",)),
    **dict.fromkeys(("tau", "delta_max", "span", "centre"), ("top-awr",)),
    **dict.fromkeys(("kappa", "epsilon", "tail"), ("rabc",)),
    **dict.fromkeys(("by", "threshold", "quantile"), ("filter",)),
    "horizon": ("awr", "top-awr", "rabc", "filter"),
}


def as_params(config: WeightingConfig) -> dict[str, Any]:
    """All options as plain JSON values, so that a checkpoint says how it was weighted."""
    return as_json(config)


def from_params(params: Mapping[str, Any]) -> WeightingConfig:
    """Build a configuration from plain values, those of `as_params` among them.

    Args:
        params: by name; text where LeRobot's parser has not made a number of it, as of ``1e-6``.

    Raises:
        UserError: an option does not exist, with a suggestion; or its value breaks a rule.
    """
    text = {name: value for name, value in params.items() if isinstance(value, str)}
    typed = {name: value for name, value in params.items() if name not in text}
    return WeightingConfig(
        **check_options(WeightingConfig, text, where=PREFIX, text=True),
        **check_options(WeightingConfig, typed, where=PREFIX),
    )


def _check_range(
    name: str,
    value: float | str | None,
    *,
    above: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> None:
    if value is None or isinstance(value, str):
        return
    if above is not None and not value > above:
        raise UserError(f"--weighting.{name} must be > {above}; got {value:g}")
    if low is not None and not low <= value <= (float("inf") if high is None else high):
        rule = f">= {low}" if high is None else f"{low}..{high}"
        raise UserError(f"--weighting.{name} must be {rule}; got {value:g}")


def _plain(value: Any) -> str:
    return "unset" if value is None else str(value)
