"""A watch of a recording, and label after it."""

import io
from pathlib import Path
from typing import Any

import pytest

from lerobot_topreward.cli import main
from lerobot_topreward.console import SafeConsole
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.watch.command import watch_dataset
from lerobot_topreward.watch.config import WatchConfig
from lerobot_topreward.watch.follow import Clock, Follower


class Watching:
    """A watch of a recording in `root`, whose scores go to `output`."""

    def __init__(self, folder: Path, vlm: Path) -> None:
        self.root, self.output, self.vlm = folder / "recorded", folder / "labels", vlm
        self.said, self.is_terminal = "", False

    def run(self, clock: Clock, **options: Any) -> Follower:
        out = io.StringIO()
        config = WatchConfig(
            root=self.root,
            output=self.output,
            **{
                "vlm": VlmConfig(vlm=str(self.vlm), device="cpu"),
                "min_success": -1.0,
                **options,
            },
        )
        console = SafeConsole(
            file=out, width=300, soft_wrap=True, highlight=False, force_terminal=self.is_terminal
        )
        found = watch_dataset(config, console=console, clock=clock)
        self.said = out.getvalue()
        assert found is not None
        return found

    def label(self, output: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
        capsys.readouterr()
        options = ["--root", str(self.root), "--vlm", str(self.vlm), "--output", str(output), *more]
        with pytest.raises(SystemExit) as stopped:
            main(["label", *options, "--skip-check"])
        assert stopped.value.code == 0
        return " ".join(capsys.readouterr().out.split())
