"""Against a real vLLM on this CPU: exact means that its scores are the built-in scorer's.

It cannot be installed beside LeRobot. The environment variable LEROBOT_TOPREWARD_VLLM names the
`vllm` command of another environment; docs/guide/server.md says how one for a CPU is made.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.serve_args.command import vllm_command
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.server.config import ServerConfig
from lerobot_topreward.vlm.server.probe import identify_served
from lerobot_topreward.vlm.server.scorer import ServerScorer

VLLM = os.environ.get("LEROBOT_TOPREWARD_VLLM", "")
INSTRUCTIONS = ("pick up the red cube", "fold the towel, then öffne die Schublade", "x")
MODELS = {  # vLLM's attention on a CPU knows no smaller heads
    "dense": TinyConfig(head_dim=32, spread=0.2),
    "mixture": TinyConfig(head_dim=32, experts=4, spread=0.2, seed=4),
}
CASES = 12  # of each model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not VLLM or shutil.which(VLLM) is None,
        reason="LEROBOT_TOPREWARD_VLLM does not name a vllm command",
    ),
]


@dataclass(frozen=True)
class Served:
    folder: Path
    url: str


@pytest.fixture(scope="module", params=MODELS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vllm") / request.param
    build_tiny_vlm(folder, config=MODELS[request.param], text=" ".join(INSTRUCTIONS))
    store_as_on_the_hub(folder)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = vllm_command(
        str(folder), video="exact", max_images=64, max_tokens=8192, dtype="float32", port=port
    )
    command.append("--enforce-eager")  # compiling takes minutes on a CPU
    bin_folder = Path(shutil.which(VLLM) or VLLM).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    with log.open("w") as out:
        # By a shell, as what serve-args prints is meant.
        process = subprocess.Popen(
            ["sh", "-c", f"exec {shlex.join(command)}"],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, url, log)
        yield Served(folder, url)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def store_as_on_the_hub(folder: Path) -> None:
    """Turn experts' weights around: transformers saves those of a new model as it holds them."""
    weights = load_file(folder / "model.safetensors")
    turned = {
        name: tensor.transpose(1, 2).contiguous() if ".experts." in name else tensor
        for name, tensor in weights.items()
    }
    save_file(turned, folder / "model.safetensors", metadata={"format": "pt"})


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 900
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(1)


def make_clips() -> list[Clip]:
    rng = np.random.default_rng(7)
    clips = []
    for case in range(CASES):
        images = (1, 2, 60, 59)[case] if case < 4 else int(rng.integers(1, 61))
        height, width = (int(side) for side in rng.integers(40, 130, 2))
        step = 1 if case in (0, 3) else int(rng.integers(1, 30))  # there, every frame is shown
        fps = float(rng.choice([0.7, 10.0, 29.97, 30.0]))
        frames = rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8)
        segment = Segment(0, 0, (images - 1) * step + 1 + int(rng.integers(0, step)), "")
        index = np.arange(images)
        clips.append(Clip(segment, fps, frames, index, index * step))
    return clips


def test_exact_mode_is_exact(served: Served) -> None:
    config = ServerConfig(server=(served.url,))
    identity = identify_served(VlmConfig(vlm=str(served.folder)), config)
    assert identity.served is not None
    assert (identity.served.video, identity.served.template) == ("exact", "paper")
    scorer = ServerScorer(config, identity)
    built_in = OnePassScorer(load_vlm(VlmConfig(vlm=str(served.folder), device="cpu")))
    clips = make_clips()
    assert scorer.try_out(clips[2]) == []
    worst = 0.0
    for case, clip in enumerate(clips):
        images = len(clip.shown)
        prefixes = sorted({1, images // 2 + 1, max(1, images - 1), images})
        texts = INSTRUCTIONS[: 1 + case % 3]
        ours, theirs = (each.score(clip, prefixes, texts) for each in (scorer, built_in))
        for name in ("true", "false"):
            worst = max(worst, float(np.abs(getattr(ours, name) - getattr(theirs, name)).max()))
    scorer.close()
    assert worst < 1e-4


def test_image_mode_shares_the_server(served: Served) -> None:
    config = ServerConfig(server=(served.url,), server_video="images")
    identity = identify_served(VlmConfig(vlm=str(served.folder)), config)
    scorer = ServerScorer(config, identity)
    (clip,) = [clip for clip in make_clips() if len(clip.shown) == 2]
    found = scorer.score(clip, [1, 2], INSTRUCTIONS[:1])
    scorer.close()
    assert np.isfinite(found.true).all()
    assert (found.true <= 0).all()
