"""What may be a judge, how it is written, and the command that labels with it."""

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lerobot_topreward.cli import main, parse
from lerobot_topreward.compare.command import describe_label
from lerobot_topreward.compare.config import CompareConfig, SampleScoring
from lerobot_topreward.console import spell_options
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.vlm.server.config import ServerConfig


@pytest.mark.parametrize(
    "judge", ["a/b", "a/b:4bit", "a/b@http://h:1", "robometer=a/b", "builtin:so101-demo"]
)
def test_the_command_that_is_printed_asks_the_same_judge_in_the_same_way(judge: str) -> None:
    scoring = SampleScoring(
        camera="front", instruction="it's done", sample_fps=1.5, final_frame=False, max_pixels=9000
    )
    others = {"repo_id": "a/data", "output": Path("/tmp/some where"), "dtype": "float32"}
    if "@" in judge:
        others |= {"server_video": "images", "concurrency": 3}
    config = CompareConfig(judges=(judge,), scoring=scoring, device="cpu", **others)  # pyright: ignore[reportArgumentType]
    (asked,) = config.read_judges()
    words = shlex.split(spell_options(describe_label(config, asked)))
    assert words[:2] == ["lerobot-topreward", "label"]
    label = parse(LabelConfig, "label", words[2:])
    assert (label.repo_id, label.output) == (config.repo_id, config.output)
    if asked.reward_model is not None:
        scoring = replace(scoring, max_pixels=None)
        assert label.reward_model == asked.reward_model
    assert all(
        getattr(label.scoring, item.name) == getattr(scoring, item.name)
        for item in fields(ScoringConfig)
    )
    assert label.server == (asked.server or ServerConfig())
    assert asked.reward_model is not None or label.vlm == asked.vlm


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--judges must name whom to compare"),
        (["--judges", "/nowhere/at/all"], "is neither a folder here nor a Hub id"),
        (["--judges", "just-a-name"], "is neither a folder here nor a Hub id"),
        (["--judges", "builtin:another"], "the built-in one is builtin:so101-demo"),
        (["--judges", "a/b", "a/b"], "names a/b twice"),
        (["--judges", "a/b@127.0.0.1:8000"], "is followed by a server's URL"),
        (["--judges", "@http://127.0.0.1:8000"], "is followed by a server's URL"),
        (["--judges", "a/b@http://me:secret@host"], "must not carry a name or password"),
        (["--judges", "a/b@http://host?key=secret"], "without ?, # or spaces"),
        (["--judges", "a/b", "--server-video", "exact"], "no judge is at one"),
        (["--judges", "a/b", "--concurrency", "3"], "no judge is at one"),
        (["--judges", "a/b@http://h", "--server-key-env", "NO_SUCH_KEY"], "is not set"),
        (["--judges", "a/b@http://h", "--engine", "per-prefix"], "leave out one of them"),
        (["--judges", "a/b", "--sample", "0"], "at least 1 episode"),
        (["--judges", *(f"a/b{i}" for i in range(27))], "the table has room for 26"),
        (["--judges", "a/b", "--vlm", "a/b"], "--vlm is no option"),
    ],
)
def test_what_cannot_be_a_judge_is_refused_before_anything_is_opened(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--root", str(tmp_path / "no dataset"), *options])
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "secret" not in said


def test_judges_are_read_as_they_are_written(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "odd@name=x:4bit").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ("odd@name=x:4bit", "a/b:4bit", "a/b@http://host:1/v1", "auto", "robometer=a/b")
    odd, bits, served, auto, rewarded = CompareConfig(judges=names, dtype="float16").read_judges()
    assert (odd.vlm.vlm, odd.vlm.quantize, odd.vlm.dtype) == ("odd@name=x:4bit", None, "float16")
    assert (bits.vlm.vlm, bits.vlm.quantize) == ("a/b", "4bit")
    assert served.server is not None
    assert served.server.urls == ["http://host:1"]
    assert served.vlm.vlm == "a/b"
    assert auto.vlm.vlm == "auto"
    assert rewarded.reward_model is not None
    assert rewarded.options == {"reward_model": "robometer", "reward_path": "a/b"}
    assert rewarded.vlm.dtype == "auto"
