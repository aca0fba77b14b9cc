"""What `lerobot-topreward train --help` prints."""

from dataclasses import dataclass, field

import tyro

from lerobot_topreward.train.config import WeightingConfig


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a LeRobot policy on a labelled dataset, its frames weighted by their rewards.

    Takes every option of lerobot-train, and these. LeRobot's own trainer runs: see lerobot-train
    --help, and --policy.type=act with it for a policy's options.

    lerobot-topreward train --dataset.repo_id=OWNER/NAME_topreward --policy.type=act
    --policy.push_to_hub=false --output_dir=outputs/act --weighting.scheme=awr

    To resume: --resume=true --config_path=.../pretrained_model/train_config.json, which knows its
    weighting.
    """

    weighting: WeightingConfig = field(default_factory=WeightingConfig)
    dry_run: bool = False  # print what the weights will do, write a histogram, and start nothing
    config: str | None = None  # YAML file, or a preset: act_so101, diffusion_so101, paper


def print_help() -> int:
    """Print our options with their units and defaults; returns the exit code."""
    try:
        tyro.cli(
            TrainOptions,
            prog="lerobot-topreward train",
            args=["--help"],
            use_underscores=True,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0
