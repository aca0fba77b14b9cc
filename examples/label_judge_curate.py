"""Label a dataset, judge it, and write a new one without the bad demonstrations, all in Python.

    python examples/label_judge_curate.py OUTPUT_FOLDER

The configurations are those of the commands, so `lerobot-topreward label --help` explains them.
"""

import sys
from pathlib import Path

import numpy as np

from lerobot_topreward import (
    CurateConfig,
    EvaluateConfig,
    LabelConfig,
    VlmConfig,
    curate_dataset,
    evaluate_dataset,
    label_dataset,
)
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.judging.rules import Drops
from lerobot_topreward.records import EpisodeMetrics

output = Path(sys.argv[1])

# 1. Label: your own dataset would be LabelConfig(repo_id="OWNER/NAME", ...). `scale="prob"` suits
# the demo's tiny VLM, whose probabilities were trained to mean progress.
labeled = label_dataset(
    LabelConfig(
        root=DATASET,
        output=output / "labeled",
        episodes="0:12",
        vlm=VlmConfig(vlm="builtin:so101-demo", device="cpu"),
        normalize="task",
        scale="prob",
    )
)
print(f"{labeled.labelled} episodes labeled, {len(labeled.failed)} failed: {labeled.output}")

# 2. Judge: metrics of every episode, as records.
found = evaluate_dataset(EvaluateConfig(root=labeled.output))
for episode in sorted(found.metrics, key=lambda metrics: metrics.final_progress)[:3]:
    print(f"episode {episode.episode_index}: ends at {episode.final_progress:.2f}")


# 3. Curate: the default rule, and one of your own. A rule says which episodes go, and why.
def too_slow(metrics: list[EpisodeMetrics]) -> Drops:
    median = np.median([episode.seconds for episode in metrics])
    return {
        episode.episode_index: f"takes {episode.seconds:.0f} s, over twice the median"
        for episode in metrics
        if episode.seconds > 2 * median
    }


plan = curate_dataset(
    CurateConfig(root=labeled.output, output=output / "good", unlabelled="drop"), custom=[too_slow]
)
print(f"kept {plan.kept}")
for verdict in plan.dropped:
    print(f"dropped {verdict.episode_index}: {'; '.join(verdict.reasons)}")
