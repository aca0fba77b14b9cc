"""The train command: what the weights will be, and then LeRobot's own trainer with them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lerobot_topreward.errors import TrainingError, UserError
from lerobot_topreward.train.arguments import Arguments, split_arguments
from lerobot_topreward.train.config import WeightingConfig, as_params, from_params
from lerobot_topreward.train.frame_weights import weigh
from lerobot_topreward.train.histogram import save_histogram
from lerobot_topreward.train.records import FrameLabels, FrameWeights
from lerobot_topreward.train.summary import summarize
from lerobot_topreward.train.summary_table import summary_table

if TYPE_CHECKING:
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.configs.train import TrainPipelineConfig

_INSTALL = "pip install 'lerobot-topreward[train]'"
_INTERRUPTED = 130  # as shells report Ctrl-C
_STAYS = ("source", "sidecar", "unlabelled_weight")  # options that go with any scheme


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start: what is trained, on which frames, with which weights."""

    config: "TrainPipelineConfig"  # LeRobot's, not validated, which train() does itself
    policy: "PreTrainedConfig"
    weighting: WeightingConfig
    changed: Sequence[str]  # what a resumed run does otherwise than before
    labels: FrameLabels
    weights: FrameWeights
    horizon: int  # frames

    @property
    def title(self) -> str:
        """One line that says how frames are weighted."""
        config, seconds = self.weighting, self.horizon / self.labels.fps
        span = f"progress over {self.horizon} frames ({seconds:.2g} s)"
        if config.scheme == "uniform":
            span = "plain behavior cloning"
        elif config.scheme == "filter" and config.by == "success":
            span = "success of whole episodes"
        elif config.scheme == "top-awr" and config.span == "prefix":
            span = "progress from one scored prefix to the next"
        elif config.scheme == "top-awr" and not isinstance(config.span, str):
            span = f"progress over {config.span:g} s"
        return f"{config.scheme}: {span}"


def train(arguments: Sequence[str], *, console: Console) -> int:
    """Train a policy on a labelled dataset, its frames weighted by their rewards.

    Args:
        arguments: what follows ``train``.
        console: where to print; only the main process of several does.

    Returns:
        The exit code: 0 done, 1 stopped by a loss or weight that is not finite, 130 by Ctrl-C.

    Raises:
        UserError: anything that can be known to be wrong before training starts.
    """
    split = split_arguments(arguments)
    if split.wants_help:
        return _help()
    is_main = os.environ.get("RANK", "0") == "0"  # as accelerate and torchrun set it
    try:
        plan = make_plan(split)
    except UserError:
        if is_main:
            raise
        return 2
    if is_main:
        _print_plan(plan, console)
    if not split.dry_run:
        return _run(plan, split, console if is_main else Console(quiet=True))
    if is_main:
        path = _draw(plan)
        console.print(f"{'histogram':<27}{path}")
    return 0


def make_plan(split: Arguments) -> Plan:
    """Find out everything that a run depends on, without starting it.

    Raises:
        UserError: it cannot start.
    """
    try:
        # Imported here: LeRobot and torch take seconds, which --help need not wait for.
        from lerobot_topreward.data.dataset import require_files
        from lerobot_topreward.train.choice import per_sample_policy
        from lerobot_topreward.train.labels import read_labels
        from lerobot_topreward.train.sample_weighter import horizon_frames
        from lerobot_topreward.train.trainer_config import (
            open_dataset,
            read_trainer_config,
            resolve_policy,
            training_episodes,
        )

        config = read_trainer_config(split.lerobot)
        weighting, changed = choose_weighting(config, split.weighting)
        policy = resolve_policy(config, split.lerobot, dry_run=split.dry_run)
        _require_installed(config, policy)
        per_sample_policy(policy.type)
    except ImportError as error:
        raise UserError(f"training needs more than is installed ({error}): {_INSTALL}") from error
    horizon = horizon_frames(policy, weighting)
    source = open_dataset(config.dataset)
    if source.revision is None:  # else LeRobot fetches what it needs
        require_files(
            source,
            config.dataset.episodes,
            advice="leave its episodes out with --dataset.episodes",
        )
    labels = read_labels(
        source,
        episodes=training_episodes(source, config.dataset),
        config=weighting,
    )
    weights = weigh(labels, weighting, horizon=horizon)
    if weighting.horizon is not None:
        horizon = max(1, round(weighting.horizon * labels.fps))
    return Plan(config, policy, weighting, changed, labels, weights, horizon)


