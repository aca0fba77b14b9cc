"""Weight the loss of your own training loop by the labels of a dataset.

    python examples/weight_own_loop.py LABELED_DATASET

A linear policy from state to action, trained on weighted squared errors: a frame with weight 2
counts as if it were there twice. Weights have mean 1, so the learning rate stays what it was.
"""

import sys
from pathlib import Path

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward import Awr, weigh_dataset

root = Path(sys.argv[1])
dataset = LeRobotDataset(f"local/{root.name}", root=root)
weights = weigh_dataset(dataset, Awr(beta=1.0), chunk=16)  # the policy predicts 16 actions
print(
    f"{len(weights.weight)} weights from {weights.weight.min():.2f} to {weights.weight.max():.2f}"
)

# The weight of frame i of the dataset stands at row i; videos are not needed here.
rows = dataset.hf_dataset.with_format("torch")
state = torch.stack(list(rows["observation.state"]))
action = torch.stack(list(rows["action"]))
weight = torch.from_numpy(weights.weight)

torch.manual_seed(0)
policy = torch.nn.Linear(state.shape[1], action.shape[1])
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
for step in range(201):
    batch = torch.randint(len(state), (64,))
    error = (policy(state[batch]) - action[batch]).square().mean(dim=1)
    loss = (weight[batch] * error).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step:3d}  weighted loss {loss.item():.4f}")
