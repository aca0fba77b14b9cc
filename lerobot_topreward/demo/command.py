"""The demo command: label the bundled episodes and say how well that went."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.demo.config import DemoConfig
from lerobot_topreward.demo.evaluation import Evaluation, Truth, evaluate, read_truth
from lerobot_topreward.demo.figure import Panel, draw_figure, strip_indices
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.label.command import label
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig

SUCCESS_FILE = "success.csv"  # the truth, for evaluate --success-file
DATASET = Path(__file__).parent / "assets" / "dataset"
_SHOWN = ("good", "retry", "missed", "wrong_place", "undone", "idle")  # kinds in the picture


def demo(config: DemoConfig, *, console: Console) -> int:
    """Label, evaluate against the simulator's truth, draw; returns the exit code.

    Raises:
        UserError: the output folder is in the way or cannot be written.
    """
    torch.set_num_threads(1)  # tiny tensors gain nothing from threads, which stall when it is busy
    output = config.output.expanduser().absolute()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made: {error.strerror}") from None
    options = LabelConfig(
        root=DATASET,
        output=output / "dataset",
        vlm=VlmConfig(vlm=BUILTIN, device="cpu"),
        control="static",
        normalize="task",
        scale="prob",  # it was taught to say how far the task is
    )
    console.print("labelling the bundled episodes: SO-101 pick-and-place, simulated")
    result = label(options, console=console)
    truth = read_truth(DATASET)
    found = evaluate(result.scores, result.static_scores, truth)
    for line in summary(found):
        console.print(line)
    _write_success(output / SUCCESS_FILE, truth)
    picture = output / "curves.png"
    caption = f"VOC {found.voc:.3f} on successes, success ROC-AUC {found.auc:.3f}"
    source = open_source(repo_id=None, root=DATASET, revision=None)
    drawn = panels(source, result.scores, truth, camera=result.store.key.camera)
    draw_figure(drawn, picture, caption=caption)
    console.print(f"labelled in {result.seconds:.0f} s, {result.scored} episodes scored now")
    console.print(f"dataset  {result.output}")
    console.print(f"picture  {picture}")
    console.print(f"truth    {output / SUCCESS_FILE}")
    return 1 if result.failed else 0


def _write_success(path: Path, truth: Mapping[int, Truth]) -> None:
    lines = [f"{episode},{str(one.success).lower()}" for episode, one in sorted(truth.items())]
    path.write_text("\n".join(["episode_index,success", *lines, ""]))


def summary(found: Evaluation) -> list[str]:
    """The demo's numbers, one a line."""
    return [
        f"{found.successes} episodes that succeed, {found.failures} that fail",
        f"VOC on successes        {found.voc:6.3f}   rank of progress against time, 1 is best",
        f"success ROC-AUC         {found.auc:6.3f}   does the last reward tell success from failure",
        f"static videos: VOC      {found.static_voc:6.3f}   the first frame repeated",
        f"static videos: rise     {found.static_rise:6.1%}   as a share of the real curves' rise",
    ]


def panels(
    source: Source, scores: Sequence[PrefixScores], truth: Mapping[int, Truth], *, camera: str
) -> list[Panel]:
    """The first episode of each kind that the picture shows."""
    fps = float(source.meta.fps)
    chosen = {truth[one.segment.episode_index].kind: one for one in reversed(scores)}
    drawn = []
    for kind in _SHOWN:
        if kind not in chosen:
            continue
        one = chosen[kind]
        what = truth[one.segment.episode_index]
        try:
            clip = read_clip(
                source, camera=camera, segment=one.segment, sample_fps=fps, final_frame=True
            )
        except EpisodeError:
            continue
        drawn.append(
            Panel(
                title=f"{kind.replace('_', ' ')}: {one.segment.instruction}",
                success=what.success,
                times=one.frame_index / fps,
                values=np.exp(one.log_prob_true),
                truth_times=np.arange(len(what.progress)) / fps,
                truth=what.progress,
                strip=clip.frames[strip_indices(len(clip.frames))],
            )
        )
    return drawn
