"""Reward-aligned behavior cloning for LeRobot, after TOPReward (arXiv 2602.19313).

The names in `__all__` are public: they stay as they are unless CHANGELOG.md says otherwise. Each is
imported when it is first used, since most of them need torch and LeRobot, which take seconds.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lerobot_topreward.check.command import check_dataset
    from lerobot_topreward.check.config import CheckConfig
    from lerobot_topreward.curate.command import curate_dataset
    from lerobot_topreward.curate.config import CurateConfig
    from lerobot_topreward.errors import EpisodeError, UserError
    from lerobot_topreward.evaluate.command import evaluate_dataset
    from lerobot_topreward.evaluate.config import EvaluateConfig
    from lerobot_topreward.label.command import label_dataset
    from lerobot_topreward.label.config import LabelConfig
    from lerobot_topreward.online.scorer import OnlineScorer
    from lerobot_topreward.rewards import label_rewards
    from lerobot_topreward.scoring.in_memory import score_episode, score_frames
    from lerobot_topreward.scoring.run import load_scorer
    from lerobot_topreward.scoring.scorer import Scorer
    from lerobot_topreward.storage.key import ScoringConfig
    from lerobot_topreward.storage.reader import open_labelled
    from lerobot_topreward.train.sample_weighter import weigh_dataset
    from lerobot_topreward.train.schemes import Awr
    from lerobot_topreward.vlm.identity import VlmConfig

__version__ = version("lerobot-topreward")
__all__ = [
    "Awr",
    "CheckConfig",
    "CurateConfig",
    "EpisodeError",
    "EvaluateConfig",
    "LabelConfig",
    "OnlineScorer",
    "Scorer",
    "ScoringConfig",
    "UserError",
    "VlmConfig",
    "check_dataset",
    "curate_dataset",
    "evaluate_dataset",
    "label_dataset",
    "label_rewards",
    "load_scorer",
    "open_labelled",
    "score_episode",
    "score_frames",
    "weigh_dataset",
]
# Where each of them is defined, as the imports above say it to type checkers.
_MODULES = {
    "check.command": ("check_dataset",),
    "check.config": ("CheckConfig",),
    "curate.command": ("curate_dataset",),
    "curate.config": ("CurateConfig",),
    "errors": ("EpisodeError", "UserError"),
    "evaluate.command": ("evaluate_dataset",),
    "evaluate.config": ("EvaluateConfig",),
    "label.command": ("label_dataset",),
    "label.config": ("LabelConfig",),
    "online.scorer": ("OnlineScorer",),
    "rewards": ("label_rewards",),
    "scoring.in_memory": ("score_episode", "score_frames"),
    "scoring.run": ("load_scorer",),
    "scoring.scorer": ("Scorer",),
    "storage.key": ("ScoringConfig",),
    "storage.reader": ("open_labelled",),
    "train.sample_weighter": ("weigh_dataset",),
    "train.schemes": ("Awr",),
    "vlm.identity": ("VlmConfig",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
