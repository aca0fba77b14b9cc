"""LeRobot's reward models as scorers: the same values as LeRobot's own code, and clear errors."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from lerobot.configs.rewards import RewardModelConfig as LeRobotConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.lerobot_types import TransitionKey
from lerobot.rewards.factory import make_reward_model_config
from lerobot.rewards.robometer.compute_rabc_weights import _build_subsample_indices
from lerobot.rewards.robometer.modeling_robometer import decode_progress_outputs
from reward_models import (
    CAMERA,
    build_classifier,
    build_lamp,
    build_robometer,
    build_topreward,
    install_lamp,
)

from lerobot_topreward import ScoringConfig, VlmConfig, load_scorer, score_episode
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.run import identify_judge
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.reward_model.prefixes import PrefixRewardScorer
from lerobot_topreward.vlm.reward_model.progress import LEAST
from lerobot_topreward.vlm.reward_model.robometer import RobometerScorer

CPU = VlmConfig(device="cpu")
TASKS = ("pick up the cube", "open the drawer")


def clip_of(frames: int, *, fps: float = 2.0, size: tuple[int, int] = (64, 64)) -> Clip:
    """Every frame is shown."""
    pictures = np.random.default_rng(frames).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    times = np.arange(frames)
    return Clip(Segment(0, 0, frames, TASKS[0]), fps, pictures, times, times)


def load(name: str, path: Path | None, **options: Any) -> Any:
    given = RewardModelConfig(reward_model=name, reward_path=None if path is None else str(path))
    return load_scorer(CPU, reward_model=given, **options)


@pytest.fixture(scope="module")
def robometer_path(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("qwen_vl_utils", reason="Robometer needs the extra robometer")
    return build_robometer(tmp_path_factory.mktemp("robometer") / "tiny", tiny_vlm)


@pytest.fixture(scope="module")
def robometer(robometer_path: Path) -> RobometerScorer:
    return load("robometer", robometer_path)


def ask_lerobot(scorer: RobometerScorer, videos: Any, task: str) -> tuple[np.ndarray, np.ndarray]:
    """LeRobot's own way to progress, and what its heads say of success."""
    transition = {
        TransitionKey.OBSERVATION: {scorer.encoder.image_key: videos},
        TransitionKey.COMPLEMENTARY_DATA: {"task": task},
    }
    with pytest.warns(UserWarning, match="`max_length` is ignored"):
        batch: Any = scorer.encoder(transition)[TransitionKey.OBSERVATION]  # pyright: ignore[reportArgumentType]
    progress = scorer.model.compute_reward(batch).numpy()
    names = {name.removeprefix("observation.robometer."): value for name, value in batch.items()}
    names.pop(scorer.encoder.image_key)
    with torch.no_grad():
        _, logits = scorer.model._compute_rbm_logits(names)
    told = decode_progress_outputs(None, logits, is_discrete_mode=True)["success_probs"]
    return progress, np.array(told)[:, -1]


@pytest.mark.parametrize("frames", [1, 2, 12])
def test_robometer_scores_as_lerobot_does(robometer: RobometerScorer, frames: int) -> None:
    clip = clip_of(frames, size=(64, 96))
    prefixes = list(range(1, frames + 1))
    found = robometer.score(clip, prefixes, TASKS)
    assert found.success is not None
    images = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255
    shown = _build_subsample_indices(frames, 8)
    for row, task in enumerate(TASKS):
        expected, success = ask_lerobot(robometer, torch.stack([images[i] for i in shown]), task)
        np.testing.assert_allclose(np.exp(found.true[row]), expected, atol=1e-4)
        np.testing.assert_allclose(np.exp(found.false[row]), 1 - expected, atol=1e-4)
        np.testing.assert_allclose(np.exp(found.success[row]), success, atol=1e-4)
    assert frames < 12 or np.ptp(np.exp(found.true)) > 0.05
    assert (found.true[0] != found.true[1]).any()  # it reads the task


