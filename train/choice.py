"""Which policy class can be trained with weights."""

import inspect
import logging
from importlib import import_module

import lerobot.policies  # noqa: F401  # registers LeRobot's own policies
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy

from lerobot_topreward.errors import UserError

_OURS = {
    "act": ("lerobot_topreward.policies.act", "PerSampleACTPolicy"),
    "diffusion": ("lerobot_topreward.policies.diffusion", "PerSampleDiffusionPolicy"),
}
OWN_CLASSES = frozenset(_OURS)


def per_sample_policy(policy_type: str) -> type[PreTrainedPolicy]:
    """Choose the class of a policy type whose `forward` can return a loss per sample.

    Args:
        policy_type: as in `--policy.type`.

    Raises:
        UserError: if there is none; the message lists the types that have one.
    """
    found = _find(policy_type)
    if found is None:
        others = ", ".join(name for name in sorted(PreTrainedConfig.get_known_choices())
                           if _is_weightable(name))  # fmt: skip
        raise UserError(
            f"--policy.type '{policy_type}' has no per-sample loss, so its frames cannot be "
            f"weighted; these have: {others}"
        )
    return found


def _find(policy_type: str) -> type[PreTrainedPolicy] | None:
    if policy_type in _OURS:
        module, name = _OURS[policy_type]
        return getattr(import_module(module), name)
    policy = get_policy_class(policy_type)
    return policy if "reduction" in inspect.signature(policy.forward).parameters else None


def _is_weightable(policy_type: str) -> bool:
    try:
        return _find(policy_type) is not None
    except (ImportError, ValueError) as error:  # an extra of LeRobot's that is not installed
        logging.debug("policy type %s cannot be imported: %s", policy_type, error)
        return False
