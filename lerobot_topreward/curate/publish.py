"""A curated dataset to the Hub, its card with what was left out."""

from dataclasses import replace
from pathlib import Path

from lerobot_topreward import __version__
from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.plan import Plan
from lerobot_topreward.curate.table import describe_rules
from lerobot_topreward.publish.card import CardFacts, Curation
from lerobot_topreward.publish.lineage import lineage_of
from lerobot_topreward.publish.push import CURATED_TITLE, Destination, PushResult, check_push, push
from lerobot_topreward.vlm.prompts import question

_BRANCH = "curated"  # of the dataset that was curated


def check_push_curated(config: CurateConfig, plan: Plan) -> None:
    """Find out what `push_curated` would be refused for, before anything is written.

    Raises:
        UserError: as `push_curated`.
    """
    dataset = plan.dataset
    source = dataset.source
    ours = replace(lineage_of(source), made_from=source.fingerprints.dataset)
    if plan.dropped or plan.spans:
        ours = replace(ours, fingerprint=None)
    if plan.spans:
        ours = replace(ours, recordings=None)
    check_push(_destination(config, plan), ours=ours)


def push_curated(config: CurateConfig, plan: Plan, folder: Path) -> PushResult:
    """Upload what `write_curated` has made.

    Raises:
        UserError: the Hub refuses or cannot be reached, or another dataset is in the way.
    """
    return push(folder, _destination(config, plan), facts=card_facts(plan))


def _destination(config: CurateConfig, plan: Plan) -> Destination:
    facts = card_facts(plan)
    repo_id = config.repo_id if config.hub_repo_id is None else config.hub_repo_id
    assert repo_id is not None  # CurateConfig sees to it
    to_source = repo_id == facts.source_repo_id and not config.create_pr
    return Destination(
        repo_id=repo_id,
        source_repo_id=facts.source_repo_id,
        source_revision=facts.source_revision,
        branch=config.branch or (_BRANCH if to_source else None),
        private=config.private,
        create_pr=config.create_pr,
        title=CURATED_TITLE,
        option="--repo-id" if config.hub_repo_id is None else "--hub-repo-id",
    )


def card_facts(plan: Plan) -> CardFacts:
    """What the card of the curated dataset says."""
    dataset, key = plan.dataset, plan.dataset.key
    source, provenance = dataset.source, dataset.provenance
    # A labelled copy in a local folder belongs to the dataset that it was made of.
    local = source.revision is None
    return CardFacts(
        source_repo_id=provenance.get("dataset", source.repo_id) if local else source.repo_id,
        source_revision=provenance.get("revision") if local else source.revision,
        vlm=key.vlm,
        vlm_revision=key.vlm_revision,
        prompt=question("{instruction}"),
        camera=key.camera,
        schedule=key.schedule,
        normalize=provenance.get("normalize", "episode"),
        scale=dataset.scale,
        debias=dataset.debias,
        horizon=dataset.horizon,
        fps=dataset.fps,
        version=__version__,
        labelled=len(set(plan.kept) - set(plan.unlabelled)),
        failed=0,
        total=len(plan.kept),
        curation=Curation(
            episodes=len(plan.verdicts),
            rules="; ".join(describe_rules(plan)),
            dropped=[(one.episode_index, "; ".join(one.reasons)) for one in plan.dropped],
            trimmed=len(plan.spans),
        ),
    )