def test_robometer_encodes_every_image_once(robometer: RobometerScorer) -> None:
    clip, patches = clip_of(24), []
    tower = robometer.model.model.model.visual
    hook = tower.register_forward_pre_hook(lambda _, given: patches.append(len(given[0])))
    expected = robometer.score(clip, [5, 14, 24], TASKS)
    picked = robometer.frames_wanted(np.array([4, 13, 23]))
    assert sum(patches) == len(picked) * (64 // 16) ** 2
    whole = robometer.chunk_tokens
    robometer.chunk_tokens = 1  # one prefix a forward
    try:
        alone = robometer.score(clip, [5, 14, 24], TASKS)
    finally:
        robometer.chunk_tokens = whole
        hook.remove()
    np.testing.assert_allclose(alone.true, expected.true, atol=1e-5)
    assert robometer.shown_size(clip) == (64, 64)


@pytest.mark.slow
def test_robometer_sees_the_frames_of_a_recording_that_lerobot_would(
    robometer: RobometerScorer, record_dataset: Callable[..., Path]
) -> None:
    """Half a second between two prefixes, and of each the images spread over all its frames."""
    root = record_dataset(lengths=(9, 27), cameras=("front",), fps=10)
    dataset = LeRobotDataset("local/x", root=root)
    for scoring in (ScoringConfig(), ScoringConfig(prefixes=3)):
        (found,) = score_episode(robometer, dataset, 1, scoring=scoring)
        (plain,) = score_episode(robometer, dataset, 1, scoring=scoring, control="static")
        assert found.frame_index.tolist() == plain.frame_index.tolist()
        assert len(found.frame_index) == (7 if scoring.prefixes == "every" else 3)
        spread = _build_subsample_indices(27, 8)
        images = torch.stack([dataset[9 + i][CAMERA] for i in range(27)])
        videos = torch.stack([images[spread[end]] for end in found.frame_index])
        expected, _ = ask_lerobot(robometer, videos, TASKS[0])
        np.testing.assert_allclose(np.exp(found.log_prob_true), expected, atol=1e-4)
        still = torch.stack([images[0].expand(8, -1, -1, -1)] * len(plain.frame_index))
        expected, _ = ask_lerobot(robometer, still, TASKS[0])
        np.testing.assert_allclose(np.exp(plain.log_prob_true), expected, atol=1e-4)


def test_robometer_that_shows_a_video_is_asked_with_its_own_code(
    tiny_vlm: Path, tmp_path: Path
) -> None:
    pytest.importorskip("qwen_vl_utils", reason="Robometer needs the extra robometer")
    options = {"use_multi_image": False, "use_per_frame_progress_token": False}
    path = build_robometer(tmp_path / "video", tiny_vlm, **options)
    scorer = load("robometer", path)
    assert isinstance(scorer, PrefixRewardScorer)


@pytest.mark.parametrize("threshold", [float("-inf"), -7.0])
def test_lerobots_topreward_scores_as_one_pass_per_prefix(
    tiny_vlm: Path, tmp_path: Path, threshold: float
) -> None:
    scorer = load(
        "topreward", build_topreward(tmp_path / "a", tiny_vlm, success_threshold=threshold)
    )
    engine = ScoringConfig(engine="per-prefix")
    ours = load_scorer(VlmConfig(vlm=str(tiny_vlm), device="cpu"), engine)
    clip, prefixes = clip_of(9), [1, 2, 5, 9]
    found, expected = (each.score(clip, prefixes, TASKS) for each in (scorer, ours))
    np.testing.assert_allclose(found.true, expected.true, atol=1e-4)
    assert np.ptp(found.true) > 0.1
    np.testing.assert_allclose(np.exp(found.true) + np.exp(found.false), 1, atol=1e-6)
    assert found.success is None


def test_a_classifier_gives_its_probability_of_the_last_image(tmp_path: Path) -> None:
    scorer = load("reward_classifier", build_classifier(tmp_path / "a", size=64))
    clip = clip_of(6)
    found = scorer.score(clip, [1, 3, 6], TASKS)
    assert (found.true[0] == found.true[1]).all()  # it reads no task
    np.testing.assert_array_equal(found.true, found.success)
    images = torch.from_numpy(clip.frames[[0, 2, 5]]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        scaled = [float(scorer.value({CAMERA: (image[None] - 0.4) / 0.2})) for image in images]
        raw = [float(scorer.value({CAMERA: image[None]})) for image in images]
    np.testing.assert_allclose(np.exp(found.true[0]), scaled, atol=1e-5)
    assert np.abs(np.array(raw) - scaled).max() > 1e-3


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose packages are installed, as long as the test runs."""
    folder, before = tmp_path / "site", {*sys.modules}
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    LeRobotConfig.get_known_choices().pop("lamp", None)
    for name in {*sys.modules} - before:
        if "lamp" in name:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("module", "distribution", "name"),
    [
        ("lerobot_reward_lamp", "lerobot-reward-lamp", "lamp"),
        ("lerobot_policy_lamp", "lerobot_policy_lamp", "lamp"),
        ("my_lamps", None, "my_lamps:lamp"),
    ],
)
def test_a_model_of_another_package_judges_by_its_name(
    site: Path, tmp_path: Path, module: str, distribution: str | None, name: str
) -> None:
    install_lamp(site, module=module, distribution=distribution)
    config = RewardModelConfig(reward_model=name, reward_path=str(tmp_path / "lamp"))
    with pytest.raises(UserError, match="neither a folder here nor a Hub id"):
        identify_judge(CPU, reward_model=config)
    identity = identify_judge(
        CPU, reward_model=replace(config, reward_path=str(build_lamp(tmp_path / "lamp")))
    )
    assert (identity.reward_model, identity.name, identity.dtype) == ("lamp", "lamp", "float32")
    clip = clip_of(5)
    found = load(name, tmp_path / "lamp").score(clip, [1, 4, 5], TASKS)
    light = clip.frames[[0, 3, 4]].mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(np.exp(found.true), [light, light], atol=1e-6)
    assert found.success is None
    assert len(identify_judge(CPU, reward_model=config).revision) == 40


def test_a_value_that_is_no_progress_is_refused(site: Path, tmp_path: Path) -> None:
    install_lamp(site, module="my_lamps", distribution=None)
    identify = RewardModelConfig(reward_model="my_lamps:lamp", reward_path=str(tmp_path))
    with pytest.raises(UserError, match=r"has no config\.json"):
        identify_judge(CPU, reward_model=identify)
    dark = replace(clip_of(4), frames=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    found = load("lamp", build_lamp(tmp_path / "one")).score(dark, [1, 4], TASKS)
    np.testing.assert_allclose(np.exp(found.true), LEAST, rtol=1e-4)  # finite
    bright = load("lamp", build_lamp(tmp_path / "three", gain=3.0))
    with pytest.raises(UserError, match=r"must give a progress of 0\.\.1; it gave values of"):
        bright.score(clip_of(4), [1, 4], TASKS)
    broken = load("lamp", build_lamp(tmp_path / "nan", gain=float("inf")))
    with pytest.raises(EpisodeError, match="are not finite"):
        broken.score(clip_of(4), [1, 4], TASKS)


def test_a_broken_package_is_said_where_its_model_is_wanted(site: Path, tmp_path: Path) -> None:
    install_lamp(site, module="lerobot_reward_lamp", distribution="lerobot-reward-lamp")
    (site / "lerobot_reward_lamp" / "__init__.py").write_text("raise OSError('no oil')\n")
    config = RewardModelConfig(reward_model="lamp", reward_path=str(tmp_path))
    with pytest.raises(UserError, match=r"not registered.*lerobot_reward_lamp cannot .* no oil"):
        identify_judge(CPU, reward_model=config)
    config = replace(config, reward_model="lerobot_reward_lamp:lamp")
    with pytest.raises(UserError, match="cannot be imported from lerobot_reward_lamp: no oil"):
        identify_judge(CPU, reward_model=config)


def test_another_checkpoint_is_another_judge(tiny_vlm: Path, tmp_path: Path) -> None:
    path = build_topreward(tmp_path / "a", tiny_vlm)
    config = RewardModelConfig(reward_model="topreward", reward_path=str(path))
    first = identify_judge(CPU, reward_model=config)
    (path / "README.md").write_text("Mine\n")
    assert identify_judge(CPU, reward_model=config) == first
    moved = shutil.move(path, tmp_path / "b" / "a")
    config = replace(config, reward_path=str(moved))
    assert replace(identify_judge(CPU, reward_model=config), folder=None) == replace(
        first, folder=None
    )
    vlm = shutil.copytree(tiny_vlm, tmp_path / "vlm")
    with (vlm / "model.safetensors").open("ab") as file:
        file.write(b" ")
    build_topreward(tmp_path / "c" / "a", vlm)
    config = replace(config, reward_path=str(tmp_path / "c" / "a"))
    other = identify_judge(CPU, reward_model=config)
    assert other.name == first.name
    assert other.revision.partition("+")[2] != first.revision.partition("+")[2]


def damage(path: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", b"", "has no usable config.json"),
        ("config.json", b"[" * 100_000, "has no usable config.json"),
        ("config.json", b'{"type": "robometer"}', "Robometer|Qwen|couldn't connect|not.*type"),
        ("config.json", b'{"type": "lantern"}', "has no usable config.json.*lantern"),
        ("config.json", b'{"gain": 1}', "has no usable config.json"),
        ("config.json", b"\xff\xfe", "has no usable config.json"),
        ("model.safetensors", None, "cannot be loaded"),
        ("model.safetensors", b"\xff" * 64, "cannot be loaded"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", r"cannot be loaded.*[Mm]issing"),
        ("policy_preprocessor.json", b"{}", "cannot be loaded"),
        ("policy_preprocessor.json", None, "scales images by statistics"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = build_classifier(tmp_path / "a", size=64)
    if name == "policy_preprocessor.json":
        (path / "classifier_preprocessor.json").rename(path / name)
    damage(path, name, content)
    with pytest.raises(UserError, match=said) as refused:
        load("reward_classifier", path)
    assert len(str(refused.value)) < 700


def test_a_model_that_reads_more_than_a_video_is_refused(tmp_path: Path) -> None:
    path = build_classifier(tmp_path / "two", size=64, cameras=(CAMERA, f"{CAMERA}2"))
    for name, given, said in (
        ("reward_classifier", path, f"reads {CAMERA}, {CAMERA}2; a label is made of one camera"),
        ("sarm", tmp_path / "sarm", "reads observation.images.top, observation.state; a label"),
        ("robometer", path, "holds a reward model of the type reward_classifier"),
        ("topreward", None, "has no checkpoint of its own; give `reward_path=FOLDER`"),
        ("nonsense", path, "is not registered with LeRobot; there is: .*sarm"),
        ("json:nonsense", path, "is not registered"),
        ("no_such:lamp", path, "cannot be imported from no_such"),
    ):
        if name == "sarm":
            given = tmp_path / "sarm"
            given.mkdir()
            make_reward_model_config("sarm", device="cpu")._save_pretrained(given)
        config = RewardModelConfig(
            reward_model=name, reward_path=None if given is None else str(given)
        )
        with pytest.raises(UserError, match=said):
            identify_judge(CPU, reward_model=config)


def test_a_checkpoint_of_the_hub_is_its_commit(tiny_vlm: Path, tmp_path: Path) -> None:
    commit, cached = "0123456789" * 4, Path(HF_HUB_CACHE) / "models--me--meter"
    build_classifier(cached / "snapshots" / commit, size=64)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    config = RewardModelConfig(reward_model="reward_classifier", reward_path="me/meter")
    try:
        identity = identify_judge(CPU, reward_model=config)
        assert (identity.name, identity.revision, identity.folder) == ("me/meter", commit, None)
        # A branch that has moved on since changes nothing.
        (cached / "refs" / "main").write_text("f" * 40)
        scorer = load_scorer(CPU, identity=identity, reward_model=config)
        assert scorer.score(clip_of(3), [1, 3], TASKS[:1]).true.shape == (1, 2)
        with pytest.raises(UserError, match="`reward_path` 'me/meter' is not"):
            identify_judge(CPU, reward_model=config)
    finally:
        shutil.rmtree(cached)
