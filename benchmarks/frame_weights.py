"""What weights do to the demo's frames, and to the noise of a batch's gradient.

Labels the 40 bundled episodes by the demo's VLM and prints the average weight of every kind of
episode; the weights do not know the kinds. Then a small network from states to the next 16 actions
is trained a little, and the gradient of every frame is taken. Epochs are dealt in batches of 8, by
loss (every frame once, its loss times its weight) and by sampling (frames drawn by their weight),
and the variance of a batch's mean gradient by sampling is printed as a share of that by loss,
beside what `train --dry-run` predicts.

    python benchmarks/frame_weights.py
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, grad, vmap
from weighted_bc.labels import CHUNK, print_weights

from lerobot_topreward.data.dataset import open_source, read_columns
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.label.command import label_dataset
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.simulation.truth import TRUTH_FILE
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.draws import draw_counts, expected_counts, measure_batches
from lerobot_topreward.train.frame_weights import weigh
from lerobot_topreward.train.labels import read_labels
from lerobot_topreward.train.records import FrameLabels
from lerobot_topreward.train.schemes import Awr, Filter
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig

BATCH, EPOCHS, STEPS = 8, 40, 300
MEAN, STAGE = Awr(baseline="mean"), Awr(baseline="stage", horizon="episode")
WEIGHED = {
    "awr, mean": WeightingConfig(scheme=MEAN),
    "stage": WeightingConfig(scheme=Awr(baseline="stage")),
    "stage, episode": WeightingConfig(scheme=STAGE, stationary="keep"),
    "the same, still": WeightingConfig(scheme=STAGE, stationary="drop"),
}
COMPARED = {
    "filter, quantile .5": WeightingConfig(scheme=Filter(quantile=0.5)),
    "awr, mean": WeightingConfig(scheme=MEAN),
    "awr, stage, horizon=episode": WeightingConfig(scheme=STAGE, stationary="keep"),
}


def frame_gradients(root: Path, labels: FrameLabels) -> Float[Tensor, "frames parameters"]:
    """The gradient of every frame's loss, after a few steps of training on all of them alike."""
    table = read_columns(open_source(repo_id=None, root=root, revision=None), _READ)
    state, action = (
        torch.tensor(np.array(table[name].to_pylist()), dtype=torch.float32) for name in _READ
    )
    state, action = (_standardized(values) for values in (state, action))
    # The chunk of a frame, its end repeated at the end of an episode.
    ends = np.concatenate(
        [np.full(rows.stop - rows.start, rows.stop - 1) for rows in labels.episodes()]
    )
    ahead = np.minimum(np.arange(len(ends))[:, None] + np.arange(CHUNK), ends[:, None])
    target = action[torch.from_numpy(ahead)].flatten(1)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(state.shape[1], 32), torch.nn.ReLU(), torch.nn.Linear(32, target.shape[1])
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (network(state) - target).abs().mean().backward()
        optimizer.step()

    def loss(parameters: dict[str, Tensor], one: Tensor, wanted: Tensor) -> Tensor:
        return (functional_call(network, parameters, (one,)) - wanted).abs().mean()

    parameters = {name: value.detach() for name, value in network.named_parameters()}
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, state, target)
    return torch.cat([value.flatten(1) for value in gradients.values()], dim=1)


_READ = ("observation.state", "action")


def _standardized(values: Tensor) -> Tensor:
    return (values - values.mean(dim=0)) / (values.std(dim=0) + 1e-6)


def batch_variance(
    gradients: Float[Tensor, "frames parameters"],
    weights: Float[np.ndarray, " frames"],
    *,
    sampling: bool,
) -> float:
    """Mean squared distance of a batch's mean gradient from the expected one."""
    rng = np.random.default_rng(0)
    expected = expected_counts(weights)
    scaled = gradients * torch.from_numpy(expected).float()[:, None]
    middle = scaled.mean(dim=0)
    distances = []
    for _ in range(EPOCHS):
        frames = np.arange(len(weights))
        if sampling:
            frames = np.repeat(frames, draw_counts(expected, rng.random()))
        order = rng.permutation(frames)[: len(frames) // BATCH * BATCH].reshape(-1, BATCH)
        means = (gradients if sampling else scaled)[torch.from_numpy(order)].mean(dim=1)
        distances.append(float((means - middle).square().sum(dim=1).mean()))
    return float(np.mean(distances))


def main() -> None:
    """Label, weigh, measure and print."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "labelled"
        vlm = VlmConfig(vlm=BUILTIN, device="cpu")
        label_dataset(
            LabelConfig(root=DATASET, output=root, vlm=vlm, normalize="task", scale="prob")
        )
        source = open_source(repo_id=None, root=root, revision=None)
        still = WeightingConfig(stationary="drop")  # reads which frames are idle, too
        labels = read_labels(source, episodes=None, config=still)
        kinds = pd.read_parquet(DATASET / TRUTH_FILE)["kind"].to_numpy()
        print(f"average weight by kind, chunk of {CHUNK} frames, and effective sample size")
        for name, config in WEIGHED.items():
            print_weights(name, labels, config, kinds=kinds)
        gradients = frame_gradients(root, labels)
    print(f"\nvariance of a batch of {BATCH}, by sampling over by loss: measured, predicted")
    for name, config in COMPARED.items():
        weights = weigh(labels, config, chunk=CHUNK)
        ratio = batch_variance(gradients, weights.weight, sampling=True) / batch_variance(
            gradients, weights.weight, sampling=False
        )
        worth = measure_batches(labels, weights, drop_last=0, batch=BATCH)
        print(f"  {name:<28} {ratio:.2f}  {worth.by_loss / worth.by_sampling:.2f}")


if __name__ == "__main__":
    main()
