"""Lets libraries look up once what they look up again and again; the answers stay the same.

Without it, a third of the suite's time goes there.
"""

import functools
import os
import sys
from typing import Any

from lerobot_topreward.priority import keep_normal_priority


def import_libraries() -> None:
    """Import what all but a few tests need, where all of them run.

    What is first imported by a module whose annotations are checked would be compiled from source.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        import lerobot.datasets.lerobot_dataset  # noqa: F401
        import transformers  # noqa: F401


def take_shortcuts() -> None:
    """Shorten what has been imported: importing it for this would take seconds."""
    keep_normal_priority()  # else tests that encode videos as root leave the others waiting
    if "datasets" in sys.modules:
        _shorten_features()
    if "draccus" in sys.modules:
        _remember_docstrings()
    if "transformers" in sys.modules:
        _shorten_configs()
    trainer_config: Any = sys.modules.get("lerobot_topreward.train.trainer_config")
    if trainer_config is not None:
        # It reads the metadata of all that is installed; what was imported stays so.
        _remember(trainer_config, "register_third_party_plugins")


def _shorten_features() -> None:
    # Opening a dataset of LeRobot's sets each of the hundred columns of meta/episodes some dozen
    # times, and `datasets` looks through all of them whenever one is set:
    # `keep_features_dicts_synced` in
    # https://github.com/huggingface/datasets/blob/4.8.5/src/datasets/features/features.py
    import datasets
    from datasets.features.features import require_decoding

    features: Any = datasets.Features

    def set_column(self: Any, name: str, feature: Any) -> None:
        dict.__setitem__(self, name, feature)
        self._column_requires_decoding[name] = require_decoding(feature)

    features.__setitem__ = set_column


def _shorten_configs() -> None:
    # Every configuration that is read is written out for a log that nobody reads: `from_dict` in
    # https://github.com/huggingface/transformers/blob/v5.5.4/src/transformers/configuration_utils.py
    from transformers.configuration_utils import PreTrainedConfig

    PreTrainedConfig.__repr__ = object.__repr__


def _remember_docstrings() -> None:
    # Every run of `train` reads the source of all of LeRobot's configurations, for the help of each
    # of their options.
    from draccus.wrappers import docstring

    _remember(docstring, "get_attribute_docstring")


def _remember(module: Any, name: str) -> None:
    function = getattr(module, name)
    if not hasattr(function, "cache_info"):
        setattr(module, name, functools.cache(function))
