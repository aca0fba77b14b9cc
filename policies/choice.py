"""Which policy class can be trained with weights."""

import inspect
import logging
from importlib import import_module

import lerobot.policies  # noqa: F401  # registers LeRobot's own policies
from lerobot.configs import PreTrainedConfig
from lerobot.policies import factory
from lerobot.policies.pretrained import PreTrainedPolicy

from lerobot_topreward.errors import UserError

OWN_CLASSES = {
    "act": ("lerobot_topreward.policies.act", "PerSampleACTPolicy"),
    "diffusion": ("lerobot_topreward.policies.diffusion", "PerSampleDiffusionPolicy"),
}
_stock_class = factory.get_policy_class  # not the one that the trainer patch puts there


def has_per_sample_loss(policy_type: str) -> bool:
    """Say whether the `forward` of a policy type can return a loss per sample."""
    return _find(policy_type) is not None


def per_sample_policy(policy_type: str) -> type[PreTrainedPolicy]:
    """Choose the class of a policy type whose `forward` can return a loss per sample.

    Raises:
        UserError: if there is none; the message lists the types that have one.
    """
    if (policy := _find(policy_type)) is not None:
        return policy
    others = []
    for name in sorted(PreTrainedConfig.get_known_choices()):
        try:
            others += [name] if _find(name) else []
        except (ImportError, ValueError) as error:  # an extra of LeRobot's that is not installed
            logging.debug("policy type %s cannot be imported: %s", name, error)
    raise UserError(
        f"--policy.type '{policy_type}' has no per-sample loss, so its frames cannot be "
        f"weighted; these have: {', '.join(others)}. For any policy, draw frames by their weight "
        "instead: `weighting.apply=sampling`"
    )


def _find(policy_type: str) -> type[PreTrainedPolicy] | None:
    if policy_type in OWN_CLASSES:
        module, name = OWN_CLASSES[policy_type]
        return getattr(import_module(module), name)
    policy = _stock_class(policy_type)
    return policy if "reduction" in inspect.signature(policy.forward).parameters else None
