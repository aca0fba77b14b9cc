"""The seam, tried by running LeRobot's own `train()`."""

import copy
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from lerobot.common import train_utils
from lerobot.datasets import LeRobotDataset
from lerobot.policies import factory
from lerobot.scripts import lerobot_train
from lerobot.utils import sample_weighting
from lerobot.utils.sample_weighting import SampleWeighter
from safetensors.torch import load_file
from torch import Tensor

import lerobot_topreward.policies
import lerobot_topreward.train
from lerobot_topreward.errors import TrainingError, UserError
from lerobot_topreward.policies.act import PerSampleACTPolicy
from lerobot_topreward.policies.diffusion import PerSampleDiffusionPolicy
from lerobot_topreward.train.batch_scale import BATCH_SCALE, batch_scale
from lerobot_topreward.train.lerobot_check import check_lerobot
from lerobot_topreward.train.seam import install, installed

torch.set_num_threads(1)

LENGTHS = (9, 12, 10)
FRAMES = sum(LENGTHS)
ACT = (
    "--policy.type=act", "--policy.dim_model=16", "--policy.n_heads=2",
    "--policy.dim_feedforward=16", "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1", "--policy.chunk_size=4", "--policy.n_action_steps=4",
    "--policy.optimizer_lr=1e-3",
)  # fmt: skip
DIFFUSION = (
    "--policy.type=diffusion", "--policy.horizon=8", "--policy.n_action_steps=4",
    "--policy.down_dims=[8,16]", "--policy.n_groups=4", "--policy.diffusion_step_embed_dim=8",
    "--policy.optimizer_lr=1e-3", "--policy.scheduler_warmup_steps=0",
)  # fmt: skip
# Plain gradient descent: Adam hides the scale of a loss, and makes steps of rounding errors.
DESCENT = (
    "--use_policy_training_preset=false", "--optimizer.type=sgd", "--optimizer.lr=0.01",
    "--optimizer.momentum=0", "--optimizer.grad_clip_norm=0", "--scheduler.type=diffuser",
    "--scheduler.name=constant", "--scheduler.num_warmup_steps=0",
)  # fmt: skip
POLICIES = [pytest.param(ACT, id="act"), pytest.param(DIFFUSION, id="diffusion")]
WEIGHTED = ("--sample_weighting.type=topreward", "--sample_weighting.extra_params={beta: 0.5}")


@pytest.fixture(scope="session")
def robot_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of states and actions, without cameras."""
    root = tmp_path_factory.mktemp("robot") / "dataset"
    shapes = {"observation.state": 5, "observation.environment_state": 2, "action": 3}
    dataset = LeRobotDataset.create(
        "local/robot",
        fps=10,
        features={n: {"dtype": "float32", "shape": (s,), "names": None} for n, s in shapes.items()},
        root=root,
        use_videos=False,
    )
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        for _ in range(length):
            values = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
            dataset.add_frame({**values, "task": "pick up the cube"})
        dataset.save_episode()
    dataset.finalize()
    return root


def options(root: Path, output: Path, *more: str) -> list[str]:
    return [
        "--dataset.repo_id=local/robot", f"--dataset.root={root}", f"--output_dir={output}",
        "--policy.device=cpu", "--policy.push_to_hub=false", "--batch_size=4", "--num_workers=0",
        "--wandb.enable=false", "--log_freq=1", "--seed=3", *more,
    ]  # fmt: skip


def write_progress(path: Path) -> Path:
    """Write a sidecar in LeRobot's form, in which the second episode loses what it had."""
    episodes = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    frames = np.concatenate([np.arange(length) for length in LENGTHS])
    progress = np.where(episodes == 1, 0.5 - frames / 40, frames / 12).astype(np.float32)
    columns = {"index": np.arange(FRAMES), "episode_index": episodes, "frame_index": frames}
    pq.write_table(pa.table({**columns, "progress_sparse": progress}), path)
    return path


