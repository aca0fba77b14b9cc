"""Image mode: any server, the likeliest tokens, and answers that are not among them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from vllm_server import Fault, Reply, made_up, serve

from lerobot_topreward.cli import main
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import score_clip
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm
from lerobot_topreward.vlm.prompts import question
from lerobot_topreward.vlm.server.config import ServerConfig
from lerobot_topreward.vlm.server.images import read_answers
from lerobot_topreward.vlm.server.probe import identify_served
from lerobot_topreward.vlm.server.scorer import ServerScorer

RecordDataset = Callable[..., Path]


def connect(url: str, **options: Any) -> ServerScorer:
    config = ServerConfig(server=(url,), server_video="images", **options)
    return ServerScorer(config, identify_served(VlmConfig(vlm="tiny"), config))


def make_clip(images: int) -> Clip:
    rng = np.random.default_rng(images)
    frames = rng.integers(0, 256, (images, 64, 96, 3), dtype=np.uint8)
    index = np.arange(images)
    return Clip(Segment(0, 0, 3 * images, "pick up"), 10.0, frames, index, 3 * index)


def reading(**logprobs: float) -> Any:
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return read_answers(made_up({"model": "x"}, top))


def test_every_way_to_write_an_answer_counts() -> None:
    found = reading(
        **{" True": np.log(0.2), "True": np.log(0.1), "true": np.log(0.05), "no": -1, " FALSE": -2}
    )
    assert np.isclose(np.exp(found.true), 0.35)
    assert np.isclose(found.false, -2)
    assert not found.true_censored
    assert not found.false_censored


def test_an_answer_that_is_not_returned_is_bounded_by_what_is() -> None:
    found = reading(**{" True": -0.5, "Yes": -3.0, "Trueish": -6.0})
    assert (found.true, found.false) == (-0.5, -6.0)
    assert (found.true_censored, found.false_censored) == (False, True)


def test_images_equal_a_video_that_shows_each_twice(tiny_vlm: Path, served_vlm: Vlm) -> None:
    clip = make_clip(3)
    with serve(served_vlm) as state:
        scorer = connect(state.url)
        found = scorer.score(clip, [1, 3], ["pick up"])
        scorer.close()
    for column, shown in enumerate((1, 3)):
        twice = np.repeat(clip.frames[:shown], 2, axis=0)
        inputs = served_vlm.processor(
            text=[served_vlm.prologue + "<|video_pad|>" + question("pick up")],
            videos=[torch.from_numpy(twice).permute(0, 3, 1, 2)],
            video_metadata=[
                {
                    "total_num_frames": 9,
                    "fps": 10.0,
                    "frames_indices": np.repeat(clip.frame_indices[:shown], 2).tolist(),
                }
            ],
            do_sample_frames=False,
            do_resize=False,
            return_mm_token_type_ids=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = served_vlm.model(**inputs, logits_to_keep=1).logits[0, -1]
        likeliest = torch.log_softmax(logits, dim=-1).topk(20)
        words = [served_vlm.processor.tokenizer.decode([i]) for i in likeliest.indices.tolist()]
        for answer, values in (("true", found.true), ("false", found.false)):
            own = [
                value
                for word, value in zip(words, likeliest.values.tolist(), strict=True)
                if word.strip().casefold() == answer
            ]
            expected = np.logaddexp.reduce(own) if own else likeliest.values[-1].item()
            np.testing.assert_allclose(values[0, column], expected, atol=1e-4)


def test_the_processor_is_not_needed_and_images_may_be_smaller() -> None:
    with serve(None, owned_by="sglang", version=None) as state:
        scorer = connect(state.url)
        assert scorer.shown_size(make_clip(2)) == (64, 96)
        scorer.score(make_clip(2), [2], ["pick up"])
        scorer.close()
    (body,) = state.bodies
    parts = body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"] * 2 + ["text"]
    assert [parts[0]["text"], parts[2]["text"]] == ["<0.0 seconds>", "<0.3 seconds>"]
    assert body["top_logprobs"] == 20
    assert not {"add_generation_prompt", "continue_final_message"} & body.keys()


@pytest.mark.parametrize("ending", ["", "<|im_end|>\n"])
def test_llama_is_asked_for_more_and_its_template_is_looked_at(ending: str) -> None:
    top = [{"id": 5, "token": "", "bytes": [226], "logprob": -0.5}]  # half a character
    top += [{"id": 0, "token": "", "bytes": [], "logprob": -2.0}]  # a control token
    top += [{"id": 7, "token": " True", "bytes": [32], "logprob": -3.0}]
    top += [{"id": 8, "token": "x", "bytes": [120], "logprob": -3.4028234663852886e38}]
    pages = {
        "/props": {"build_info": "b6789-0123abc"},
        "/apply-template": {"prompt": f"<|im_start|>user\n{question('x')}{ending}"},
    }
    answers = lambda _, body: Reply(body=made_up(body, top))  # noqa: E731
    with serve(None, owned_by="llamacpp", version=None, pages=pages, fault=answers) as state:
        config = ServerConfig(server=(state.url,))
        identity = identify_served(VlmConfig(vlm="tiny"), config)
        scorer = ServerScorer(config, identity)
        found = scorer.score(make_clip(2), [2], ["pick up"])
        scorer.close()
    assert identity.served is not None
    assert identity.served.server == "llama.cpp b6789-0123abc"
    assert identity.served.template == ("chat" if ending else "paper")
    (body,) = state.bodies
    assert body["top_logprobs"] > 20
    assert "grammar" in body
    assert "continue_final_message" not in body
    assert body.get("add_generation_prompt") is (None if ending else False)
    assert found.true.item() == -3.0
    assert found.false.item() == -9999.0
    assert found.false_censored is not None
    assert found.false_censored.all()


def test_servers_of_two_templates_are_not_mixed() -> None:
    pages = [{"/apply-template": {"prompt": question("x") + end}} for end in ("", "<|im_end|>")]
    with (
        serve(None, owned_by="llamacpp", pages=pages[0]) as one,
        serve(None, owned_by="llamacpp", pages=pages[1]) as other,
    ):
        config = ServerConfig(server=(one.url, other.url))
        with pytest.raises(UserError, match="different chat templates"):
            identify_served(VlmConfig(vlm="tiny"), config)


def test_a_server_that_loads_its_model_is_not_ready() -> None:
    words = r"is not ready \(503\); wait until it has loaded"
    with serve(None, loading=True) as state, pytest.raises(UserError, match=words):
        connect(state.url)


def test_a_model_that_sees_no_images_is_not_asked_again() -> None:
    said = "image input is not supported - hint: you may need to provide the mmproj"

    def refuse(number: int, body: Mapping[str, Any]) -> Reply:
        return Reply(500, {"error": {"code": 500, "message": said, "type": "server_error"}})

    with serve(None, owned_by="llamacpp", fault=refuse) as state:
        scorer = connect(state.url)
        with pytest.raises(UserError, match=r"sees no images \(500: image input is not supported"):
            scorer.try_out(make_clip(2))
        scorer.close()
        assert len(state.bodies) == 1


def censored(share: float) -> Fault:
    """True is not among the tokens of this share of the answers."""

    def answer(number: int, body: Mapping[str, Any]) -> Reply:
        top = [{"token": " True", "logprob": -1.0 - number / 100}]
        top += [{"token": " False", "logprob": -3.0}, {"token": "x", "logprob": -8.0}]
        rare = (number * share) % 1 < share
        return Reply(body=made_up(body, top[1:] if rare else top))

    return answer


def test_censored_scores_go_along_with_their_prefixes() -> None:
    with serve(None, fault=censored(0.5)) as state:
        scorer = connect(state.url, concurrency=1)
        (scores,) = score_clip(make_clip(4), scorer, ["none"], None)
        scorer.close()
    assert scores.true_censored is not None
    assert scores.false_censored is not None
    assert 1 <= scores.true_censored.sum() <= 3
    np.testing.assert_array_equal(scores.log_prob_true == -8, scores.true_censored)
    assert not scores.false_censored.any()


def label(root: Path, url: str, output: Path) -> int:
    options = ["--root", str(root), "--vlm", "tiny", "--server", url, "--output", str(output)]
    with pytest.raises(SystemExit) as stopped:
        main(["label", *options, "--server-video", "images", "--concurrency", "1"])
    return int(stopped.value.code or 0)


def test_censored_scores_are_stored_counted_and_said(
    record_dataset: RecordDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = record_dataset(lengths=(30, 40), cameras=("front",))
    with serve(None, fault=censored(0.25)) as state:
        assert label(root, state.url, tmp_path / "out") == 0
        asked = len(state.bodies)
        said = " ".join(capsys.readouterr().out.split())
        assert label(root, state.url, tmp_path / "out") == 0
        assert len(state.bodies) == asked
        again = " ".join(capsys.readouterr().out.split())
    tables = [pq.read_table(p) for p in (tmp_path / "out").glob("topreward/*/episode_*.parquet")]
    assert all(table.column_names[-2:] == ["true_censored", "false_censored"] for table in tables)
    flags = np.concatenate([table["true_censored"].to_numpy() for table in tables])
    assert 0 < flags.sum() < len(flags) / 2
    words = f"True was below the likeliest tokens that the server returns in {flags.sum()} of "
    assert words + str(len(flags)) in said
    assert words in again
    assert "asks for fewer" not in said


@pytest.mark.slow
def test_a_reward_of_bounds_is_refused(
    record_dataset: RecordDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = record_dataset(lengths=(9,) * 40, cameras=("front",))
    with serve(None, fault=censored(0.9)) as state:
        assert label(root, state.url, tmp_path / "out") == 2
        assert len(state.bodies) < 40 * 3  # it stops while there is something to save
        error = " ".join(capsys.readouterr().err.split())
        assert "so no reward can be made of them" in error
        assert "--server-video exact" in error
        few = record_dataset(lengths=(12, 12), cameras=("front",))
        assert label(few, state.url, tmp_path / "few") == 2
    assert not (tmp_path / "few" / "topreward_progress.parquet").exists()
