"""Success rates with bootstrap intervals, as a table and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from matplotlib.figure import Figure

from lerobot_topreward.judging.trials import Comparison, Rate, compare_paired
from weighted_bc.outcomes import Outcome

_DRAWS = 10_000
_COLORS = {"bc": "#999999", "oracle": "#000000"}  # Okabe-Ito, as everywhere
_COLOR = "#0072B2"


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm of one policy against another and the oracle; 95 % bootstrap intervals."""

    arm: str
    runs: int
    scenes: int  # evaluation episodes of a run
    success: Rate
    gain: Rate  # success less that of the other arm
    closed: Rate | None  # gain as a share of the oracle's, where that was run
    paired: Comparison  # with the other arm, scene by scene, all seeds together


def _draws(
    success: Bool[np.ndarray, "seeds scenes"], seeds: np.ndarray, rng: np.random.Generator
) -> Float64[np.ndarray, " draws"]:
    """Resample seeds (given, so that arms are paired), then scenes within each."""
    scenes = success.shape[1]
    rates = success.mean(axis=1)[seeds]
    # Resampling scenes of a run is a binomial draw around its rate.
    return rng.binomial(scenes, rates).mean(axis=1) / scenes


def compare(outcomes: Sequence[Outcome], policy: str, *, base: str = "bc") -> list[ArmResult]:
    """Compare the arms of a policy on the seeds that all of them have.

    Args:
        outcomes: of the runs of one experiment.
        policy: which.
        base: the arm that the others are compared with.

    Returns:
        One record per arm, in the order in which they first appear; none without the base.
    """
    by_arm: dict[str, dict[int, Sequence[bool]]] = {}
    for outcome in outcomes:
        if outcome.policy == policy:
            by_arm.setdefault(outcome.arm, {})[outcome.seed] = outcome.success
    seeds = sorted(set.intersection(*(set(runs) for runs in by_arm.values()))) if by_arm else []
    if not seeds or base not in by_arm:
        return []
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(seeds), size=(_DRAWS, len(seeds)))
    tables = {arm: np.array([runs[seed] for seed in seeds]) for arm, runs in by_arm.items()}
    draws = {arm: _draws(table, chosen, rng) for arm, table in tables.items()}
    means = {arm: float(table.mean()) for arm, table in tables.items()}

    def close(arm: str) -> Rate | None:
        if "oracle" not in tables:
            return None
        gap, gaps = means["oracle"] - means[base], draws["oracle"] - draws[base]
        with np.errstate(divide="ignore", invalid="ignore"):
            closed = (means[arm] - means[base]) / gap if gap else float("nan")
            return _estimate(closed, (draws[arm] - draws[base]) / gaps)

    return [
        ArmResult(
            arm=arm,
            runs=len(seeds),
            scenes=tables[arm].shape[1],
            success=_estimate(means[arm], draws[arm]),
            gain=_estimate(means[arm] - means[base], draws[arm] - draws[base]),
            closed=close(arm),
            paired=compare_paired(tables[base].ravel(), tables[arm].ravel()),
        )
        for arm in tables
    ]


def _estimate(value: float, draws: Float64[np.ndarray, " draws"]) -> Rate:
    finite = draws[np.isfinite(draws)]
    if not len(finite):  # no gap to close in any draw
        return Rate(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Rate(value, float(low), float(high))


def _show(rate: Rate) -> str:
    """A rate and its interval as whole per cents."""
    return f"{rate.value:4.0%} [{rate.low:4.0%}, {rate.high:4.0%}]"


def print_table(outcomes: Sequence[Outcome], *, base: str = "bc") -> None:
    """Print what every arm of every policy achieves, compared with the base."""
    for policy in sorted({outcome.policy for outcome in outcomes}):
        arms = compare(outcomes, policy, base=base)
        if not arms:
            print(f"\n{policy}: no seed has every arm, {base} among them")
            continue
        print(f"\n{policy}: {arms[0].runs} seeds x {arms[0].scenes} scenes; 95 % intervals\n")
        print(f"| arm | success | gain over {base} | McNemar's p | of the gap to the oracle |")
        print("|---|---|---|---|---|")
        for arm in arms:
            own = arm.arm == base
            gain = "" if own else _show(arm.gain)
            p_value = "" if own else f"{arm.paired.p_value:.1g}"
            closed = ""
            if arm.closed is not None and not own and arm.arm != "oracle":
                closed = _show(arm.closed)
            print(f"| {arm.arm} | {_show(arm.success)} | {gain} | {p_value} | {closed} |")


def save_figure(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw the success rates of every arm, a panel for each policy."""
    policies = sorted({outcome.policy for outcome in outcomes})
    compared = {policy: arms for policy in policies if (arms := compare(outcomes, policy))}
    figure = Figure(figsize=(4.2 * max(len(compared), 1), 3.4), layout="constrained")
    for place, (policy, arms) in enumerate(compared.items(), start=1):
        axes = figure.add_subplot(1, len(compared), place)
        for y, arm in enumerate(reversed(arms)):
            color = _COLORS.get(arm.arm, _COLOR)
            low, high = arm.success.low, arm.success.high
            axes.plot([low, high], [y, y], color=color, linewidth=2)
            axes.plot(arm.success.value, y, "o", color=color)
            axes.annotate(
                f"{arm.success.value:.0%}",
                (arm.success.value, y),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(arms)), [arm.arm for arm in reversed(arms)])
        axes.set_ylim(-0.5, len(arms) - 0.3)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_title(f"{policy}, {arms[0].runs} seeds", fontsize=10)
        axes.set_xlabel("successful episodes, 95 % interval")
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
