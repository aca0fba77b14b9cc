"""Episodes are dealt out so that processes end together and rarely share a file."""

import numpy as np
import pytest

from lerobot_topreward.scoring.launch.deal import deal_out


def _files_of(shares: list[list[int]], files: dict[int, str]) -> list[set[str]]:
    return [{files[episode] for episode in share} for share in shares]


@pytest.mark.parametrize("seed", range(30))
def test_every_episode_is_dealt_once_and_the_parts_are_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, ranks = int(rng.integers(1, 200)), int(rng.integers(1, 20))
    costs = {int(i): float(rng.integers(1, 400)) for i in rng.permutation(500)[:count]}
    per_file = int(rng.integers(1, 40))
    files = {i: f"file-{i // per_file:03d}" for i in costs}
    shares = deal_out(costs, files, ranks=ranks)
    assert len(shares) == ranks
    assert sorted(i for share in shares for i in share) == sorted(costs)
    assert all(share == sorted(share) for share in shares)
    loads = [sum(costs[i] for i in share) for share in shares]
    part = sum(costs.values()) / ranks
    # Both cuts of a part may be off by a tenth of it, or by half an episode.
    assert max(loads) <= part + 2 * max(0.1 * part, max(costs.values()) / 2)
    # A file is shared only where a cut goes through it.
    readers = [name for names in _files_of(shares, files) for name in names]
    assert len(readers) <= len(set(files.values())) + ranks - 1


def test_files_stay_whole_where_that_costs_little() -> None:
    costs = {i: 100.0 + i % 3 for i in range(80)}
    files = {i: f"file-{i // 5:02d}" for i in costs}
    shares = deal_out(costs, files, ranks=4)
    names = _files_of(shares, files)
    assert sum(map(len, names)) == len(set(files.values())) == 16
    assert [len(each) for each in names] == [4, 4, 4, 4]


def test_one_file_of_all_episodes_is_read_by_everybody() -> None:
    shares = deal_out(dict.fromkeys(range(8), 10.0), dict.fromkeys(range(8), "one"), ranks=4)
    assert shares == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_files_out_of_order_are_put_in_order() -> None:
    files = {0: "b", 1: "a", 2: "b", 3: "a"}
    assert deal_out(dict.fromkeys(files, 1.0), files, ranks=2) == [[1, 3], [0, 2]]


def test_the_same_deal_whoever_asks() -> None:
    costs = {3: 5.0, 1: 2.0, 2: 9.0}
    files = {1: "a", 2: "a", 3: "b"}
    again = dict(reversed(costs.items()))
    assert deal_out(costs, files, ranks=2) == deal_out(again, files, ranks=2)


@pytest.mark.parametrize("ranks", [1, 3])
def test_nothing_is_dealt_out_as_nothing(ranks: int) -> None:
    assert deal_out({}, {}, ranks=ranks) == [[]] * ranks


def test_more_processes_than_episodes_leave_some_idle() -> None:
    shares = deal_out({0: 1.0, 1: 1.0}, {0: "a", 1: "a"}, ranks=5)
    assert sorted(map(len, shares)) == [0, 0, 0, 1, 1]
