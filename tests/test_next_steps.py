"""What a command says before it starts, and the commands that it says come next."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from lerobot_topreward.cli import main
from lerobot_topreward.console import spell_options, write_command
from lerobot_topreward.demo.command import DATASET

# What a person adds to a command that is printed: the model and the size of this test.
MORE = {
    "label": "--vlm builtin:so101-demo --device cpu --episodes 0:6 --prefixes 6 --output labeled",
    "curate": "--output kept --force-rules",
    "train": "--dry_run --force_weights",
}


@pytest.mark.slow
def test_who_pastes_what_is_printed_gets_from_a_recording_to_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kept_process: None,
) -> None:
    shutil.copytree(DATASET, tmp_path / "my arm")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "decisions.json").write_text('{"0": "keep"}')
    waiting, done = [spell_options(write_command("check", root="my arm"))], {}
    while waiting:
        words = shlex.split(waiting.pop(0))
        assert words[0] == "lerobot-topreward"
        name = words[1]
        if name in done:
            continue
        more = [word for word in shlex.split(MORE.get(name, "")) if word not in words]
        if name == "curate" and "good" in words:  # by `check`, which knows no labels
            continue
        with pytest.raises(SystemExit) as stopped:
            main([*words[1:], *more])
        printed = capsys.readouterr()
        assert stopped.value.code == 0, (words, printed)
        done[name] = printed.out
        waiting += re.findall(r"^next: .*\n  (.*)$", printed.out, flags=re.MULTILINE)
    assert done.keys() == {"check", "label", "report", "curate", "train"}
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "kept/meta/info.json").is_file()
    began = done["label"].partition("scored")[0]
    assert "local/my arm: 6 of 40 episodes" in began
    assert "observation.images.front, the only one" in began
    assert "put the red cube on the green disc" in began
    assert "builtin:so101-demo in float32 on cpu" in began
