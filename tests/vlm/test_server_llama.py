"""Against a real llama.cpp on this CPU: image mode gives what the model itself says.

The environment variable LEROBOT_TOPREWARD_LLAMA names a Python with llama.cpp's server in it
(``pip install xllamacpp gguf``); docs/guide/server.md has it. It need not be this one.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from label_process import finish, shards, start, wait_for_shards
from PIL import Image

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.serve_args.command import CHAT_TEMPLATE
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.prompts import ANSWERS, question
from lerobot_topreward.vlm.server import images
from lerobot_topreward.vlm.server.config import ServerConfig
from lerobot_topreward.vlm.server.probe import identify_served
from lerobot_topreward.vlm.server.scorer import ServerScorer

LLAMA = os.environ.get("LEROBOT_TOPREWARD_LLAMA", "")
SCRIPT = Path(__file__).parents[1] / "llama_server.py"
INSTRUCTIONS = ("pick up the red cube", "fold the towel, then öffne die Schublade", "x")
SIZES = ((96, 128), (128, 96), (160, 224))  # multiples of 32, which llama.cpp does not resize
# Its GELU goes by a table in float16, and its patches are convolved in float16.
ROUNDING = 0.01  # nats

RecordDataset = Callable[..., Path]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not LLAMA or shutil.which(LLAMA) is None,
        reason="LEROBOT_TOPREWARD_LLAMA does not name a Python with xllamacpp",
    ),
]


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    url: str
    folder: Path

    def connect(self) -> ServerScorer:
        config = ServerConfig(server=(self.url,))
        return ServerScorer(config, identify_served(VlmConfig(vlm=str(self.folder)), config))


@contextmanager
def serve(folder: Path, *, tokens: int = 8192, port: int | None = None) -> Iterator[Running]:
    if port is None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
    with (folder / "llama.log").open("w") as log:
        process = subprocess.Popen(
            [LLAMA, str(SCRIPT), str(folder), str(port), str(tokens)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 200
    try:
        while True:
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, (folder / "llama.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Running(process, url, folder)
    finally:
        process.kill()
        process.wait()


def build(folder: Path, *, paper: bool = False, blind: bool = False) -> Path:
    """A tiny checkpoint as the script serves it."""
    config = TinyConfig(head_dim=32, spread=0.2)
    build_tiny_vlm(folder, config=config, text=" ".join(INSTRUCTIONS))
    if paper:
        (folder / "template.jinja").write_text(CHAT_TEMPLATE)
    if blind:
        (folder / "processor_config.json").unlink()
    return folder


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(build(tmp_path_factory.mktemp("llama") / "chat")) as running:
        yield running


@pytest.fixture(scope="module")
def vlm(chat: Running) -> Vlm:
    return load_vlm(VlmConfig(vlm=str(chat.folder), device="cpu"))


def make_clip(count: int, size: tuple[int, int]) -> Clip:
    frames = np.random.default_rng(count).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    index = np.arange(count)
    return Clip(Segment(0, 0, 7 * count, ""), 10.0, frames, index, 7 * index)


def log_probs(vlm: Vlm, clip: Clip, shown: int, instruction: str, *, paper: bool) -> np.ndarray:
    """What the model says of the next token, by transformers: images, not a video."""
    content: list[dict[str, str]] = []
    for time_s in (clip.frame_indices[:shown] / clip.fps).tolist():
        content += [{"type": "text", "text": f"<{time_s:.1f} seconds>"}, {"type": "image"}]
    content.append({"type": "text", "text": question(instruction)})
    text = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    if paper:
        text = text[: text.index(question(instruction)) + len(question(instruction))]
    inputs = vlm.processor(
        text=[text],
        images=[Image.fromarray(clip.frames[index]) for index in clip.shown[:shown]],
        return_mm_token_type_ids=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        logits = vlm.model(**inputs, logits_to_keep=1).logits[0, -1]
    return torch.log_softmax(logits, dim=-1).numpy()


def spellings(vlm: Vlm, answer: str) -> list[int]:
    """Every token that says so."""
    tokenizer = vlm.processor.tokenizer
    return [
        token
        for token in range(len(tokenizer))
        if tokenizer.decode([token]).strip().casefold() == answer.strip().casefold()
    ]


def expect(
    vlm: Vlm, clip: Clip, prefixes: Sequence[int], *, paper: bool = False
) -> dict[str, np.ndarray]:
    """Both answers' log-probabilities, as `LogProbs` has them."""
    rows = np.array(
        [[log_probs(vlm, clip, n, text, paper=paper) for n in prefixes] for text in INSTRUCTIONS]
    )
    return {
        answer.strip().casefold(): np.logaddexp.reduce(rows[..., spellings(vlm, answer)], axis=-1)
        for answer in ANSWERS
    } | {"all": rows}


