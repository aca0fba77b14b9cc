"""The curate command: labels -> metrics -> verdicts -> a list of episodes, or a dataset."""

import json
from collections.abc import Sequence

from rich.console import Console

from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.output import prepare_output
from lerobot_topreward.curate.plan import Plan, make_plan
from lerobot_topreward.curate.publish import check_push_curated, push_curated
from lerobot_topreward.curate.record import curation_record
from lerobot_topreward.curate.table import print_plan
from lerobot_topreward.curate.write import require_videos, write_curated
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import open_draft
from lerobot_topreward.judging.rules import CustomRule


def curate(config: CurateConfig, *, console: Console) -> int:
    """Judge every episode, print that, and write what was asked for; returns the exit code.

    Raises:
        UserError: see `curate_dataset`.
    """
    curate_dataset(config, console=console)
    return 0


def curate_dataset(
    config: CurateConfig,
    *,
    custom: Sequence[CustomRule] = (),
    console: Console | None = None,
) -> Plan:
    """Judge every episode and write what was asked for, as `lerobot-topreward curate` does.

    Args:
        config: the command's options.
        custom: rules of your own: each is given the metrics of all labeled episodes and returns
            the reason for every episode that it drops, by index.
        console: where the verdicts are printed; nowhere by default.

    Raises:
        UserError: something that the user can fix; nothing was written.
    """
    console = console or Console(quiet=True)
    plan = make_plan(config, custom)

    # Refuse what cannot be done before anything is written.
    output = None if config.output is None else config.output.expanduser().absolute()
    earlier = None if output is None else prepare_output(output.resolve(), plan.dataset)
    print_plan(plan, console)
    _check_some_kept(plan)
    if output is not None and plan.dataset.source.revision is None:  # else they are yet to come
        require_videos(plan)
    if config.dry_run:
        console.print("nothing was written, as --dry-run asks")
        return plan
    if config.push.push_to_hub:
        check_push_curated(config, plan)

    if config.episodes_file is not None:
        path = config.episodes_file.expanduser().absolute()
        drafting = open_draft(path, option="--episodes-file", make_folder=True)
        with drafting as draft, draft.writing():
            draft.path.write_text(json.dumps(plan.kept) + "\n", encoding="utf-8")
        console.print(
            f'{len(plan.kept)} episodes are listed in {path}; --dataset.episodes="$(cat {path})"'
        )
    if output is not None:
        # Which version made the dataset that is there does not matter.
        wanted = {k: value for k, value in curation_record(plan).items() if k != "version"}
        if earlier is not None and all(earlier.get(k) == value for k, value in wanted.items()):
            console.print(f"{output} holds just that already; nothing changed")
        else:
            write_curated(plan, output.resolve())
            console.print(f"{len(plan.kept)} episodes are now a dataset in {output}")
        if config.push.push_to_hub:
            pushed = push_curated(config, plan, output)
            state = "unchanged" if pushed.unchanged else f"{pushed.uploaded} files"
            console.print(f"pushed to {pushed.url} ({state})")
    if output is None and config.episodes_file is None:
        console.print("nothing was written; --output or --episodes-file does that")
    return plan


def _check_some_kept(plan: Plan) -> None:
    if plan.kept:
        return
    total = len(plan.verdicts)
    if not any(plan.drops.values()):
        raise UserError(
            f"--decisions drops all {total} episodes; keep at least one of them. Nothing was written"
        )
    strictest = max(plan.drops, key=lambda name: len(plan.drops[name]))
    option = f"--{strictest.replace('_', '-')} {plan.rules.named[strictest]:g}"
    raise UserError(
        f"every episode would be dropped: {option} alone drops {len(plan.drops[strictest])} of "
        f"{total}. Choose a looser limit; nothing was written"
    )
