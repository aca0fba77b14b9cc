"""How the frames of a dataset are weighted in training: one frozen configuration."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lerobot_topreward.config import as_json, check_options
from lerobot_topreward.errors import UserError
from lerobot_topreward.train.base_scheme import require_range
from lerobot_topreward.train.records import FrameLabels
from lerobot_topreward.train.schemes import SCHEMES, Awr, Scheme, Uniform


@dataclass(frozen=True, kw_only=True)
class WeightingConfig:
    """Weight the loss of every frame by its labeled rewards; see `schemes` for the formulas."""

    scheme: Scheme = field(default_factory=Awr)
    # What the weights do: multiply the losses, or decide how often a frame is drawn. Drawn frames
    # have losses that count alike. By default sampling, and loss for rabc, as in LeRobot, with
    # normalize=batch, with a streamed dataset and where all weights are equal.
    apply: Literal["loss", "sampling"] | None = None
    # What becomes of stretches of a second or longer in which neither the robot nor progress moves:
    # keep them, or let them weigh nothing. The end of an episode that succeeds stays. auto: drop for
    # awr with baseline=stage and horizon=episode, if commands or readings can be read; else keep.
    stationary: Literal["auto", "keep", "drop"] = "auto"
    # The scope in which weights average 1; by default the batch for rabc, as in LeRobot, and the
    # dataset for the others and with apply=sampling.
    normalize: Literal["dataset", "batch"] | None = None
    # Weight of a frame without a label, as a multiple of the mean labeled weight.
    unlabelled_weight: float | None = None
    source: Literal["auto", "columns", "sidecar"] = "auto"  # auto: the sidecar if there is one
    sidecar: Path | None = None  # the file; in the dataset's folder if None

    def __post_init__(self) -> None:
        """Refuse options that break a rule."""
        if self.apply == "sampling" and self.normalize == "batch":
            raise UserError(
                "`weighting.normalize=batch` scales the losses of a batch, which "
                "`weighting.apply=sampling` leaves alone; leave one of them out"
            )
        require_range("unlabelled_weight", self.unlabelled_weight, low=0)
        if self.sidecar is not None and self.source == "columns":
            raise UserError(
                f"`weighting.sidecar={self.sidecar}` is not read with `weighting.source=columns`; "
                "leave one of them out"
            )

    @property
    def normalization(self) -> Literal["dataset", "batch"]:
        """The scope in which weights average 1, once it is decided."""
        if self.apply == "sampling":
            return "dataset"
        return self.normalize or self.scheme.normalize

    def settle(self, *, streaming: bool) -> "WeightingConfig":
        """Decide how weights apply, where nobody has said so.

        Args:
            streaming: the dataset comes in its own order, so its frames cannot be chosen.

        Raises:
            UserError: sampling is asked for, and the dataset is streamed.
        """
        if streaming and self.apply == "sampling":
            raise UserError(
                "`weighting.apply=sampling` chooses which frames are drawn, which a dataset that "
                "is streamed does not allow; leave out `dataset.streaming`, or use "
                "`weighting.apply=loss`"
            )
        if self.apply is not None:
            return self
        equal = isinstance(self.scheme, Uniform) and self.stationary != "drop"
        per_batch = "batch" in (self.normalize, self.scheme.normalize)
        return replace(self, apply="loss" if streaming or equal or per_batch else "sampling")

    def settle_by(self, labels: FrameLabels) -> "WeightingConfig":
        """Decide by the labels what nobody has decided: `Scheme.settle`, and `stationary`."""
        scheme = self.scheme.settle(labels)
        stationary = self.stationary
        if stationary == "auto":
            stationary = "keep" if labels.idle is None else scheme.stationary
        return replace(self, scheme=scheme, stationary=stationary)


_COMMON = {f.name: f for f in fields(WeightingConfig) if f.name != "scheme"}
_OWN = {name: {f.name: f for f in fields(scheme)} for name, scheme in SCHEMES.items()}
# Options are given flat: the scheme by its name, and beside it the options of every scheme.
WeightingOptions = make_dataclass(
    "WeightingOptions",
    [
        ("scheme", Literal[tuple(SCHEMES)]),  # pyright: ignore[reportInvalidTypeForm]
        *{
            name: (name, item.type)
            for options in (_COMMON, *_OWN.values())
            for name, item in options.items()
        }.values(),
    ],
)
# Options that an earlier version saved in checkpoints, with the only value that is left.
_REMOVED = {"tail": "shrink", "centre": "increment"}


def check_weighting(
    options: Mapping[str, Any], *, where: str = "weighting.", text: bool = False
) -> dict[str, Any]:
    """Check names and types of flat options, whose ranges `from_params` checks; see `check_options`.

    Raises:
        UserError: an option does not exist, with a suggestion, or its value has another type.
    """
    kept = {
        str(name): value for name, value in options.items() if (name, value) not in _REMOVED.items()
    }
    return check_options(WeightingOptions, kept, where=where, text=text)


def as_params(config: WeightingConfig) -> dict[str, Any]:
    """All options as plain JSON values, so that a checkpoint says how it was weighted."""
    params = as_json(config)
    return params | {"scheme": config.scheme.name} | params["scheme"]


def from_params(params: Mapping[str, Any]) -> WeightingConfig:
    """Build a configuration from plain values, those of `as_params` among them.

    A value is text where LeRobot's parser has not made a number of it, as of ``1e-6``.

    Raises:
        UserError: an option does not exist, with a suggestion; or its value breaks a rule.
    """
    text = {name: value for name, value in params.items() if isinstance(value, str)}
    typed = {name: value for name, value in params.items() if name not in text}
    options = check_weighting(text, text=True) | check_weighting(typed)
    name = options.pop("scheme", Awr.name)
    for option, value in options.items():
        owners = [scheme for scheme, own in _OWN.items() if option in own]
        if not owners or name in owners:
            continue
        # A checkpoint of an earlier version holds the defaults of all schemes.
        item = _OWN[owners[0]][option]
        default = None if item.default is MISSING else item.default
        if value != default:
            raise UserError(
                f"`weighting.{option}` is an option of {' and '.join(owners)}, not of "
                f"{name}; leave it at {show(default)}; got {show(value)}"
            )
    own = {option: value for option, value in options.items() if option in _OWN[name]}
    common = {option: value for option, value in options.items() if option in _COMMON}
    return WeightingConfig(scheme=SCHEMES[name](**own), **common)


def complete_saved(params: Mapping[str, Any]) -> dict[str, Any]:
    """Name what a checkpoint leaves open that is older than some options: how it was trained."""
    is_awr = params.get("scheme", Awr.name) == Awr.name
    before = {"apply": "loss", "stationary": "keep"} | ({"baseline": "mean"} if is_awr else {})
    return before | dict(params)


def show(value: Any) -> str:
    """Write an option's value for a message."""
    return "unset" if value is None else str(value)
