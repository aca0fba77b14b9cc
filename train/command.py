"""The train command: what the weights will be, and then LeRobot's own trainer with them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lerobot_topreward.console import INTERRUPTED, print_next, spell_options, write_command
from lerobot_topreward.errors import TrainingError, UserError
from lerobot_topreward.train.arguments import Arguments, print_help, split_arguments
from lerobot_topreward.train.config import (
    WeightingConfig,
    as_params,
    complete_saved,
    from_params,
    show,
)
from lerobot_topreward.train.draws import measure_batches
from lerobot_topreward.train.frame_weights import scale_to_mean_one, weigh
from lerobot_topreward.train.records import FrameWeights
from lerobot_topreward.train.summary import WeightSummary, summarize, summary_table

if TYPE_CHECKING:
    from lerobot.configs.train import TrainPipelineConfig

    from lerobot_topreward.data.dataset import Source
    from lerobot_topreward.judging.judgment import Judgment

_INSTALL = "pip install 'lerobot-topreward[train]'"
# Options that go with any scheme.
_STAYS = ("source", "sidecar", "unlabelled_weight", "apply", "stationary")


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start: what is trained, on which frames, with which weights."""

    config: "TrainPipelineConfig"  # LeRobot's, not validated, which train() does itself
    weighting: WeightingConfig
    changed: Sequence[str]  # options of a resumed run that its checkpoint has otherwise
    source: "Source"
    weights: FrameWeights
    judgment: "Judgment | str | None"  # of the reward, or why there is none
    summary: WeightSummary
    title: str  # a line that says how frames are weighted
    reason: str | None  # why so, where the labels decided it


def train(arguments: Sequence[str], *, console: Console) -> int:
    """Train a policy on a labeled dataset, its frames weighted by their rewards.

    Of several processes only the main one prints.

    Returns:
        The exit code: 0 done, 1 stopped by a loss or weight that is not finite, 130 by Ctrl-C.

    Raises:
        UserError: anything that can be known to be wrong before training starts.
    """
    split = split_arguments(arguments)
    if split.wants_help:
        print_help(console)
        return 0
    is_main = os.environ.get("RANK", "0") == "0"  # as accelerate and torchrun set it
    try:
        plan = make_plan(split)
    except UserError:
        if is_main:
            raise
        return 2
    if is_main:
        for change in plan.changed:
            console.print(f"not as in the checkpoint: {change}", style="yellow")
        console.print(plan.title)
        if plan.reason is not None:
            console.print(spell_options(plan.reason))
        console.print(summary_table(plan.summary))
        _print_judgment(plan, console)
    if not split.dry_run:
        if not split.force_weights and (refusal := _refuse_weights(plan)) is not None:
            if is_main:
                raise refusal
            return 2
        return _run(plan, split, console if is_main else Console(quiet=True))
    if is_main:
        picture, table = _write_weights(plan)
        console.print(f"{'histogram':<27}{picture}")
        console.print(f"{'weights':<27}{table}")
        if plan.judgment is not None:  # there are labels, and frames weigh what these say
            dataset = plan.config.dataset
            place = "root" if dataset.root is not None else "repo_id"
            named = {place: getattr(dataset, place), "revision": dataset.revision}
            look = write_command("report", **named, weights=table)
            print_next(console, "see them beside the curve of every episode", look)
    return 0


def _print_judgment(plan: Plan, console: Console) -> None:
    from lerobot_topreward.judging.judgment import print_judgment  # --help need not wait for scipy

    if isinstance(plan.judgment, str):
        console.print(f"the reward was not judged: {plan.judgment}", style="yellow")
    elif plan.judgment is not None:
        print_judgment(plan.judgment, console)


def _refuse_weights(plan: Plan) -> UserError | None:
    """Say why these weights are not used, where the reward cannot judge the dataset."""
    judgment = plan.judgment
    if judgment is None or isinstance(judgment, str) or judgment.usable:
        return None
    return UserError(
        f"`weighting.scheme={plan.weighting.scheme.name}` weights by a reward that cannot judge "
        f"this dataset: {'; '.join(judgment.reasons)}. `force_weights` uses it all the same; "
        "`weighting.scheme=uniform` needs no reward"
    )


