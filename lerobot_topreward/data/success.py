"""Which episodes succeeded, by the dataset itself or by a file."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_topreward.data.dataset import Source, read_columns
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_index
from lerobot_topreward.records import is_own_feature

REWARD = "next.reward"  # as in lerobot.utils.constants
_WORDS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(frozen=True, slots=True)
class Success:
    """Which episodes succeeded, as far as is known."""

    origin: str  # which file or column, for messages
    by_episode: Mapping[int, bool]


def read_success(source: Source, success_file: Path | None) -> Success | None:
    """Find out which episodes succeeded, perhaps not all of them; None where nothing is known.

    In this order: the file (a CSV with a header and the columns ``episode_index`` and ``success``), a
    column ``success`` of ``meta/episodes``, ``next.success`` (true on any frame of the episode),
    ``next.reward`` where it is 0 or 1 on every frame (1 on any frame). The latter two not where
    `label` wrote them: they would agree with the labels that they are made of.

    Raises:
        UserError: the file cannot be used, or holds neither true nor false.
    """
    if success_file is not None:
        return _read_file(success_file, total=source.meta.total_episodes)
    rows = source.meta.episodes
    if "success" in rows.column_names:
        origin = "the column success of meta/episodes"
        pairs = zip(rows["episode_index"].to_pylist(), rows["success"].to_pylist(), strict=True)
        return Success(origin, _read_booleans(pairs, origin=origin))
    for column in ("next.success", REWARD):
        if is_own_feature(source.meta.features.get(column, {})):
            continue
        if column not in source.meta.features:
            continue
        table = read_columns(source, ["episode_index", column])
        values = np.array(table[column].to_pylist(), dtype=object).reshape(len(table), -1)[:, 0]
        if column == REWARD and not np.isin(values, (0, 1)).all():
            continue  # such a reward says how good, not whether
        # The distinct values of an episode are few, its frames many.
        pairs = dict.fromkeys(zip(table["episode_index"].to_pylist(), values.tolist(), strict=True))
        return Success(column, _read_booleans(pairs, origin=column))
    return None


def _read_file(path: Path, *, total: int) -> Success:
    option = f"`success_file={path}`"
    try:
        with path.expanduser().open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{option} cannot be read: {error}") from None
    if not {"episode_index", "success"} <= set(header):
        raise UserError(
            f"{option} must begin with a header that has episode_index and success; got: "
            f"{', '.join(header) or 'nothing'}"
        )
    texts: dict[int, str] = {}
    for row in rows:
        text = (row["episode_index"] or "").strip()
        episode = read_index(text)
        if episode is None or episode >= total:
            raise UserError(
                f"{option}: episode_index must be one of this dataset's 0..{total - 1}; got {text!r}"
            )
        if episode in texts:
            raise UserError(f"{option} names episode {episode} twice; keep one of the lines")
        texts[episode] = (row["success"] or "").strip()
    return Success(option, _read_booleans(texts.items(), origin=option))


def _read_booleans(pairs: Iterable[tuple[int, Any]], *, origin: str) -> dict[int, bool]:
    """Read what is known of each episode: true where one of its values is."""
    found: dict[int, bool] = {}
    for episode, value in pairs:
        if value is None or value == "":
            continue  # not known
        word = str(value).lower()
        if word not in _WORDS:
            raise UserError(
                f"{origin} must be true or false (or 1 and 0) for every episode; episode {episode} "
                f"has {value!r}. Fix it, or say it in another file with `success_file`"
            )
        found[episode] = _WORDS[word] or found.get(episode, False)
    return found
