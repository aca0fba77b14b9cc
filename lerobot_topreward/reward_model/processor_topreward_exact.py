"""What a batch goes through before the reward model and after it: next to nothing."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    policy_action_to_transition,
)
from lerobot.utils.constants import (
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)

from lerobot_topreward.reward_model.configuration_topreward_exact import TOPRewardExactConfig


def make_topreward_exact_pre_post_processors(
    config: TOPRewardExactConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """Make both; the model itself resizes images and writes the prompt, once for all prefixes."""
    preprocessor = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]](
        steps=[AddBatchDimensionProcessorStep()], name=POLICY_PREPROCESSOR_DEFAULT_NAME
    )
    postprocessor = PolicyProcessorPipeline[PolicyAction, PolicyAction](
        name=POLICY_POSTPROCESSOR_DEFAULT_NAME, to_transition=policy_action_to_transition
    )
    return preprocessor, postprocessor
