"""Makes stock `lerobot-train` weight its samples, by being imported.

LeRobot imports every module of the package that is named in
`--policy.discover_packages_path=lerobot_topreward.policies`, this one among them; nothing else may
import it, since it changes LeRobot's trainer for the rest of the process.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lerobot.datasets import LeRobotDataset
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.sample_weighting import SampleWeighter

from lerobot_topreward.train.lerobot_patch import install


def _make_weighter(
    params: Mapping[str, Any],
    *,
    policy: PreTrainedPolicy,
    device: torch.device,
    dataset: LeRobotDataset,
) -> SampleWeighter:
    from lerobot_topreward.train.sample_weighter import make_weighter  # only where it is asked for

    return make_weighter(params, policy=policy, device=device, dataset=dataset)


install(_make_weighter)
