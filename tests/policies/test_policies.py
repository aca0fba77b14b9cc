"""ACT and Diffusion with a loss per sample, against LeRobot's own policies."""

import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import get_policy_class
from torch import Tensor

from lerobot_topreward.errors import UserError
from lerobot_topreward.policies.act import PerSampleACTPolicy
from lerobot_topreward.policies.choice import per_sample_policy
from lerobot_topreward.policies.diffusion import PerSampleDiffusionPolicy

torch.set_num_threads(1)

BATCH, STATE, ACTION_DIM, STEPS = 4, 5, 3, 8
STATE_ONLY = {
    "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(STATE,)),
    "observation.environment_state": PolicyFeature(type=FeatureType.ENV, shape=(2,)),
}
CAMERAS = {
    "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(STATE,)),
    **{
        f"observation.images.{camera}": PolicyFeature(type=FeatureType.VISUAL, shape=(3, 64, 64))
        for camera in ("front", "wrist")
    },
}
ACTIONS = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(ACTION_DIM,))}
# Inside an episode, at its end, its last frame, and a sample that is nothing but padding.
VALID_STEPS = (8, 3, 1, 0)

ACT_CASES: list[Any] = [
    pytest.param({"inputs": inputs, "use_vae": vae}, id=f"act-{name}-{'vae' if vae else 'plain'}")
    for name, inputs in (("state", STATE_ONLY), ("cameras", CAMERAS))
    for vae in (True, False)
]
DIFFUSION_CASES: list[Any] = [
    pytest.param(
        {"inputs": inputs, "do_mask_loss_for_padding": mask, "prediction_type": kind, **options},
        id=f"diffusion-{name}-{kind}-{'mask' if mask else 'all'}",
    )
    for name, inputs, options in (
        ("state", STATE_ONLY, {}),
        ("cameras", CAMERAS, {}),
        ("one-camera-step", CAMERAS, {"n_obs_steps": 1, "use_separate_rgb_encoder_per_camera": 0}),
    )
    for mask in (True, False)
    for kind in (("epsilon", "sample") if name == "state" else ("epsilon",))
]


def act_config(*, inputs: dict[str, PolicyFeature], **options: Any) -> ACTConfig:
    return ACTConfig(
        input_features=dict(inputs), output_features=dict(ACTIONS), device="cpu",
        pretrained_backbone_weights=None, chunk_size=STEPS, n_action_steps=STEPS, dim_model=16,
        n_heads=2, dim_feedforward=16, n_encoder_layers=1, n_vae_encoder_layers=1, latent_dim=4,
        **options,
    )  # fmt: skip


def diffusion_config(*, inputs: dict[str, PolicyFeature], **options: Any) -> DiffusionConfig:
    return DiffusionConfig(
        input_features=dict(inputs), output_features=dict(ACTIONS), device="cpu",
        pretrained_backbone_weights=None, horizon=STEPS, n_action_steps=4, down_dims=(8, 16),
        n_groups=4, diffusion_step_embed_dim=8, spatial_softmax_num_keypoints=4, **options,
    )  # fmt: skip


def make_batch(config: ACTConfig | DiffusionConfig, *, seed: int = 0) -> dict[str, Tensor]:
    """A batch as LeRobot's preprocessor hands it to the policy."""
    generator = torch.Generator().manual_seed(seed)
    diffusion = isinstance(config, DiffusionConfig)
    batch = {}
    for name, feature in (config.input_features or {}).items():
        time = (config.n_obs_steps,) if diffusion else ()
        batch[name] = torch.randn(BATCH, *time, *feature.shape, generator=generator)
    batch["action"] = torch.randn(BATCH, STEPS, ACTION_DIM, generator=generator)
    batch["action_is_pad"] = torch.arange(STEPS)[None, :] >= torch.tensor(VALID_STEPS)[:, None]
    batch["index"] = torch.arange(BATCH)
    return batch


def pair(case: dict[str, Any]) -> tuple[Any, Any, dict[str, Tensor]]:
    """The stock policy, ours with the same parameters, and a batch."""
    own_class: Any = PerSampleACTPolicy if "use_vae" in case else PerSampleDiffusionPolicy
    stock_class: Any = ACTPolicy if "use_vae" in case else DiffusionPolicy
    config = act_config(**case) if "use_vae" in case else diffusion_config(**case)
    torch.manual_seed(0)
    stock = stock_class(config)
    own = own_class(config)
    own.load_state_dict(stock.state_dict())
    return stock.train(), own.train(), make_batch(config)


def forward(policy: Any, batch: dict[str, Tensor], **options: str) -> tuple[Tensor, Any]:
    torch.manual_seed(7)  # dropout, latent, noise and diffusion steps
    return policy.forward(dict(batch), **options)


def gradients(policy: Any, loss: Tensor) -> dict[str, Tensor]:
    policy.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in policy.named_parameters()
    }