def choose_weighting(
    config: "TrainPipelineConfig", options: Mapping[str, Any]
) -> tuple[WeightingConfig, list[str]]:
    """Take the weighting of a resumed run, or the defaults, and apply the options given.

    Args:
        config: LeRobot's; a checkpoint's says how it was weighted.
        options: by name, of this command line.

    Returns:
        The weighting, and what of it is not as the checkpoint had it.

    Raises:
        UserError: an option is wrong, or LeRobot's own weighting is asked for.
    """
    given = config.sample_weighting
    if given is None:
        weighting = from_params(options)
        news = f"scheme {weighting.scheme}, without weights before"
        return weighting, [news] if config.resume else []
    if given.type != "topreward":
        raise UserError(
            f"--sample_weighting.type={given.type} is LeRobot's own weighting; give it to "
            f"lerobot-train, or use --weighting.scheme (also of the checkpoint that is resumed: "
            "--sample_weighting=null)"
        )
    saved = dict(given.extra_params)
    before = from_params(saved)
    if options.get("scheme", before.scheme) != before.scheme:
        saved = {name: saved[name] for name in _STAYS if name in saved}
    weighting = from_params({**saved, **options})
    changed = [
        f"{name} {_shown(weighting, name)}, {_shown(before, name)} before"
        for name in options
        if getattr(weighting, name) != getattr(before, name)
    ]
    return weighting, changed


def _shown(weighting: WeightingConfig, name: str) -> str:
    value = as_params(weighting)[name]
    return "unset" if value is None else str(value)


def _require_installed(config: "TrainPipelineConfig", policy: "PreTrainedConfig") -> None:
    needs = {
        "diffusers": policy.type == "diffusion",
        "wandb": config.wandb.enable,
    }
    for package, needed in needs.items():
        if needed and find_spec(package) is None:
            raise ImportError(f"no package {package}")


def _print_plan(plan: Plan, console: Console) -> None:
    for change in plan.changed:
        console.print(f"not as in the checkpoint: {change}", style="yellow")
    console.print(plan.title)
    console.print(summary_table(summarize(plan.labels, plan.weights, scheme=plan.weighting.scheme)))


def _draw(plan: Plan) -> Path:
    # Beside the run's folder, not in it: LeRobot refuses to start in a folder that exists.
    output = plan.config.output_dir
    if output is None or plan.config.resume:
        path = Path("weights.png")
    else:
        path = output.with_name(f"{output.name}_weights.png")
    try:
        save_histogram(path, plan.weights, title=plan.title)
    except OSError as error:
        raise UserError(f"--dry-run: {path} cannot be written: {error.strerror}") from None
    return path


def _run(plan: Plan, split: Arguments, console: Console) -> int:
    from lerobot.scripts import lerobot_train
    from lerobot.utils.sample_weighting import SampleWeightingConfig

    from lerobot_topreward.train.lerobot_patch import SCHEME_TYPE, installed
    from lerobot_topreward.train.sample_weighter import make_weighter
    from lerobot_topreward.train.trainer_config import trainer_arguments

    config = plan.config
    config.sample_weighting = SampleWeightingConfig(
        type=SCHEME_TYPE, extra_params=as_params(plan.weighting)
    )
    try:
        with trainer_arguments(split.lerobot), installed(make_weighter):
            lerobot_train.train(config)  # pyright: ignore[reportCallIssue]
    except TrainingError as stopped:
        console.print(f"training stopped: {stopped}", style="red")
        return 1
    except KeyboardInterrupt:
        console.print(f"stopped; {_how_to_resume(config.output_dir)}")
        return _INTERRUPTED
    return 0


def _how_to_resume(output: Path | None) -> str:
    last = Path(output or "") / "checkpoints" / "last" / "pretrained_model" / "train_config.json"
    if output is None or not last.is_file():
        return "there is no checkpoint yet"
    return f"go on with: lerobot-topreward train --resume=true --config_path={last}"


def _help() -> int:
    from lerobot_topreward.train.arguments import print_help

    return print_help()
