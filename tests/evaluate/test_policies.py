"""`evaluate --policies` and `--trials`, on files as LeRobot writes them."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from lerobot_topreward.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture) -> Run:
    """Run `evaluate` and return its exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["evaluate", *map(str, arguments)])
        said = capsys.readouterr()
        code = stopped.value.code
        assert isinstance(code, int)
        return code, said.out, said.err

    return call


def write(path: Path, tasks: dict[int, Sequence[bool]]) -> Path:
    """Write what `lerobot-eval` writes, with LeRobot's own aggregation."""
    from unittest.mock import patch

    import torch
    from lerobot.scripts import lerobot_eval

    def one(env: Any, **_: Any) -> dict[str, Any]:
        found = tasks[env.number]
        rewards = [float(x) for x in found]
        return {"sum_rewards": rewards, "max_rewards": rewards, "successes": list(found)}

    class Env(gymnasium.Env):
        def __init__(self, number: int) -> None:
            self.number = number

    nothing: Any = None
    with patch.object(lerobot_eval, "eval_one", one):
        envs: Any = {"arm": {number: Env(number) for number in tasks}}
        info = lerobot_eval.eval_policy_all(
            envs,
            torch.nn.Identity(),
            *[nothing] * 4,
            n_episodes=1,  # pyright: ignore
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(info, indent=2))
    return path


def test_the_same_scenes_are_paired_in_whatever_order_the_tasks_ended(
    tmp_path: Path, run: Run
) -> None:
    rng = np.random.default_rng(0)
    first = rng.random((2, 30)) < 0.3
    second = first | (rng.random((2, 30)) < 0.4)
    a = write(tmp_path / "a/eval_info.json", {0: first[0].tolist(), 1: first[1].tolist()})
    b = write(tmp_path / "b/eval_info.json", {1: second[1].tolist(), 0: second[0].tolist()})
    code, out, _ = run("--policies", a, b.parent, "--json")
    found = json.loads(out)
    assert code == 0
    (comparison,) = found["comparisons"]
    gained = int((second & ~first).sum())
    assert comparison["test"] == "mcnemar"
    assert (comparison["only_first"], comparison["only_second"]) == (0, gained)
    assert comparison["p_value"] == binomtest(0, gained).pvalue
    assert found["policies"][1]["successes"] == second.sum()
    code, out, _ = run("--policies", a, b)
    assert f"{b} succeeds more often than {a}: +" in out
    assert f"scene by scene: p = 0.004; 0 solved by the first alone, {gained} by" in out


def test_other_scenes_are_counted(tmp_path: Path, run: Run) -> None:
    a = write(tmp_path / "a.json", {0: [True] * 5 + [False] * 5})
    b = write(tmp_path / "b.json", {0: [True] * 6 + [False] * 6})
    _, out, _ = run("--policies", a, b, a, "--json")
    tests = [comparison["test"] for comparison in json.loads(out)["comparisons"]]
    assert tests == ["fisher", "mcnemar"]


@pytest.mark.parametrize(
    ("seeds", "test"), [((1, 1), "mcnemar"), ((1, 9), "fisher"), ((None, None), "fisher")]
)
def test_the_older_layout_says_on_which_seeds(
    tmp_path: Path, run: Run, seeds: tuple[int | None, int | None], test: str
) -> None:
    for name, start in zip("ab", seeds, strict=True):
        episodes = [
            {"episode_ix": i, "success": i < 3, "seed": None if start is None else start + i}
            for i in range(8)
        ]
        (tmp_path / name).write_text(json.dumps({"per_episode": episodes, "aggregated": {}}))
    _, out, _ = run("--policies", tmp_path / "a", tmp_path / "b", "--json")
    assert json.loads(out)["comparisons"][0]["test"] == test


def test_counts_of_a_real_arm(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--trials", "17/20", "12/20")
    assert code == 0
    assert "85%  [64%, 95%]" in out
    assert "No difference between policy 2 and policy 1 is shown (-25 [-48, +3] points)" in out
    assert "from 85% down to 44%" in out
    (tmp_path / "my.yaml").write_text("evaluate: {trials: [17/20, 2/20], json: true}")
    _, out, _ = run("--config", tmp_path / "my.yaml")
    comparison = json.loads(out)["comparisons"][0]
    assert comparison["p_value"] == fisher_exact([[17, 3], [2, 18]])[1]
    assert comparison["sentence"].startswith("policy 2 succeeds less often than policy 1")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--trials", "17/20"), "--trials must name two or more"),
        (("--trials=1/2", "3/2"), "--trials must be counts such as 17/20"),
        (("--trials", "1/2", "0/0"), "at least one trial"),
        (("--trials", "1/2", "85%"), "got '85%'"),
        (("--trials", "1/2", "1/2", "--policies", "a", "b"), "cannot be given together"),
        (("--trials", "1/2", "1/2", "--root", "x"), "--root is about a labeled dataset"),
        (("--policies", "a", "b", "--success-file", "x"), "--success-file is about a labeled"),
        (("--policies", "--json"), "--policies needs a value"),
        (("--trials", "1/2", ""), "--trials is empty"),
        (("--policies", "a", "b"), "a cannot be read (No such file or directory)"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Run, arguments: tuple[str, ...], expected: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert expected in err


def test_neither_lerobot_nor_torch_is_imported() -> None:
    code = (
        "import sys; from lerobot_topreward.cli import main\n"
        "try: main(['evaluate', '--trials', '1/2', '2/2'])\n"
        "except SystemExit: pass\n"
        "assert not {'lerobot', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
