"""The options of a job, and what cannot go to another machine: refused before the Hub is asked."""

import json
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lerobot_topreward.cli import parse
from lerobot_topreward.config import as_arguments
from lerobot_topreward.errors import UserError
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.scoring.launch.config import JobConfig
from lerobot_topreward.scoring.launch.job_plan import _installed, refuse_local

JOB = ["--repo-id=a/b", "--job.target=a10g-small"]


@pytest.mark.slow
def test_options_are_those_of_lerobot() -> None:
    from lerobot.configs.default import JobConfig as Theirs

    theirs, ours = Theirs(), JobConfig()
    for item in fields(Theirs):
        if item.name != "image":  # theirs has LeRobot, not us
            mine, default = getattr(ours, item.name), getattr(theirs, item.name)
            assert mine == (tuple(default) if isinstance(default, list) else default)
    for target in (None, "local", "a10g-small"):
        assert JobConfig(target=target).is_remote == Theirs.is_remote_target(target)


@pytest.mark.parametrize(
    ("options", "detach"),
    [
        ([], False),
        (["--job.detach"], True),
        (["--job.detach=true"], True),
        (["--job.detach=false"], False),
        (["--job.no-detach"], False),
        (["--no-job.detach"], False),
    ],
)
def test_flags_are_spelled_as_in_lerobot_or_as_ours(options: list[str], detach: bool) -> None:
    assert parse(LabelConfig, "label", [*JOB, *options]).job.detach == detach


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--job.targt=x"], "did you mean --job.target?"),
        (["--job-target=x"], "did you mean --job.target?"),
        (["--job=x"], "is no option"),
        (["--job.detach=perhaps"], "is true or false"),
        (["--push-to-hub=true"], "takes no value"),
        (["--job.timeout=soon"], "like 90m, 4h or 2d; got 'soon'"),
        (["--job.timeout=0h"], "like 90m"),
        (["--job.timeout=-1h"], "like 90m"),
        (["--job.timeout=infd"], "like 90m"),
        (["--job.tags", '["lelab"]'], "one after the other"),
        (["--job.image=x y"], "must be a Docker image"),
        (["--job.image=x;reboot"], "must be a Docker image"),
        (["--job.package=numpy"], "must install lerobot-topreward"),
        (["--job.package=./dist/x.whl"], "no requirement"),
        (["--job.package=lerobot-topreward @ file:///tmp/x.whl"], "got file"),
        (["--job.package=lerobot-topreward @ git+ssh://h/r"], "got git+ssh"),
    ],
)
def test_wrong_options_are_refused(options: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(LabelConfig, "label", [*JOB, *options])
    assert said in str(refused.value)


@pytest.mark.parametrize("option", ["detach", "dry_run", "package=lerobot-topreward", "timeout=1h"])
def test_options_of_a_job_need_a_machine(option: str) -> None:
    for target in ([], ["--job.target=local"]):
        with pytest.raises(UserError, match=r"needs `job\.target=FLAVOR`"):
            parse(LabelConfig, "label", ["--repo-id=a/b", *target, f"--job.{option}"])


@pytest.mark.parametrize(
    "url",
    [
        "git+https://me:hf_secret@github.com/o/r",
        "git+https://hf_secret@github.com/o/r@main",
        "https://h/x.whl?token=hf_secret",
    ],
)
def test_a_secret_in_the_address_of_the_package_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UserError, match="name, password or key") as refused:
        JobConfig(target="a10g-small", package=f"lerobot-topreward @ {url}")
    assert "hf_secret" not in str(refused.value)


LOCAL = [
    (["--root=data"], "has no `root=data`"),
    (["--root=data", "--in-place"], "has no `root=data`"),
    (["--output=out"], "leave out `output=out`"),
    (["--success-file=s.csv"], "leave out `success_file=s.csv`"),
    (["--vlm={tmp}"], "give `vlm=OWNER/NAME`"),
    (["--reward-model=robometer", "--reward-path={tmp}"], "give `reward_path=OWNER/NAME`"),
    (["--share=1/2", "--dtype=bfloat16"], "`share=1/2` is for machines that share a folder"),
    *(
        ([f"--server=http://{host}:8000"], "does not reach")
        for host in (
            "127.0.0.1",
            "localhost",
            "[::1]",
            "0.0.0.0",
            "192.168.1.7",
            "10.0.0.2",
            "100.64.0.9",
            "169.254.1.1",
            "lab",
            "lab.local",
            "x.localhost",
        )
    ),
    (["--server", "http://example.org", "http://127.0.0.1:1"], "`server=http://127.0.0.1:1`"),
]


@pytest.mark.parametrize(("options", "said"), LOCAL)
def test_what_only_this_machine_has_is_refused(
    options: list[str], said: str, tmp_path: Path
) -> None:
    given = [option.format(tmp=tmp_path) for option in options]
    config = parse(LabelConfig, "label", [*JOB, *given])
    with pytest.raises(UserError) as refused:
        refuse_local(config)
    assert "`job.target=a10g-small` runs on another machine" in str(refused.value)
    assert said in str(refused.value)


def test_a_cluster_and_no_dataset_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "ray.yaml"
    file.write_text("tasks: 2\n")
    cluster = ["--launch=ray", f"--launch-config={file}", "--dtype=bfloat16"]
    for given in ([*JOB, *cluster], JOB[1:]):
        with pytest.raises(UserError, match="runs on another machine"):
            refuse_local(parse(LabelConfig, "label", given))


@pytest.mark.parametrize(
    "options",
    [
        ["--vlm=builtin:so101-demo"],
        ["--vlm=auto", "--quantize=4bit"],
        ["--server", "https://example.org", "http://8.8.8.8:8000", "--concurrency=2"],
        ["--reward-model=robometer", "--reward-path=o/robometer"],
        ["--config=laptop", "--workers=2", "--no-other-cameras", "--horizon=1e-7"],
        ["--instruction=--pick\n `it` 'up'", "--prefixes=15", "--chunk-tokens=None"],
    ],
)
def test_everything_else_arrives_as_it_was_given(options: list[str]) -> None:
    config = parse(LabelConfig, "label", ["--repo-id=a/b", *options])
    refuse_local(parse(LabelConfig, "label", [*JOB, *options]))
    assert parse(LabelConfig, "label", as_arguments(config)) == config


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "lerobot-topreward==9.8.7"),
        (
            {"url": "https://h/r", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "lerobot-topreward @ git+https://h/r@abc",
        ),
        ({"url": "https://h/x.whl", "archive_info": {}}, "lerobot-topreward @ https://h/x.whl"),
        ({"url": "file:///home/me/src", "dir_info": {"editable": True}}, None),
    ],
)
def test_what_runs_there_is_what_is_installed_here(
    origin: object, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "lerobot_topreward-9.8.7.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Name: lerobot-topreward\nVersion: 9.8.7\n")
    if origin is not None:
        (made / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    job = JobConfig(target="a10g-small")
    if expected is None:
        with pytest.raises(UserError, match=r"installed from file:///home/me/src; .*`job.package`"):
            _installed(job)
    else:
        assert _installed(job) == Requirement(expected)
