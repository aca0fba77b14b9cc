"""The curate command: labels -> metrics -> verdicts -> a list of episodes, or a dataset."""

import json
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from lerobot_topreward.console import print_next, write_command
from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.plan import Plan, make_plan
from lerobot_topreward.curate.table import describe_rules, print_plan
from lerobot_topreward.curate.write import (
    curated_provenance,
    curation_record,
    prepare_output,
    require_videos,
    write_curated,
)
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import open_draft
from lerobot_topreward.judging.rules import CustomRule
from lerobot_topreward.lerobot_features import excludes_episodes
from lerobot_topreward.publish.card import CardFacts, Curation
from lerobot_topreward.publish.lineage import lineage_of
from lerobot_topreward.publish.push import CURATED_TITLE, Destination, check_push, push

_BRANCH = "curated"  # of the dataset that was curated
_LONGEST_FLAG = 2000  # characters


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
    earlier = None if output is None else prepare_output(output.resolve(), plan)
    print_plan(plan, console)
    if not config.dry_run:
        _check_judgment(plan, forced=config.force_rules)
    _check_some_kept(plan)
    if output is not None and plan.source.revision is None:  # else they are yet to come
        require_videos(plan)
    if config.dry_run:
        console.print("nothing was written, as `dry_run` asks")
        return plan
    destination = _choose_destination(config, plan)
    if destination is not None:
        source = plan.source
        ours = replace(lineage_of(source), made_from=source.fingerprints.dataset)
        # What is not made yet has no fingerprints, but whole episodes keep their recordings.
        if plan.dropped or plan.spans:
            ours = replace(ours, fingerprint=None)
        if plan.spans:
            ours = replace(ours, recordings=None)
        check_push(destination, ours=ours)

    if plan.dropped:
        _print_flags(plan, console)
    if config.episodes_file is not None:
        path = config.episodes_file.expanduser().absolute()
        drafting = open_draft(path, option="episodes_file", make_folder=True)
        with drafting as draft, draft.writing():
            draft.path.write_text(json.dumps(plan.kept) + "\n", encoding="utf-8")
        listed = f"{len(plan.kept)} episodes are listed in {path}"
        console.print(f'{listed}; `dataset.episodes="$(cat {path})"`')
    if output is not None:
        # Which version made the dataset that is there does not matter.
        wanted = {k: value for k, value in curation_record(plan).items() if k != "version"}
        if earlier is not None and all(earlier.get(k) == value for k, value in wanted.items()):
            console.print(f"{output} holds just that already; nothing changed")
        else:
            write_curated(plan, output.resolve())
            console.print(f"{len(plan.kept)} episodes are now a dataset in {output}")
        learn = write_command("train", root=output, config="act_so101")
        print_next(console, "train on them", learn)
        if destination is not None:
            curation = Curation(
                episodes=len(plan.verdicts),
                rules="; ".join(describe_rules(plan)),
                dropped=[(gone.episode_index, "; ".join(gone.reasons)) for gone in plan.dropped],
                trimmed=len(plan.spans),
            )
            facts = CardFacts(
                curated_provenance(plan), fps=float(plan.source.meta.fps), curation=curation
            )
            pushed = push(output, destination, facts=facts)
            state = "unchanged" if pushed.unchanged else f"{pushed.uploaded} files"
            console.print(f"pushed to {pushed.url} ({state})")
    if output is None and config.episodes_file is None:
        console.print("nothing was written; `output` or `episodes_file` does that")
    return plan


def _print_flags(plan: Plan, console: Console) -> None:
    """Say how to train on what is kept without rewriting the dataset."""
    dropped = [verdict.episode_index for verdict in plan.dropped]
    flags = []
    for name, episodes in (("episodes", plan.kept), ("exclude_episodes", dropped)):
        flag = f"`dataset.{name}={json.dumps(episodes, separators=(',', ':'))}`"
        # LeRobot is asked last, as importing it takes seconds.
        if len(flag) <= _LONGEST_FLAG and (name == "episodes" or excludes_episodes()):
            flags.append(flag)
    advice = " or ".join(flags) or "`episodes_file` lists the episodes, which are too many to name"
    # In one piece, to be copied.
    console.print(f"to train on them as they are: {advice}", soft_wrap=True)


def _check_judgment(plan: Plan, *, forced: bool) -> None:
    """Refuse to drop episodes by a reward that cannot judge them."""
    if plan.judgment is None or plan.judgment.usable or forced:
        return
    if plan.reward_rules:
        raise UserError(
            f"`{plan.reward_rules[0]}` drops episodes by a reward that cannot judge this dataset: "
            f"{'; '.join(plan.judgment.reasons)}. `force_rules` uses it all the same; rules of the "
            "recording, as `max_idle=0.25`, need no reward. Nothing was written"
        )


def _check_some_kept(plan: Plan) -> None:
    if plan.kept:
        return
    total = len(plan.verdicts)
    if not any(plan.drops.values()):
        raise UserError(
            f"`decisions` drops all {total} episodes; keep at least one of them. Nothing was "
            "written"
        )
    strictest = max(plan.drops, key=lambda name: len(plan.drops[name]))
    if strictest == "drop_broken":
        raise UserError(
            f"every episode would be dropped: {len(plan.drops[strictest])} of {total} are broken; "
            "lerobot-topreward check says how. `no_drop_broken` keeps them; nothing was written"
        )
    raise UserError(
        f"every episode would be dropped: `{strictest}={plan.rules.in_force[strictest]:g}` alone "
        f"drops {len(plan.drops[strictest])} of {total}. Choose a looser limit; nothing was written"
    )


def _choose_destination(config: CurateConfig, plan: Plan) -> Destination | None:
    """Where the new dataset goes on the Hub; None if it does not."""
    if not config.push.push_to_hub:
        return None
    if plan.labels is None:
        raise UserError(
            f"`push_to_hub` writes a card that says how labels were made, and {plan.source.repo_id} "
            "has none. Label it first, or upload the folder with hf upload"
        )
    source, provenance = plan.source, plan.labels.provenance
    # A labeled copy in a local folder belongs to the dataset that it was made of.
    local = source.revision is None
    source_repo_id = provenance.get("dataset", source.repo_id) if local else source.repo_id
    repo_id = config.repo_id if config.push.hub_repo_id is None else config.push.hub_repo_id
    assert repo_id is not None  # CurateConfig sees to it
    to_source = repo_id == source_repo_id and not config.push.create_pr
    return Destination(
        repo_id=repo_id,
        source_repo_id=source_repo_id,
        source_revision=provenance.get("revision") if local else source.revision,
        branch=config.push.branch or (_BRANCH if to_source else None),
        private=config.push.private,
        create_pr=config.push.create_pr,
        title=CURATED_TITLE,
        option="repo_id" if config.push.hub_repo_id is None else "hub_repo_id",
    )
