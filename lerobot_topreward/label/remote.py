"""The label command on Hugging Face Jobs, which reads the dataset from the Hub and pushes labels."""

from huggingface_hub import HfApi
from rich.console import Console

from lerobot_topreward.data.info import INFO_PATH
from lerobot_topreward.data.locate import HF_LEROBOT_HOME
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.publish.push import Destination, check_push
from lerobot_topreward.scoring.launch.job_plan import plan_job
from lerobot_topreward.scoring.launch.job_run import run_job


def label_on_jobs(config: LabelConfig, *, console: Console) -> int:
    """Have a machine of HF Jobs label a dataset; returns the exit code.

    What can be refused is refused before anything is sent. A dataset that was only recorded here is
    uploaded first, private, as LeRobot's own commands do.

    Raises:
        UserError: see `plan_job` and `run_job`; the labels would go nowhere; the dataset is neither
            on the Hub nor here; or the labels cannot be pushed.
    """
    job, repo_id = config.job, config.repo_id
    if not (config.push.push_to_hub or config.dry_run):
        raise UserError(
            f"`job.target={job.target}` labels on a machine that is gone afterwards, with all that "
            "it wrote: add `push_to_hub`, which puts the labels on the branch topreward of the "
            "dataset, or `hub_repo_id=OWNER/NAME` as well for a dataset of their own"
        )
    if config.reward_model.package is not None:
        raise UserError(
            f"`job.target={job.target}` runs on another machine, which has no package "
            f"{config.reward_model.package}; name a reward model of LeRobot's own"
        )
    key = config.server.read_key()
    plan = plan_job(
        "label",
        config,
        extras=_extras(config),
        secrets={} if key is None else {str(config.server.server_key_env): key},
    )
    assert repo_id is not None  # refused by plan_job
    on_hub = _find_dataset(plan.api, config, repo_id, console)
    if config.push.push_to_hub and (on_hub or config.push.hub_repo_id is not None):
        to = Destination(
            repo_id=config.push.hub_repo_id or repo_id,
            source_repo_id=repo_id,
            source_revision=None,
            branch=config.push.branch,
            private=config.push.private,
            create_pr=config.push.create_pr,
            option="repo_id" if config.push.hub_repo_id is None else "hub_repo_id",
        )
        check_push(to, ours=None, api=plan.api)
    if not on_hub and not job.dry_run:
        from lerobot.jobs.dataset import ensure_dataset_available

        with translate_errors(repo_id=repo_id):
            ensure_dataset_available(repo_id, api=plan.api, tags=plan.tags)
    return run_job(plan, console=console)


def _extras(config: LabelConfig) -> frozenset[str]:
    """Name the extras of our package that a run with these options needs."""
    needed = {
        "quant": config.vlm.quantize is not None or config.vlm.vlm == "auto",
        "robometer": config.reward_model.name == "robometer",
        "scale": config.spread.workers not in (None, 1),
    }
    return frozenset(extra for extra, is_needed in needed.items() if is_needed)


def _find_dataset(api: HfApi, config: LabelConfig, repo_id: str, console: Console) -> bool:
    """Whether a dataset is on the Hub; else it was recorded here.

    Raises:
        UserError: neither, or it has no such revision.
    """
    recorded = HF_LEROBOT_HOME / repo_id
    is_here = (recorded / INFO_PATH).is_file()
    with translate_errors(repo_id=repo_id, revision=config.revision):
        on_hub = api.repo_exists(repo_id, repo_type="dataset")
        if on_hub or not is_here:
            api.dataset_info(repo_id, revision=config.revision)
    if on_hub and is_here and config.revision is None:
        console.print(
            f"labels {repo_id} as it is on the Hub, not what lies in {recorded}", style="yellow"
        )
    elif not on_hub:
        if config.revision is not None:
            raise UserError(
                f"`revision={config.revision}` chooses among versions on the Hub, where {repo_id} "
                "is not yet; leave it out"
            )
        console.print(f"{repo_id} is only in {recorded}: it is uploaded first, private")
    return on_hub
