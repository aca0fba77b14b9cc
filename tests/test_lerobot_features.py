"""A LeRobot that is too old is refused by its name; what another lacks is said where it is needed."""

from pathlib import Path

import pytest
from programs import run_python

from lerobot_topreward.errors import UserError
from lerobot_topreward.lerobot_features import refuse_excluded_episodes, require_lerobot


def test_the_one_that_is_installed_will_do() -> None:
    require_lerobot()


def test_one_that_is_too_old_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "lerobot").mkdir()
    (tmp_path / "lerobot" / "__init__.py").write_text('__version__ = "0.6.0"\n')
    env = {"PYTHONPATH": str(tmp_path)}
    for options in (("check", "--root", tmp_path), ("train", "--dry-run")):
        ran = run_python("-m", "lerobot_topreward", *options, env=env)
        assert ran.returncode == 2
        printed = " ".join(ran.stderr.split())
        assert "LeRobot 0.6.0 is too old" in printed
        assert "pip install 'lerobot[dataset]>=0.6.1,<0.7'" in printed
        assert "Traceback" not in printed
    ran = run_python("-m", "lerobot_topreward", "train", "--help", env=env)
    assert ran.returncode == 0, ran.stderr


def test_what_is_missing_is_said_with_the_version_that_has_it() -> None:
    with pytest.raises(
        UserError, match=r"is of LeRobot 0\.6\.2 and later; \d+\.\d+\.\d+ is installed"
    ):
        raise refuse_excluded_episodes()