def make_plan(split: Arguments) -> Plan:
    """Find out everything that a run depends on, without starting it.

    Raises:
        UserError: it cannot start.
    """
    try:
        # Imported here: LeRobot and torch take seconds, which --help need not wait for.
        from lerobot_topreward.data.dataset import require_files
        from lerobot_topreward.policies.choice import has_per_sample_loss, per_sample_policy
        from lerobot_topreward.train.labels import judge_source, read_labels
        from lerobot_topreward.train.sample_weighter import chunk_frames
        from lerobot_topreward.train.trainer_config import (
            chosen_episodes,
            open_dataset,
            read_trainer_config,
            resolve_policy,
            training_episodes,
        )

        config = read_trainer_config(split.lerobot)
        weighting, changed = choose_weighting(config, split.weighting)
        weighting = weighting.settle(streaming=config.dataset.streaming)
        policy = resolve_policy(config, split.lerobot, dry_run=split.dry_run)
        needs = {"diffusers": policy.type == "diffusion", "wandb": config.wandb.enable}
        for package, needed in needs.items():
            if needed and find_spec(package) is None:
                raise ImportError(f"no package {package}")
        if not has_per_sample_loss(policy.type) and weighting.apply == "loss":
            per_sample_policy(policy.type)  # raises, and says which policies have one
    except ImportError as error:
        raise UserError(f"training needs more than is installed ({error}): {_INSTALL}") from error
    source = open_dataset(config.dataset)
    if source.revision is None:  # else LeRobot fetches what it needs
        require_files(
            source,
            chosen_episodes(source, config.dataset),
            advice="leave its episodes out with --dataset.episodes",
        )
    episodes = training_episodes(source, config.dataset)
    labels = read_labels(source, episodes=episodes, config=weighting)
    reason = weighting.scheme.explain(labels)
    weighting = weighting.settle_by(labels)
    chunk = chunk_frames(policy, weighting)
    weights = weigh(labels, weighting, chunk=chunk)
    worth = measure_batches(
        labels,
        weights,
        drop_last=getattr(policy, "drop_n_last_frames", 0),
        batch=config.batch_size,
    )
    scheme = weighting.scheme
    title = f"{scheme.name}: {scheme.describe(chunk=chunk, fps=labels.fps)}"
    if weighting.apply == "sampling":
        title += "; frames are drawn by their weight"
    summary = summarize(labels, weights, scheme=scheme, chunk=chunk, worth=worth)
    # A run that is resumed was judged when it began.
    judgment = None if config.resume else judge_source(source, weighting)
    return Plan(config, weighting, changed, source, weights, judgment, summary, title, reason)


def choose_weighting(
    config: "TrainPipelineConfig", options: Mapping[str, Any]
) -> tuple[WeightingConfig, list[str]]:
    """Take the weighting of a resumed run, or the defaults, and apply this command line's options.

    Returns:
        The weighting, and what of it is not as the checkpoint had it.

    Raises:
        UserError: an option is wrong, or LeRobot's own weighting is asked for.
    """
    given = config.sample_weighting
    if given is None:
        weighting = from_params(options)
        news = f"scheme {weighting.scheme.name}, without weights before"
        return weighting, [news] if config.resume else []
    if given.type != "topreward":
        raise UserError(
            f"--sample_weighting.type={given.type} is LeRobot's own weighting; give it to "
            f"lerobot-train, or use --weighting.scheme (also of the checkpoint that is resumed: "
            "--sample_weighting=null)"
        )
    saved = dict(given.extra_params)
    if config.resume:
        saved = complete_saved(saved)
    before = as_params(from_params(saved))
    if options.get("scheme", before["scheme"]) != before["scheme"]:
        saved = {name: saved[name] for name in _STAYS if name in saved}
    weighting = from_params({**saved, **options})
    after = as_params(weighting)
    changed = [
        f"{name} {show(after[name])}, {show(before.get(name))} before"
        for name in options
        if name in after and after[name] != before.get(name)
    ]
    return weighting, changed


def _write_weights(plan: Plan) -> tuple[Path, Path]:
    """Write the weights as a picture and as a table, and say where."""
    from lerobot_topreward.storage.weights import TrainingWeights, write_weights
    from lerobot_topreward.train.histogram import save_histogram  # matplotlib takes a second

    # Beside the run's folder, not in it: LeRobot refuses to start in a folder that exists.
    output = plan.config.output_dir
    if output is None or plan.config.resume:
        path = Path("weights.png")
    else:
        path = output.with_name(f"{output.name}_weights.png")
    table = path.with_suffix(".parquet")
    relative = scale_to_mean_one(plan.weights.weight)
    stored = TrainingWeights(plan.weights.index, relative, plan.title)
    try:
        save_histogram(path, plan.weights, title=plan.title)
        write_weights(table, stored, fingerprint=plan.source.fingerprints.dataset)
    except OSError as error:
        raise UserError(f"--dry-run: {path} cannot be written: {error.strerror}") from None
    return path, table


def _run(plan: Plan, split: Arguments, console: Console) -> int:
    from lerobot.scripts import lerobot_train
    from lerobot.utils.sample_weighting import SampleWeightingConfig

    from lerobot_topreward.train.lerobot_patch import SCHEME_TYPE, patch_trainer
    from lerobot_topreward.train.sample_weighter import make_weighter
    from lerobot_topreward.train.trainer_config import trainer_arguments

    config = plan.config
    config.sample_weighting = SampleWeightingConfig(
        type=SCHEME_TYPE, extra_params=as_params(plan.weighting)
    )

    def make_and_log(*args: Any, **options: Any) -> Any:
        weighter = make_weighter(*args, **options)
        if config.wandb.enable and not console.quiet:  # by now LeRobot's logger has started it
            from lerobot_topreward.train.wandb_log import log_weights

            log_weights(plan.summary, plan.weights, title=plan.title)
        return weighter

    try:
        with trainer_arguments(split.lerobot), patch_trainer(make_and_log):
            lerobot_train.train(config)  # pyright: ignore[reportCallIssue]
    except TrainingError as stopped:
        console.print(f"training stopped: {stopped}", style="red")
        return 1
    except KeyboardInterrupt:
        last = Path(config.output_dir or "") / "checkpoints/last/pretrained_model/train_config.json"
        if config.output_dir is None or not last.is_file():
            console.print("stopped; there is no checkpoint yet")
        else:
            resume = f"lerobot-topreward train --resume=true --config_path={last}"
            console.print(f"stopped; go on with: {resume}")
        return INTERRUPTED
    return 0
