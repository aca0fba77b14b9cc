"""The demo command: label the bundled episodes and say how well that went."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from lerobot_topreward.console import print_next, write_command
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.demo.config import DemoConfig
from lerobot_topreward.demo.evaluation import evaluate
from lerobot_topreward.demo.figure import Panel, draw_figure
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.label.command import label_dataset
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.simulation.truth import Truth, read_truth
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
        raise UserError(f"`output={output}` cannot be made: {error.strerror}") from None
    options = LabelConfig(
        root=DATASET,
        output=output / "dataset",
        vlm=VlmConfig(vlm=BUILTIN, device="cpu"),
        control="static",
        normalize="task",
        scale="prob",  # it was trained to say how far the task is
    )
    console.print("labeling the bundled episodes: SO-101 pick-and-place, simulated")
    result = label_dataset(options, console=console)
    truth = read_truth(DATASET)
    found = evaluate(result.scores, result.static_scores, truth)
    console.print(
        f"{found.successes} episodes that succeed, {found.failures} that fail\n"
        f"VOC on successes        {found.voc:6.3f}   rank of progress against time, 1 is best\n"
        f"success ROC-AUC         {found.auc:6.3f}   does the last reward tell success from failure\n"
        f"static videos: VOC      {found.static_voc:6.3f}   the first frame repeated\n"
        f"static videos: rise     {found.static_rise:6.1%}   as a share of the real curves' rise"
    )
    if result.judgment is not None:
        console.print(f"this reward             {result.judgment.level}")
    lines = [
        f"{episode},{str(happened.success).lower()}" for episode, happened in sorted(truth.items())
    ]
    (output / SUCCESS_FILE).write_text("\n".join(["episode_index,success", *lines, ""]))
    picture = output / "curves.png"
    caption = f"VOC {found.voc:.3f} on successes, success ROC-AUC {found.auc:.3f}"
    drawn = _make_panels(result.scores, truth, camera=result.store.key.camera)
    draw_figure(drawn, picture, caption=caption)
    console.print(f"labeled in {result.seconds:.0f} s, {result.scored} episodes scored now")
    console.print(f"dataset  {result.output}")
    console.print(f"picture  {picture}")
    console.print(f"truth    {output / SUCCESS_FILE}")
    look = write_command("report", root=result.output, success_file=output / SUCCESS_FILE)
    print_next(console, "look at every episode", look)
    print_next(console, "choose which ones to keep", write_command("curate", root=result.output))
    return 1 if result.failed else 0


def _make_panels(
    scores: Sequence[PrefixScores], truth: Mapping[int, Truth], *, camera: str
) -> list[Panel]:
    """The first episode of each kind that the picture shows."""
    source = open_source(repo_id=None, root=DATASET, revision=None)
    fps = float(source.meta.fps)
    first = {truth[part.segment.episode_index].kind: part for part in reversed(scores)}
    panels = []
    for part in (first[kind] for kind in _SHOWN if kind in first):
        try:
            clip = read_clip(
                source, camera=camera, segment=part.segment, sample_fps=fps, final_frame=True
            )
        except EpisodeError:
            continue
        panels.append(Panel(part, truth[part.segment.episode_index], clip.frames, fps))
    return panels
