"""The table and the picture of the weights, where a run is tracked with wandb."""

import tempfile
from pathlib import Path

from lerobot_topreward.console import spell_options
from lerobot_topreward.train.histogram import save_histogram
from lerobot_topreward.train.records import FrameWeights
from lerobot_topreward.train.summary import WeightSummary, list_facts


def log_weights(summary: WeightSummary, weights: FrameWeights, *, title: str) -> None:
    """Log what a run's weights will do, once, to the run that LeRobot's logger has started.

    It is logged without a step: it comes before the first step that LeRobot logs, or after the last
    one in a run that is resumed.
    """
    import wandb

    if wandb.run is None:
        return
    rows = [["weights", title], *map(list, list_facts(summary).items())]
    rows += [["warning", spell_options(text)] for text in summary.warnings]
    table = wandb.Table(columns=["what", "value"], data=rows)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "weights.png"
        save_histogram(picture, weights, title=title)
        wandb.log({"weighting/table": table, "weighting/histogram": wandb.Image(str(picture))})
