"""The trainer patch is put into LeRobot's trainer and taken out again, and knows that trainer."""

import pkgutil
import sys
from importlib import import_module
from typing import Any

import pytest
from lerobot.common import train_utils
from lerobot.policies import factory
from lerobot.scripts import lerobot_train
from lerobot.utils import sample_weighting
from patched_runs import TableWeighter, table

import lerobot_topreward.policies
import lerobot_topreward.train
from lerobot_topreward.lerobot_features import check_trainer
from lerobot_topreward.train.lerobot_patch import install, patch_trainer

REPLACED = (
    (sample_weighting, "make_sample_weighter"),
    (factory, "get_policy_class"),
    (lerobot_train, "make_train_eval_datasets"),
    (lerobot_train, "make_pre_post_processors"),
    (lerobot_train, "EpisodeAwareSampler"),
    (lerobot_train, "update_policy"),
)


def test_lerobot_is_as_before_afterwards() -> None:
    before = [getattr(module, name) for module, name in REPLACED]

    def fail() -> None:
        with patch_trainer(TableWeighter(table())):
            during = [getattr(module, name) for module, name in REPLACED]
            assert not any(a is b for a, b in zip(before, during, strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [getattr(module, name) for module, name in REPLACED] == before


def test_installing_twice() -> None:
    with patch_trainer(TableWeighter(table())):
        replaced = lerobot_train.update_policy
        install(TableWeighter(table()))
        assert lerobot_train.update_policy == replaced
        with (
            pytest.raises(RuntimeError, match="already weighted"),
            patch_trainer(TableWeighter(table())),
        ):
            pass


def test_this_lerobot_is_the_one_the_patch_is_written_for() -> None:
    check_trainer()


def _other_update_policy(train_metrics: Any, policy: Any, batch: Any) -> None: ...


def _other_make_weighter(config: Any, policy: Any, dataset: Any) -> None: ...


@pytest.mark.parametrize(
    ("module", "name", "replacement", "message"),
    [
        (sample_weighting, "make_sample_weighter", None, "it is gone"),
        (train_utils, "save_checkpoint", None, "it is gone"),
        (
            lerobot_train,
            "update_policy",
            _other_update_policy,
            "its parameters are train_metrics, policy, batch;",
        ),
        (
            sample_weighting,
            "make_sample_weighter",
            _other_make_weighter,
            "its parameters are config, policy, dataset;",
        ),
        (lerobot_train, "make_pre_post_processors", None, "it is gone"),
    ],
)
def test_a_lerobot_that_has_moved_is_refused(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, replacement: Any, message: str
) -> None:
    if replacement is None:
        monkeypatch.delattr(module, name)
    else:
        monkeypatch.setattr(module, name, replacement)
    before = factory.get_policy_class
    with pytest.raises(RuntimeError) as error, patch_trainer(TableWeighter(table())):
        pass
    assert f"has moved {module.__name__}.{name}: {message}" in str(error.value)
    assert "lerobot==0.6.1" in str(error.value)
    assert factory.get_policy_class is before


def test_only_lerobot_imports_the_plugin() -> None:
    plugin = "lerobot_topreward.policies.plugin"
    imported = "lerobot_topreward.plugin"
    for package in (lerobot_topreward.policies, lerobot_topreward.train):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if module.name != plugin:
                import_module(module.name)
    assert not {plugin, imported} & set(sys.modules)
