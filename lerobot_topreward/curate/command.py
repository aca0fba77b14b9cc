"""The curate command: labels -> metrics -> verdicts -> a list of episodes, or a dataset."""

import json

from rich.console import Console

from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.output import check_output
from lerobot_topreward.curate.plan import Plan, make_plan
from lerobot_topreward.curate.publish import check_push_curated, push_curated
from lerobot_topreward.curate.record import curation_record
from lerobot_topreward.curate.table import print_plan
from lerobot_topreward.curate.write import require_kept, write_curated
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import drafted

__all__ = ["CurateConfig", "curate"]


def curate(config: CurateConfig, *, console: Console) -> int:
    """Judge every episode, say so, and write what was asked for; returns the exit code.

    Raises:
        UserError: something that the user can mend; nothing was written.
    """
    plan = make_plan(config)
    output = None if config.output is None else config.output.expanduser().absolute()
    earlier = None if output is None else check_output(output.resolve(), plan.dataset)
    print_plan(plan, console)
    _require_some(plan)
    if output is not None and plan.dataset.source.revision is None:  # else they are yet to come
        require_kept(plan)
    if config.dry_run:
        console.print("nothing was written, as --dry-run asks")
        return 0
    if config.push_to_hub:
        check_push_curated(config, plan)
    if config.episodes_file is not None:
        path = config.episodes_file.expanduser().absolute()
        with (
            drafted(path, option="--episodes-file", make_folder=True) as draft,
            draft.writing() as place,
        ):
            place.write_text(json.dumps(plan.kept) + "\n", encoding="utf-8")
        console.print(
            f'{len(plan.kept)} episodes are listed in {path}; --dataset.episodes="$(cat {path})"'
        )
    if output is not None:
        if earlier is not None and _same(earlier, plan):
            console.print(f"{output} holds just that already; nothing changed")
        else:
            write_curated(plan, output.resolve())
            console.print(f"{len(plan.kept)} episodes are now a dataset in {output}")
        if config.push_to_hub:
            pushed = push_curated(config, plan, output)
            state = "unchanged" if pushed.unchanged else f"{pushed.uploaded} files"
            console.print(f"pushed to {pushed.url} ({state})")
    if output is None and config.episodes_file is None:
        console.print("nothing was written; --output or --episodes-file does that")
    return 0


def _require_some(plan: Plan) -> None:
    if plan.kept:
        return
    total = len(plan.verdicts)
    if not plan.drops or not any(plan.drops.values()):
        raise UserError(
            f"--decisions drops all {total} episodes; keep at least one of them. Nothing was written"
        )
    strictest = max(plan.drops, key=lambda name: len(plan.drops[name]))
    option = f"--{strictest.replace('_', '-')} {plan.rules.named[strictest]:g}"
    raise UserError(
        f"every episode would be dropped: {option} alone drops {len(plan.drops[strictest])} of "
        f"{total}. Choose a looser limit; nothing was written"
    )


def _same(record: dict, plan: Plan) -> bool:
    """Whether an earlier curation did just this; which version did it does not matter."""
    wanted = curation_record(plan)
    return all(record.get(name) == wanted[name] for name in wanted if name != "version")