@pytest.mark.parametrize("template", ["chat", "paper"])
def test_scores_are_the_models_own(chat: Running, vlm: Vlm, tmp_path: Path, template: str) -> None:
    def compare(running: Running) -> None:
        config = ServerConfig(server=(running.url,))
        identity = identify_served(VlmConfig(vlm=str(running.folder)), config)
        assert identity.served is not None
        assert identity.served.server.startswith("llama.cpp ")
        assert (identity.served.video, identity.served.template) == ("images", template)
        scorer = ServerScorer(config, identity)
        for count, size in zip((1, 4, 12), SIZES, strict=True):
            clip = make_clip(count, size)
            assert scorer.try_out(clip) == []
            prefixes = sorted({1, count // 2 + 1, count})
            expected = expect(vlm, clip, prefixes, paper=template == "paper")
            found = scorer.score(clip, prefixes, INSTRUCTIONS)
            assert found.true_censored is None  # llama.cpp returns as many as it is asked for
            np.testing.assert_allclose(found.true, expected["true"], atol=ROUNDING)
            np.testing.assert_allclose(found.false, expected["false"], atol=ROUNDING)
        scorer.close()

    if template == "chat":
        compare(chat)
    else:
        with serve(build(tmp_path / "paper", paper=True)) as running:
            compare(running)


def test_answers_below_the_likeliest_are_bounds(
    chat: Running, vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap = 200  # half of the vocabulary, where others return 20 of a large one
    monkeypatch.setattr(images, "UNCAPPED", cap)
    clip = make_clip(12, SIZES[0])
    prefixes = list(range(1, 13))
    expected = expect(vlm, clip, prefixes)
    scorer = chat.connect()
    found = scorer.score(clip, prefixes, INSTRUCTIONS)
    scorer.close()
    last = np.sort(expected["all"], axis=-1)[..., -cap]  # the least likely that is returned
    for name, answer in zip(("true", "false"), ANSWERS, strict=True):
        flags = getattr(found, f"{name}_censored")
        alone = expected["all"][..., spellings(vlm, answer)].max(axis=-1)
        sure = np.abs(alone - last) > 2 * ROUNDING
        np.testing.assert_array_equal(flags[sure], (alone < last)[sure])
        bounds = getattr(found, name)[flags]
        np.testing.assert_allclose(bounds, last[flags], atol=2 * ROUNDING)
    flags = np.array([found.true_censored, found.false_censored])
    assert flags.any()
    assert not flags.all()


def test_the_first_bytes_of_a_character_hide_no_answer(chat: Running, vlm: Vlm) -> None:
    def starts_a_character(index: int) -> bool:
        word = vlm.processor.tokenizer.convert_ids_to_tokens(index)
        return (
            len(word) == 1
            and vlm.processor.tokenizer.decode([index]) == "\N{REPLACEMENT CHARACTER}"
        )

    clip = make_clip(1, SIZES[0])
    texts = (f"move {a} to {b}" for a in range(20) for b in range(20))
    text = next(
        text
        for text in texts
        if starts_a_character(int(log_probs(vlm, clip, 1, text, paper=False).argmax()))
    )
    scorer = chat.connect()
    found = scorer.score(clip, [1], [text])
    scorer.close()
    alone = log_probs(vlm, clip, 1, text, paper=False)[spellings(vlm, ANSWERS[0])]
    np.testing.assert_allclose(found.true[0, 0], np.logaddexp.reduce(alone), atol=ROUNDING)


def test_a_model_without_its_vision_part_is_found_out(tmp_path: Path) -> None:
    with serve(build(tmp_path / "blind", blind=True)) as running:
        scorer = running.connect()
        with pytest.raises(UserError, match=r"sees no images \(500: .*mmproj.*serve one that does"):
            scorer.try_out(make_clip(2, SIZES[0]))
        scorer.close()


def test_a_prompt_that_is_too_long_fails_its_episode(tmp_path: Path) -> None:
    with serve(build(tmp_path / "short"), tokens=512) as running:
        scorer = running.connect()
        with pytest.raises(EpisodeError, match=r"longer than .* takes \(400: .*context size"):
            scorer.score(make_clip(40, SIZES[0]), [40], ["x"])
        assert np.isfinite(scorer.score(make_clip(2, SIZES[0]), [2], ["x"]).true).all()
        scorer.close()


def scores(output: Path) -> dict[str, np.ndarray]:
    found = sorted(output.glob("topreward/*/episode_*.parquet"))
    return {path.name: pq.read_table(path)["log_prob_true"].to_numpy() for path in found}


def test_a_server_that_is_killed_and_started_again_loses_nothing(
    record_dataset: RecordDataset, tmp_path: Path
) -> None:
    folder = build(tmp_path / "killed")
    root = record_dataset(lengths=(40,) * 30, cameras=("front",), size=SIZES[0])
    with serve(folder) as running:
        assert finish(start(root, folder, tmp_path / "whole", running.url))[0] == 0
    undisturbed = scores(tmp_path / "whole")
    output = tmp_path / "out"
    with serve(folder) as running:
        process = start(root, folder, output, running.url)
        wait_for_shards(process, output, 2)
        running.process.kill()
        code, said = finish(process, limit_s=100)
    assert code == 2
    assert "no server is left" in said
    kept = shards(output)
    assert 2 <= len(kept) < 30
    with serve(folder) as running:
        assert finish(start(root, folder, output, running.url))[0] == 0
    again = shards(output)
    assert {name: again[name] for name in kept} == kept
    found = scores(output)
    assert found.keys() == undisturbed.keys()
    # Not bit by bit: what its cache holds decides in which pieces it reads a prompt.
    for name, values in undisturbed.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3)