@pytest.mark.parametrize("case", ACT_CASES + DIFFUSION_CASES)
def test_the_mean_of_the_losses_and_its_gradients_are_the_stock_ones(case: dict[str, Any]) -> None:
    stock, own, batch = pair(case)
    expected, expected_parts = forward(stock, batch)
    losses, parts = forward(own, batch, reduction="none")
    assert losses.shape == (BATCH,)
    torch.testing.assert_close(losses.mean(), expected, atol=1e-6, rtol=1e-6)
    assert parts == (expected_parts and pytest.approx(expected_parts, abs=1e-6, rel=1e-6))
    theirs, ours = gradients(stock, expected), gradients(own, losses.mean())
    assert any(gradient.any() for gradient in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("case", ACT_CASES + DIFFUSION_CASES)
def test_reduction_mean_is_the_stock_forward(case: dict[str, Any]) -> None:
    stock, own, batch = pair(case)
    expected, expected_parts = forward(stock, batch)
    loss, parts = forward(own, batch)
    assert torch.equal(loss, expected)
    assert parts == expected_parts


@pytest.mark.parametrize("case", [ACT_CASES[0], DIFFUSION_CASES[0]])
def test_an_unknown_reduction_is_refused(case: dict[str, Any]) -> None:
    _, own, batch = pair(case)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none'; got 'sum'"):
        own.forward(batch, reduction="sum")


@pytest.mark.parametrize("case", [*ACT_CASES[:2], ACT_CASES[3], *DIFFUSION_CASES[:4]])
def test_a_sample_with_weight_zero_has_no_influence(case: dict[str, Any]) -> None:
    _, own, batch = pair(case)
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0])
    losses, _ = forward(own, batch, reduction="none")
    expected = gradients(own, (weights * losses).mean())
    for name, values in make_batch(own.config, seed=1).items():
        if name not in ("index", "action_is_pad"):  # padding counts for the whole batch
            batch[name][1] = values[1]
    changed, _ = forward(own, batch, reduction="none")
    assert not torch.isclose(changed[1], losses[1])
    for name, gradient in gradients(own, (weights * changed).mean()).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-7, rtol=1e-5, msg=name)


@pytest.mark.parametrize("inputs", [STATE_ONLY, CAMERAS], ids=["state", "cameras"])
def test_a_weight_of_two_is_twice_the_samples_share_of_the_batch(
    inputs: dict[str, PolicyFeature],
) -> None:
    stock, own, batch = pair({"inputs": inputs, "use_vae": False, "dropout": 0.0})
    losses, _ = forward(own, batch, reduction="none")
    weighted = gradients(own, (torch.tensor([0.0, 2.0, 0.0, 0.0]) * losses).mean())
    alone = {name: values[1:2] for name, values in batch.items()}
    stock_loss, _ = forward(stock, alone)
    share = VALID_STEPS[1] / sum(VALID_STEPS)  # a valid step counts the same in every sample
    for name, gradient in gradients(stock, 2 * share * stock_loss).items():
        torch.testing.assert_close(weighted[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_a_batch_of_nothing_but_padding_has_loss_zero() -> None:
    for case in (ACT_CASES[1], DIFFUSION_CASES[0]):
        _, own, batch = pair(case.values[0])
        batch["action_is_pad"] = torch.ones_like(batch["action_is_pad"])
        losses, _ = forward(own, batch, reduction="none")
        assert losses.tolist() == [0.0] * BATCH


def observation(config: ACTConfig | DiffusionConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(1, *feature.shape, generator=generator)
        for name, feature in (config.input_features or {}).items()
    }


def next_action(policy: Any) -> Tensor:
    policy.eval()
    policy.reset()
    torch.manual_seed(5)
    return policy.select_action(observation(policy.config))


@pytest.mark.parametrize("case", [ACT_CASES[0], DIFFUSION_CASES[0]])
def test_a_stock_checkpoint_loads_and_acts_the_same(case: dict[str, Any], tmp_path: Path) -> None:
    stock, own, _ = pair(case)
    stock.save_pretrained(tmp_path)
    loaded = type(own).from_pretrained(tmp_path, strict=True)
    assert torch.equal(next_action(loaded), next_action(stock))


@pytest.mark.parametrize("case", [ACT_CASES[0], DIFFUSION_CASES[0]])
def test_a_policy_can_be_pickled(case: dict[str, Any]) -> None:
    _, own, _ = pair(case)
    copy = pickle.loads(pickle.dumps(own))
    assert type(copy) is type(own)
    assert torch.equal(next_action(copy), next_action(own))


@pytest.mark.slow
def test_a_checkpoint_of_ours_needs_only_lerobot(tmp_path: Path) -> None:
    expected = {}
    for case in (ACT_CASES[0], DIFFUSION_CASES[0]):
        _, own, _ = pair(case.values[0])
        kind = own.config.type
        own.save_pretrained(tmp_path / kind)
        torch.save(observation(own.config), tmp_path / kind / "observation.pt")
        assert json.loads((tmp_path / kind / "config.json").read_text())["type"] == kind
        expected[kind] = next_action(own).tolist()
    assert set(expected) == {"act", "diffusion"}
    script = """
        import json, sys, torch
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "lerobot_topreward":
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())
        from lerobot.policies.act.modeling_act import ACTPolicy
        from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
        actions = {}
        for policy_class in (ACTPolicy, DiffusionPolicy):
            folder = f"{sys.argv[1]}/{policy_class.name}"
            policy = policy_class.from_pretrained(folder, strict=True)
            torch.manual_seed(5)
            observation = torch.load(f"{folder}/observation.pt")
            actions[policy_class.name] = policy.select_action(observation).tolist()
        print(json.dumps(actions))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(run.stdout.splitlines()[-1]) == expected


def test_our_classes_are_chosen_for_act_and_diffusion_only() -> None:
    assert per_sample_policy("act") is PerSampleACTPolicy
    assert per_sample_policy("diffusion") is PerSampleDiffusionPolicy
    for name in ("pi0", "pi05", "smolvla"):
        assert per_sample_policy(name) is get_policy_class(name)


def test_a_policy_without_per_sample_loss_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lerobot.policies.pi05.modeling_pi05", None)  # not installed
    with pytest.raises(UserError) as error:
        per_sample_policy("vqbet")
    before, _, others = str(error.value).partition("; these have: ")
    assert before == (
        "--policy.type 'vqbet' has no per-sample loss, so its frames cannot be weighted"
    )
    assert {"act", "diffusion", "pi0", "smolvla"} <= set(others.partition(". ")[0].split(", "))
    assert not {"pi05", "vqbet", "tdmpc"} & set(others.split(", "))
