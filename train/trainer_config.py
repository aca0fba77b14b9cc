"""LeRobot's configuration of a training run, read by LeRobot's own parser from our arguments."""

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any, no_type_check

import draccus
import lerobot.policies  # noqa: F401  # registers their types with the parser
from huggingface_hub.errors import HfHubHTTPError
from lerobot.configs import parser
from lerobot.configs.default import DatasetConfig
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.import_utils import register_third_party_plugins

from lerobot_topreward.data.dataset import Source, source_of
from lerobot_topreward.data.validate import load_metadata
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.lerobot_features import excludes_episodes, refuse_excluded_episodes

PROGRAM = "lerobot-train"
_MISTAKES = (ValueError, TypeError, OSError, NotImplementedError)
_MISTAKES += (parser.ArgumentError, parser.PluginLoadError)


@contextmanager
def trainer_arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Put a command line into ``sys.argv``, which LeRobot's parser reads several times."""
    previous = sys.argv
    sys.argv = [PROGRAM, *arguments]
    try:
        yield
    finally:
        sys.argv = previous


@parser.wrap()
@no_type_check  # which reads the annotation of the bare function
def _parse(config: TrainPipelineConfig) -> TrainPipelineConfig:
    return config


def read_trainer_config(arguments: Sequence[str]) -> TrainPipelineConfig:
    """Parse the arguments as ``lerobot-train`` does, plugins and paths included; not yet validated.

    Raises:
        UserError: LeRobot cannot make a configuration of them.
    """
    plugins = parser.parse_plugin_args(parser.PLUGIN_DISCOVERY_SUFFIX, arguments).values()
    if "lerobot_topreward.policies" in plugins:
        raise UserError(
            "--policy.discover_packages_path=lerobot_topreward.policies is for lerobot-train; "
            "leave it out, lerobot-topreward train does the same"
        )
    given = {argument.partition("=")[0] for argument in arguments}
    if "--dataset.exclude_episodes" in given and not excludes_episodes():
        raise refuse_excluded_episodes()
    register_third_party_plugins()
    # Else the first warning would tie the log to what is caught below.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    printed = StringIO()
    try:
        with trainer_arguments(arguments), redirect_stderr(printed), _translate_errors():
            config = _parse()  # pyright: ignore[reportCallIssue]  # it reads sys.argv
    except SystemExit as stopped:
        # What is wrong is in the last line that LeRobot printed, or in what was raised before.
        text = " ".join(printed.getvalue().rpartition("error: ")[2].split())
        reason = _innermost(stopped)
        detail = "" if reason is stopped or str(reason) in text else f" {reason}"
        raise UserError(f"{PROGRAM}: {text}{detail}") from None
    sys.stderr.write(printed.getvalue())
    return config


def _innermost(error: BaseException) -> BaseException:
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Treat what LeRobot raises about options as a user's mistake, which it nearly always is."""
    try:
        yield
    except HfHubHTTPError as error:
        raise UserError(f"{PROGRAM}: the Hub refuses: {error}") from error
    except FileExistsError as error:
        raise UserError(
            f"{error} To go on with that run: --resume=true --config_path=...; see "
            "lerobot-topreward train --help"
        ) from error
    except draccus.ParsingError as error:
        raise UserError(f"{PROGRAM}: {_innermost(error)}") from error
    except _MISTAKES as error:
        raise UserError(f"{PROGRAM}: {error}") from error


def resolve_policy(
    config: TrainPipelineConfig, arguments: Sequence[str], *, dry_run: bool
) -> PreTrainedConfig:
    """Validate a run as LeRobot will and return the configuration of its policy.

    A dry run writes nothing, so its output folder may exist.

    Raises:
        UserError: LeRobot would refuse to start, or it is not a policy that is trained here.
    """
    if config.job.is_remote:
        raise UserError(
            f"--job.target={config.job.target} runs LeRobot's own trainer on another machine, which "
            "does not know these weights; run lerobot-topreward train there instead"
        )
    if config.is_reward_model_training:
        raise UserError(
            "--reward_model: reward models are trained by lerobot-train; frames are weighted for "
            "policies, see --policy.type and --policy.path"
        )
    if config.dataset.streaming and config.num_workers < 1:
        raise UserError("--dataset.streaming=true needs --num_workers=1 or more; got 0")
    if config.dataset.streaming and getattr(config.dataset, "exclude_episodes", None):
        raise UserError(
            "--dataset.exclude_episodes has no effect on LeRobot's streaming, which would show those "
            "frames; leave --dataset.streaming out"
        )
    validated = deepcopy(config)
    if dry_run:
        validated.output_dir = None
    with trainer_arguments(arguments), _translate_errors():
        resumed = parser.parse_arg("config_path") if config.resume else None
        if resumed is None or Path(resumed).exists():
            validated.validate()
        # Else LeRobot downloads the run when it starts; its configuration is already here.
    if validated.policy is None:
        raise UserError(
            "which policy? Give --policy.type, as in --policy.type=act, or --policy.path"
        )
    return validated.policy


def open_dataset(config: DatasetConfig) -> Source:
    """Open the dataset of a run as LeRobot will, fetching no more than its ``meta/``.

    Raises:
        UserError: it is not there, or cannot be weighted.
    """
    if config.repo_type != "dataset":
        raise UserError(
            f"--dataset.repo_type={config.repo_type} cannot be weighted: the labels are read from "
            "a dataset on the Hub or in a folder"
        )
    if config.root is not None:
        root = Path(config.root).expanduser().absolute()
        option = f"--dataset.root {root}"
        return source_of(load_metadata(root, repo_id=config.repo_id, option=option))
    with translate_errors(
        repo_id=config.repo_id, revision=config.revision, option="dataset.repo_id"
    ):
        return source_of(LeRobotDatasetMetadata(config.repo_id, revision=config.revision))


def chosen_episodes(source: Source, config: DatasetConfig) -> list[int] | None:
    """List the episodes that a run is given, those held out among them; None for all.

    Raises:
        UserError: ``--dataset.exclude_episodes`` leaves none.
    """
    if not excludes_episodes():
        return config.episodes
    from lerobot.datasets import utils  # has the function where episodes can be excluded

    resolve: Any = getattr(utils, "resolve_episode_indices")  # noqa: B009
    excluded = getattr(config, "exclude_episodes", None)
    episodes = resolve(config.episodes, source.meta.total_episodes, excluded)
    if episodes == []:
        if not excluded:
            return config.episodes  # they do not exist, which is said where they are read
        raise UserError(
            f"`dataset.exclude_episodes` leaves no episode of {config.repo_id}, which has "
            f"{source.meta.total_episodes}; exclude fewer"
        )
    return episodes


def training_episodes(source: Source, config: DatasetConfig) -> list[int] | None:
    """List the episodes that are trained on; None for all.

    With ``--dataset.eval_split`` LeRobot holds out the last ones of every task, as in
    ``make_train_eval_datasets`` of ``lerobot/datasets/factory.py``.

    Raises:
        UserError: ``--dataset.exclude_episodes`` leaves none.
    """
    chosen = chosen_episodes(source, config)
    if config.eval_split == 0:
        return chosen
    tasks = source.meta.episodes["tasks"].to_pylist()
    by_task: dict[str, list[int]] = {}
    for episode in chosen or range(source.meta.total_episodes):
        by_task.setdefault(tasks[episode][0] if tasks[episode] else "", []).append(episode)
    kept = [
        episodes[: len(episodes) - math.ceil(len(episodes) * config.eval_split)]
        for episodes in by_task.values()
    ]
    return [episode for episodes in kept for episode in episodes]
