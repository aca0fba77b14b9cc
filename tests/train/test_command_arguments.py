"""The command line of `train`: our options, the presets, and what is left for LeRobot."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import run_python

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.arguments import flat_options, split_arguments
from lerobot_topreward.train.config import WeightingOptions, from_params
from lerobot_topreward.train.trainer_config import read_trainer_config

pytestmark = pytest.mark.usefixtures("kept_process")


def test_arguments_are_taken_apart(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        yaml.safe_dump(
            {
                "train": {
                    "policy": {"type": "act", "chunk_size": 8, "use_vae": False},
                    "dataset.episodes": [0, 1],
                    "seed": None,
                    "weighting": {"scheme": "rabc", "kappa": 0.1, "horizon": 2},
                }
            },
            sort_keys=False,
        )
    )
    split = split_arguments(
        [
            *("--config", str(preset), "--weighting.kappa", "1e-6", "--policy.chunk_size", "4"),
            *("--weighting.horizon=null", "--weighting.unlabelled-weight=1", "--steps=3"),
        ]
    )
    assert split.weighting == {
        "scheme": "rabc",
        "kappa": 1e-6,
        "horizon": None,
        "unlabelled_weight": 1.0,
    }
    assert split.lerobot == [
        *("--policy.type=act", "--policy.use_vae=false", "--dataset.episodes=[0, 1]"),
        *("--seed=null", "--policy.chunk_size", "4", "--steps=3"),
    ]
    assert not split.dry_run
    assert not split.wants_help
    split = split_arguments([f"--config={preset}", "--policy.path=x", "--dry-run", "-h"])
    assert "--policy.type=act" not in split.lerobot
    assert split.dry_run
    assert split.wants_help


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--weighting.beta"], r"--weighting.beta needs a value, as in --weighting.beta=\.\.\."),
        (["--weighting.beta", "--steps=3"], "--weighting.beta needs a value"),
        (["--weightings.beta=1"], "did you mean --weighting.beta"),
        (["--weighting=awr"], r"did you mean --weighting\.scheme"),
        (["--dry-run=perhaps"], "--dry-run is true or false; got perhaps"),
        (["--config"], "--config needs a YAML file or the name of a preset"),
    ],
)
def test_arguments_that_mean_nothing(given: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        split_arguments(given)


PRESETS = sorted(
    path.name.removesuffix(".yaml")
    for path in files("lerobot_topreward.configs").iterdir()
    if path.name.endswith(".yaml") and "train" in yaml.safe_load(path.read_text())
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_option_of_a_preset_is_lerobots(name: str) -> None:
    preset = yaml.safe_load((files("lerobot_topreward.configs") / f"{name}.yaml").read_text())
    options = preset["train"]
    split = split_arguments([f"--config={name}"])
    assert from_params(split.weighting) == from_params(options.pop("weighting"))
    config: Any = read_trainer_config([*split.lerobot, "--dataset.repo_id=a/b"])
    found = dict(flat_options(options))
    for option, value in found.items():
        held: Any = config
        for part in option.split("."):
            held = getattr(held, part)
        assert (list(held) if isinstance(held, tuple) else held) == value
    if name != "paper":
        assert found["policy.type"] == name.removesuffix("_so101")
        config.validate()


def test_help_is_quick_and_complete() -> None:
    command = ("-X", "importtime", "-m", "lerobot_topreward", "train", "--help")
    ran = run_python(*command, env={"COLUMNS": "80"})
    assert ran.returncode == 0, ran.stderr
    for option in WeightingOptions.__dataclass_fields__:
        assert f"--weighting.{option}" in ran.stdout
    for text in ("--dry_run", "--config", "act_so101", "lerobot-train", "seconds", "nats"):
        assert text in ran.stdout
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "lerobot.scripts.lerobot_train" not in imported


def test_a_folder_needs_no_name_beside_it() -> None:
    for root in (["--dataset.root=/data/cups"], ["--dataset.root", "/data/cups"]):
        assert split_arguments(root).lerobot == [*root, "--dataset.repo_id=local/cups"]
        named = [*root, "--dataset.repo_id", "me/cups"]
        assert split_arguments(named).lerobot == named
        resumed = [*root, "--config_path=train_config.json"]
        assert split_arguments(resumed).lerobot == resumed
    assert split_arguments(["--dataset.root"]).lerobot == ["--dataset.root"]
