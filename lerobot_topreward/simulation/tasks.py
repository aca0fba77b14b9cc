"""What the demo's episodes are about: the kinds of episode, the cubes, the task texts, the seeds."""

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_index

SUCCEEDING = ("good", "slow", "detour", "retry")
FAILING = ("missed", "wrong_place", "undone", "idle")
# Interleaved, so that any run of seeds has about as many successes as failures.
KINDS = tuple(kind for pair in zip(SUCCEEDING, FAILING, strict=True) for kind in pair)

COLORS = {  # RGB of the cube
    "red": (0.85, 0.12, 0.08),
    "blue": (0.12, 0.35, 1.0),
    "white": (0.95, 0.95, 0.95),
}
OTHER_TASKS = (  # none of them is ever done
    "open the drawer",
    "fold the towel",
    "pour water into the cup",
    "close the laptop",
    "stack the plates",
)

# Nobody learns from these: the demo is honest only about episodes that its VLM never saw.
FIRST_HELD_OUT_SEED = 100_000
EVALUATION_SEEDS = "100000:100056"
BUNDLED_SEEDS = "200000:200040"


def instruction(color: str) -> str:
    """Say what an episode with a cube of this color is meant to do."""
    return f"put the {color} cube on the green disc"


def kind_of(seed: int) -> str:
    """Name the kind of the episode that a seed makes, one of KINDS."""
    return KINDS[seed % len(KINDS)]


def parse_seeds(text: str) -> range:
    """Read A:B as the seeds A, A + 1, ... B - 1.

    Raises:
        UserError: it is not two whole numbers with 0 <= A < B.
    """
    first, last = map(read_index, text.partition(":")[::2])
    if first is None or last is None or first >= last:
        raise UserError(
            f"`seeds` must be A:B, the seeds A to B - 1 with 0 <= A < B; got '{text}'; "
            "try for example 0:16"
        )
    return range(first, last)