Train = Callable[..., None]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """LeRobot's `train()` as `lerobot-train` calls it."""

    def run(*arguments: str) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # else of the run before
        monkeypatch.setattr(sys, "argv", ["lerobot-train", *arguments])
        lerobot_train.train()  # pyright: ignore[reportCallIssue]

    return run


def parameters(output: Path, checkpoint: str = "last") -> dict[str, Tensor]:
    return load_file(output / "checkpoints" / checkpoint / "pretrained_model" / "model.safetensors")


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], **limits: Any) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=name, **limits)


class TableWeighter(SampleWeighter):
    """Weights by global index, as ours; `on_step` may tamper with a step's batch and weights."""

    def __init__(self, table: Tensor, *, per_batch: bool = False) -> None:
        self.table = table
        self.per_batch = per_batch
        self.params: Mapping[str, Any] = {}
        self.policy: Any = None
        self.dataset: LeRobotDataset | None = None
        self.step = 0
        self.on_step: Callable[[int, dict[str, Tensor], Tensor], object] = lambda *_: None

    def __call__(self, params: Mapping[str, Any], *, policy: Any, device: Any, dataset: Any) -> Any:
        self.params, self.policy, self.dataset, self.step = params, policy, dataset, 0
        return self

    def compute_batch_weights(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        self.step += 1
        weights = self.table[batch["index"]]
        self.on_step(self.step, batch, weights)
        if not self.per_batch:
            batch[BATCH_SCALE] = batch_scale(weights)
        return weights, {"mean": float(weights.mean())}

    def get_stats(self) -> dict[str, Any]:
        return {"type": "table"}


def table() -> Tensor:
    values = torch.rand(FRAMES, generator=torch.Generator().manual_seed(1)) * 2
    values[::5] = 0.0
    return values


REPLACED = (
    (sample_weighting, "make_sample_weighter"),
    (factory, "get_policy_class"),
    (lerobot_train, "make_train_eval_datasets"),
    (lerobot_train, "make_pre_post_processors"),
    (lerobot_train, "update_policy"),
)


def test_lerobot_is_as_before_afterwards() -> None:
    before = [getattr(module, name) for module, name in REPLACED]

    def fail() -> None:
        with installed(TableWeighter(table())):
            during = [getattr(module, name) for module, name in REPLACED]
            assert not any(a is b for a, b in zip(before, during, strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [getattr(module, name) for module, name in REPLACED] == before


def test_installing_twice() -> None:
    with installed(TableWeighter(table())):
        replaced = lerobot_train.update_policy
        install(TableWeighter(table()))
        assert lerobot_train.update_policy == replaced
        with (
            pytest.raises(RuntimeError, match="already weighted"),
            installed(TableWeighter(table())),
        ):
            pass


def test_this_lerobot_is_the_one_the_seam_is_written_for() -> None:
    check_lerobot()


def _other_update_policy(train_metrics: Any, policy: Any, batch: Any) -> None: ...


def _other_make_policy(cfg: Any, ds_meta: Any = None) -> None: ...


@pytest.mark.parametrize(
    ("module", "name", "replacement", "message"),
    [
        (sample_weighting, "make_sample_weighter", None, "it is gone"),
        (train_utils, "save_checkpoint", None, "it is gone"),
        (
            lerobot_train,
            "update_policy",
            _other_update_policy,
            "its parameters are train_metrics, policy, batch;",
        ),
        (factory, "make_policy", _other_make_policy, "it no longer uses get_policy_class"),
    ],
)
def test_a_lerobot_that_has_moved_is_refused(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, replacement: Any, message: str
) -> None:
    if replacement is None:
        monkeypatch.delattr(module, name)
    else:
        monkeypatch.setattr(module, name, replacement)
    before = factory.get_policy_class
    with pytest.raises(RuntimeError) as error, installed(TableWeighter(table())):
        pass
    assert f"has moved {module.__name__}.{name}: {message}" in str(error.value)
    assert "lerobot==0.6.1" in str(error.value)
    assert factory.get_policy_class is before


@pytest.mark.parametrize("policy", POLICIES)
def test_uniform_weights_train_what_lerobot_trains(
    robot_dataset: Path, tmp_path: Path, train: Train, policy: tuple[str, ...]
) -> None:
    more = (*policy, *DESCENT, "--steps=4")
    train(*options(robot_dataset, tmp_path / "stock", *more))
    with installed(TableWeighter(torch.ones(FRAMES))):
        train(*options(robot_dataset, tmp_path / "ours", *more, *WEIGHTED))
        train(*options(robot_dataset, tmp_path / "without", *more))
    stock = parameters(tmp_path / "stock")
    assert_same(parameters(tmp_path / "ours"), stock, atol=1e-6, rtol=1e-5)
    assert_same(parameters(tmp_path / "without"), stock, atol=0, rtol=0)
    for file in (tmp_path / "ours" / "checkpoints" / "last" / "pretrained_model").glob("*.json"):
        assert file.name == "train_config.json" or "topreward" not in file.read_text()


@pytest.mark.parametrize("per_batch", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_minimises_the_mean_of_the_weighted_losses(
    robot_dataset: Path, tmp_path: Path, train: Train, policy: tuple[str, ...], per_batch: bool
) -> None:
    weighter = TableWeighter(table(), per_batch=per_batch)
    seen: dict[str, Any] = {}

    def remember(_: int, batch: dict[str, Tensor], weights: Tensor) -> None:
        seen.update(
            policy=copy.deepcopy(weighter.policy),
            batch=dict(batch),
            weights=weights,
            random=torch.get_rng_state(),
        )

    weighter.on_step = remember
    with installed(weighter):
        train(*options(robot_dataset, tmp_path / "run", *policy, *DESCENT, "--steps=1", *WEIGHTED))

    own, weights = seen["policy"].train(), seen["weights"]
    assert isinstance(own, PerSampleACTPolicy | PerSampleDiffusionPolicy)
    assert weighter.params == {"beta": 0.5}
    torch.set_rng_state(seen["random"])
    losses, _ = own.forward(seen["batch"], reduction="none")
    if per_batch:  # LeRobot's own quotient
        loss = (losses * weights).sum() / (weights.sum() + 1e-6)
    else:
        loss = (losses * weights).mean()
    loss.backward()
    expected = {name: p - 0.01 * p.grad for name, p in own.named_parameters() if p.grad is not None}
    found = parameters(tmp_path / "run")
    assert_same({name: found[name] for name in expected}, expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_of_weight_zero_teaches_nothing(
    robot_dataset: Path, tmp_path: Path, train: Train, policy: tuple[str, ...]
) -> None:
    weighter = TableWeighter(torch.zeros(FRAMES))
    before: dict[str, Tensor] = {}

    def remember(step: int, *_: Any) -> None:
        if step == 1:
            before.update(copy.deepcopy(weighter.policy).state_dict())

    weighter.on_step = remember
    with installed(weighter):
        train(*options(robot_dataset, tmp_path / "run", *policy, *DESCENT, "--steps=2", *WEIGHTED))
    found = parameters(tmp_path / "run")
    assert_same(found, {name: before[name] for name in found}, atol=0, rtol=0)


def test_mixed_precision(robot_dataset: Path, tmp_path: Path, train: Train) -> None:
    with installed(TableWeighter(torch.ones(FRAMES))):
        half = ("--policy.use_amp=true", *DESCENT, "--steps=3")
        train(*options(robot_dataset, tmp_path / "stock", *ACT, *half))
        train(*options(robot_dataset, tmp_path / "ours", *ACT, *half, *WEIGHTED))
    assert_same(parameters(tmp_path / "ours"), parameters(tmp_path / "stock"), atol=1e-3, rtol=1e-2)


def test_the_weighter_is_given_the_dataset_that_is_trained_on(
    robot_dataset: Path, tmp_path: Path, train: Train
) -> None:
    weighter = TableWeighter(table())
    seen: list[int] = []
    weighter.on_step = lambda _, batch, __: seen.extend(batch["index"].tolist())
    with installed(weighter):
        train(
            *options(robot_dataset, tmp_path / "run", *ACT, "--steps=5", *WEIGHTED),
            "--dataset.episodes=[2,0]",
        )
    assert weighter.dataset is not None
    assert weighter.dataset.root == robot_dataset
    assert weighter.dataset.episodes == [2, 0]
    assert set(seen) <= {*range(9), *range(21, 31)}


@pytest.mark.parametrize("policy", POLICIES)
def test_resuming_goes_on_as_lerobot_does(
    robot_dataset: Path, tmp_path: Path, train: Train, policy: tuple[str, ...]
) -> None:
    weighter = TableWeighter(torch.ones(FRAMES))
    with installed(weighter):
        for name, more in (("stock", ()), ("ours", WEIGHTED)):
            train(*options(robot_dataset, tmp_path / name, *policy, *DESCENT, *more, "--steps=2"))
            weighter.params = {}
            checkpoint = tmp_path / name / "checkpoints" / "last" / "pretrained_model"
            train(f"--config_path={checkpoint}", "--resume=true", "--steps=4")
    assert weighter.params == {"beta": 0.5}
    ours, stock = parameters(tmp_path / "ours"), parameters(tmp_path / "stock")
    assert_same(ours, stock, atol=1e-6, rtol=1e-5)


def test_fine_tuning_a_stock_checkpoint(robot_dataset: Path, tmp_path: Path, train: Train) -> None:
    train(*options(robot_dataset, tmp_path / "stock", *ACT, "--steps=1"))
    checkpoint = tmp_path / "stock" / "checkpoints" / "last" / "pretrained_model"
    with installed(TableWeighter(torch.zeros(FRAMES))):
        train(
            *options(robot_dataset, tmp_path / "tuned", *DESCENT, "--steps=1", *WEIGHTED),
            f"--policy.path={checkpoint}",
        )
    assert_same(parameters(tmp_path / "tuned"), parameters(tmp_path / "stock"), atol=0, rtol=0)


def test_lerobots_own_weighters_work_with_act(
    robot_dataset: Path, tmp_path: Path, train: Train
) -> None:
    sidecar = write_progress(tmp_path / "topreward_progress.parquet")
    more = (*ACT, *DESCENT, "--steps=4")
    with installed(TableWeighter(table())):
        train(*options(robot_dataset, tmp_path / "stock", *more))
        train(
            *options(robot_dataset, tmp_path / "uniform", *more),
            "--sample_weighting.type=uniform",
        )
        train(
            *options(robot_dataset, tmp_path / "rabc", *more, "--dataset.episodes=[1]"),
            "--sample_weighting.type=rabc",
            f"--sample_weighting.progress_path={sidecar}",
        )
        train(*options(robot_dataset, tmp_path / "stock-1", *more, "--dataset.episodes=[1]"))
    uniform, stock = parameters(tmp_path / "uniform"), parameters(tmp_path / "stock")
    assert_same(uniform, stock, atol=1e-6, rtol=1e-5)
    rabc, stock = parameters(tmp_path / "rabc"), parameters(tmp_path / "stock-1")
    assert not torch.equal(rabc["model.action_head.bias"], stock["model.action_head.bias"])


def test_a_policy_without_per_sample_loss_fails_before_anything_is_read(
    tmp_path: Path, train: Train
) -> None:
    with installed(TableWeighter(table())), pytest.raises(UserError, match="'vqbet' has no per"):
        train(*options(tmp_path / "missing", tmp_path / "run", "--policy.type=vqbet", *WEIGHTED))


def spoil_loss(step: int, batch: dict[str, Tensor], _: Tensor) -> None:
    if step == 3:
        batch["action"][1, 0, 0] = float("nan")


def spoil_weight(step: int, batch: dict[str, Tensor], weights: Tensor) -> None:
    if step == 3:
        weights[1] = float("inf")


@pytest.mark.parametrize(
    ("policy", "spoil", "what"),
    [(ACT, spoil_loss, "loss"), (DIFFUSION, spoil_weight, "weight")],
    ids=["act-loss", "diffusion-weight"],
)
def test_what_is_not_finite_stops_training_after_saving(
    robot_dataset: Path,
    tmp_path: Path,
    train: Train,
    policy: tuple[str, ...],
    spoil: Callable[[int, dict[str, Tensor], Tensor], None],
    what: str,
) -> None:
    weighter = TableWeighter(table())
    seen: list[int] = []

    def on_step(step: int, batch: dict[str, Tensor], weights: Tensor) -> None:
        seen.append(int(batch["index"][1]))
        spoil(step, batch, weights)

    weighter.on_step = on_step
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    more = (*policy, "--steps=5", *WEIGHTED)
    with installed(weighter):
        with pytest.raises(TrainingError) as stopped:
            train(*options(robot_dataset, broken, *more))
        assert str(stopped.value).startswith(
            f"step 3: the {what} of these frames is NaN or infinite (global index): {seen[-1]}. "
            f"The state after step 2 is saved in {broken / 'checkpoints' / '000002'}."
        )
        weighter.on_step = lambda *_: None
        train(*options(robot_dataset, whole, *more, "--save_freq=2"))
        assert_same(parameters(broken), parameters(whole, "000002"), atol=0, rtol=0)
        checkpoint = broken / "checkpoints" / "last" / "pretrained_model"
        train(f"--config_path={checkpoint}", "--resume=true")
    assert parameters(broken, "000005").keys() == parameters(whole, "000005").keys()


def test_a_first_step_that_is_not_finite(robot_dataset: Path, tmp_path: Path, train: Train) -> None:
    weighter = TableWeighter(table())
    weighter.on_step = lambda _, batch, __: batch["action"].fill_(float("nan"))
    with installed(weighter):
        with pytest.raises(TrainingError, match=r"step 1: .* after step 0 is saved"):
            train(*options(robot_dataset, tmp_path / "run", *ACT, "--steps=2", *WEIGHTED))
        weighter.on_step = lambda *_: None
        checkpoint = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
        train(f"--config_path={checkpoint}", "--resume=true")
        weighter.on_step = spoil_loss
        with pytest.raises(TrainingError, match="as --save_checkpoint=false asks"):
            train(
                *options(robot_dataset, tmp_path / "unsaved", *ACT, "--steps=5", *WEIGHTED),
                "--save_checkpoint=false",
            )
    assert not (tmp_path / "unsaved" / "checkpoints").exists()


def test_parameters_that_are_not_finite_are_not_saved(
    robot_dataset: Path, tmp_path: Path, train: Train
) -> None:
    weighter = TableWeighter(table())

    def break_policy(step: int, *_: Any) -> None:
        if step == 3:
            next(weighter.policy.parameters()).data.fill_(float("nan"))

    weighter.on_step = break_policy
    with installed(weighter), pytest.raises(TrainingError, match="parameters are not finite"):
        train(
            *options(robot_dataset, tmp_path / "run", *ACT, "--steps=5", *WEIGHTED),
            "--save_freq=1",
        )
    assert os.readlink(tmp_path / "run" / "checkpoints" / "last") == "000002"


def test_a_policy_that_returns_one_loss_is_refused(
    robot_dataset: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_loss(self: Any, batch: dict[str, Tensor], reduction: str) -> tuple[Tensor, None]:
        return self.model.action_head.weight.mean(), None

    monkeypatch.setattr(PerSampleACTPolicy, "forward", one_loss)
    with (
        installed(TableWeighter(table())),
        pytest.raises(RuntimeError, match=r"one loss per sample, shape \(4,\); got \(\)"),
    ):
        train(*options(robot_dataset, tmp_path / "run", *ACT, "--steps=1", *WEIGHTED))


def run_program(*arguments: str | Path) -> str:
    """Run Python where these tests can be imported, and return what it printed."""
    run = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return run.stdout


TWO_PROCESSES = """
import os
import sys

import torch
from accelerate import Accelerator
from lerobot.scripts import lerobot_train

from lerobot_topreward.errors import TrainingError
from lerobot_topreward.train.seam import installed
from test_seam import TableWeighter

# When train() returns, DDP's reducer is freed, and with it gloo's process group, which joins a
# thread that may be waiting for the interpreter's lock (PyTorch 2.11).
Accelerator.end_training = lambda accelerator: os._exit(0)
spoil = sys.argv.pop(1) == "spoil"
weighter = TableWeighter(torch.ones(31))


def on_step(step, batch, weights):
    if spoil and step == 3 and os.environ["RANK"] == "1":
        print("spoilt:", int(batch["index"][0]))
        batch["action"][0] = float("nan")


weighter.on_step = on_step
with installed(weighter):
    try:
        lerobot_train.train()
    except TrainingError as stopped:
        print(f"process {os.environ['RANK']}: {stopped}")
        os._exit(0)
"""


@pytest.mark.slow
def test_two_processes(robot_dataset: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)

    def launch(name: str, *more: str) -> str:
        return run_program(
            "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, name,
            *options(robot_dataset, tmp_path / name, *ACT, *DESCENT, "--steps=4", *more),
        )  # fmt: skip

    assert re.search(r"loss:\d", launch("ours", *WEIGHTED))
    launch("stock")
    stock = parameters(tmp_path / "stock")
    assert_same(parameters(tmp_path / "ours"), stock, atol=1e-6, rtol=1e-5)

    printed = launch("spoil", *WEIGHTED)
    index = re.findall(r"spoilt: (\d+)", printed)
    assert len(index) == 1  # in one process, but both stop, and say the same
    for process in (0, 1):
        assert re.search(rf"process {process}: step 3: the loss .* index\): {index[0]}\.", printed)
    assert_same(
        parameters(tmp_path / "spoil"), parameters(tmp_path / "spoil", "000002"), atol=0, rtol=0
    )


@pytest.mark.slow
def test_stock_lerobot_train_with_the_plugin(robot_dataset: Path, tmp_path: Path) -> None:
    sidecar = write_progress(tmp_path / "progress.parquet")
    plugin = "--policy.discover_packages_path=lerobot_topreward.policies"

    def launch(name: str, *more: str) -> str:
        script = Path(sys.executable).with_name("lerobot-train")
        return run_program(
            script, *options(robot_dataset, tmp_path / name, *ACT, "--steps=2", *more)
        )

    assert "Unknown sample weighting type: 'topreward'" in launch("unknown", *WEIGHTED)
    rabc = ("--sample_weighting.type=rabc", f"--sample_weighting.progress_path={sidecar}")
    params = f"--sample_weighting.extra_params={{scheme: awr, beta: 0.5, sidecar: {sidecar}}}"
    for name, weighting in (("awr", (WEIGHTED[0], params)), ("rabc", rabc)):
        printed = launch(name, plugin, *weighting)
        assert "sample_weight_mean_weight" in printed, printed
    checkpoint = tmp_path / "awr" / "checkpoints" / "last" / "pretrained_model"
    more = (f"--config_path={checkpoint}", "--resume=true", "--steps=3", plugin)
    printed = run_program("-m", "lerobot.scripts.lerobot_train", *more)  # as the main module
    assert (tmp_path / "awr" / "checkpoints" / "000003").is_dir(), printed


def test_only_lerobot_imports_the_plugin() -> None:
    plugin = "lerobot_topreward.policies.plugin"
    for package in (lerobot_topreward.policies, lerobot_topreward.train):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if module.name != plugin:
                import_module(module.name)
    assert plugin not in sys.modules
