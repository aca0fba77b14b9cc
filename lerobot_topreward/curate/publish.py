"""A curated dataset to the Hub, its card with what was left out."""

from dataclasses import replace
from pathlib import Path

from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.plan import Plan
from lerobot_topreward.curate.record import curated_provenance
from lerobot_topreward.curate.table import describe_rules
from lerobot_topreward.publish.card import CardFacts, Curation
from lerobot_topreward.publish.lineage import lineage_of
from lerobot_topreward.publish.push import CURATED_TITLE, Destination, PushResult, check_push, push

_BRANCH = "curated"  # of the dataset that was curated


def check_push_curated(config: CurateConfig, plan: Plan) -> None:
    """Find out what `push_curated` would be refused for, before anything is written.

    Raises:
        UserError: as `push_curated`.
    """
    dataset = plan.dataset
    source = dataset.source
    ours = replace(lineage_of(source), made_from=source.fingerprints.dataset)
    # What is not made yet has no fingerprints. Dropping whole episodes keeps the others' recordings.
    if plan.dropped or plan.spans:
        ours = replace(ours, fingerprint=None)
    if plan.spans:
        ours = replace(ours, recordings=None)
    check_push(_find_destination(config, plan), ours=ours)


def push_curated(config: CurateConfig, plan: Plan, folder: Path) -> PushResult:
    """Upload what `write_curated` has made.

    Raises:
        UserError: the Hub refuses or cannot be reached, or another dataset is in the way.
    """
    destination = _find_destination(config, plan)
    facts = CardFacts.of(
        plan.dataset.key,
        curated_provenance(plan),
        fps=plan.dataset.fps,
        source_repo_id=destination.source_repo_id,
        source_revision=destination.source_revision,
        curation=Curation(
            episodes=len(plan.verdicts),
            rules="; ".join(describe_rules(plan)),
            dropped=[
                (verdict.episode_index, "; ".join(verdict.reasons)) for verdict in plan.dropped
            ],
            trimmed=len(plan.spans),
        ),
    )
    return push(folder, destination, facts=facts)


def _find_destination(config: CurateConfig, plan: Plan) -> Destination:
    source, provenance = plan.dataset.source, plan.dataset.provenance
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
