import pytest
import yaml
from lerobot.datasets.utils import DatasetInfo

from lerobot_topreward.publish.card import END, START, CardFacts, card_section, merge_card
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.vlm.prompts import question

KEY = ScoreKey(
    vlm="Qwen/Qwen3-VL-8B-Instruct",
    vlm_revision="d" * 40,
    dtype="bfloat16",
    prompt="",
    camera="observation.images.front",
)
PROVENANCE = {
    "scoring": KEY.to_json(),
    "normalize": "episode",
    "scale": "log-prob",
    "horizon_frames": 15,
    "episodes_labelled": 3,
    "episodes_total": 4,
}
FACTS = CardFacts(PROVENANCE, fps=10, failed=1)
SOURCE = "alice/cubes@cccccccccccc"
INFO = DatasetInfo(codebase_version="v3.0", fps=10, features={})
SECTION = card_section(FACTS, source=SOURCE, repo_id="alice/cubes", branch="topreward")


def merge(existing: str | None, section: str = SECTION) -> str:
    return merge_card(existing, section, info=INFO, repo_id="alice/cubes")


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_section_states_how_the_labels_were_made():
    for stated in (
        SOURCE,
        "d" * 40,
        "observation.images.front",
        KEY.schedule,
        question("{instruction}"),
        "3 of 4 (1 failed)",
        "next 15 frames (1.5 s)",
        'revision="topreward"',
        "2602.19313",
        "an episode that failed reaches 1 too",
        "static control",
        "VOC 0.95 on real episodes, 0.99 on their first frame repeated",
    ):
        assert stated in SECTION


def test_new_card_is_lerobots_own_and_claims_no_license():
    card = merge(None)
    assert front_matter(card)["tags"] == ["LeRobot", "topreward"]
    assert "license" not in front_matter(card)
    assert "This dataset was created using [LeRobot]" in card
    assert SECTION in card


def test_existing_card_keeps_its_text_and_order():
    existing = (
        "---\n# mine\nlanguage: no\ntags:\n  - cubes\nlicense: mit\n---\n\n# Cubes\n\nMy cubes.\n"
    )
    assert merge(existing) == (
        "---\n# mine\nlanguage: no\ntags:\n  - cubes\n  - LeRobot\n  - topreward\nlicense: mit\n"
        "configs:\n- config_name: default\n  data_files: data/*/*.parquet\n---\n\n# Cubes\n\n"
        f"My cubes.\n\n{SECTION}\n"
    )


@pytest.mark.parametrize(
    ("front", "tags"),
    [
        ("tags: [a, b]\n", ["a", "b", "LeRobot", "topreward"]),
        ("tags: [lerobot]\n", ["lerobot", "topreward"]),
        ("tags:\n- LeRobot\n- topreward\n", ["LeRobot", "topreward"]),
        ("license: mit\n", ["LeRobot", "topreward"]),
        ("tags: []\n", ["LeRobot", "topreward"]),
    ],
)
def test_tags_are_added_in_the_style_of_the_card(front: str, tags: list[str]):
    merged = front_matter(merge(f"---\n{front}---\n# Cubes\n"))
    assert merged["tags"] == tags
    assert merged["configs"][0]["data_files"] == "data/*/*.parquet"


def test_own_configs_stay():
    front = "configs:\n- config_name: mine\n  data_files: x.parquet\n"
    assert front_matter(merge(f"---\n{front}---\n"))["configs"][0]["config_name"] == "mine"


def test_card_without_front_matter_gets_one():
    card = merge("# Cubes\n\n{braces} and \\1\n")
    assert front_matter(card)["tags"] == ["LeRobot", "topreward"]
    assert "# Cubes\n\n{braces} and \\1\n" in card


def test_broken_front_matter_is_left_alone():
    assert merge("---\ntags: [a\n---\n# Cubes\n").startswith("---\ntags: [a\n---\n# Cubes\n")


@pytest.mark.parametrize("existing", [None, "# Cubes\n", "---\ntags: [a]\n---\n\n# Cubes\n"])
def test_merging_again_changes_nothing(existing: str | None):
    once = merge(existing)
    assert merge(once) == once


def test_section_is_replaced_where_it_stands():
    card = merge(f"# Cubes\n\n{START}\nold \\g<0>\n{END}\n\nAfter.\n")
    assert card.endswith(f"# Cubes\n\n{SECTION}\n\nAfter.\n")
    assert "\nold " not in card


def test_lone_marker_swallows_nothing():
    card = merge(f"{START}\nMine.\n")
    assert "Mine." in merge(card)
    assert merge(card).count(START) == 1
