"""What a dataset itself, or a file beside it, says about which episodes succeeded."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.utils.constants import REWARD

from lerobot_topreward.data.dataset import Source, data_files, episode_rows
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_index

_SUCCESS_COLUMN = "success"  # of meta/episodes
_NEXT_SUCCESS = "next.success"
_WORDS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(frozen=True, slots=True)
class Success:
    """Which episodes succeeded, as far as is known."""

    origin: str  # where that is said, for messages
    by_episode: Mapping[int, bool]


def read_success(source: Source, success_file: Path | None) -> Success | None:
    """Find out which episodes succeeded.

    In this order: the file, a column ``success`` of ``meta/episodes``, ``next.success`` (true on any
    frame of the episode), ``next.reward`` where it is 0 or 1 on every frame (1 on any frame).

    Args:
        source: the dataset, its ``data/`` at hand.
        success_file: CSV with a header and the columns ``episode_index`` and ``success``.

    Returns:
        What is known, perhaps not of all episodes; None where nothing is said.

    Raises:
        UserError: the file cannot be used, or what is said is neither true nor false.
    """
    if success_file is not None:
        return _from_file(success_file, total=source.meta.total_episodes)
    rows = episode_rows(source.meta)
    if _SUCCESS_COLUMN in rows.column_names:
        origin = "the column success of meta/episodes"
        pairs = zip(rows["episode_index"], rows[_SUCCESS_COLUMN], strict=True)
        return Success(origin, _boolean(pairs, origin=origin))
    if _NEXT_SUCCESS in source.meta.features:
        frames = _per_frame(source, _NEXT_SUCCESS)
        return Success(_NEXT_SUCCESS, _any(frames, origin=_NEXT_SUCCESS))
    if REWARD in source.meta.features:
        frames = _per_frame(source, REWARD)
        if np.isin(frames[1], (0, 1)).all():  # else a reward says how good, not whether
            return Success(REWARD, _any(frames, origin=REWARD))
    return None


def _from_file(path: Path, *, total: int) -> Success:
    option = f"--success-file {path}"
    try:
        with path.expanduser().open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{option} cannot be read: {error}") from None
    if not {"episode_index", "success"} <= set(header):
        raise UserError(
            f"{option} must begin with a header that has episode_index and success; got: "
            f"{', '.join(header) or 'nothing'}"
        )
    said: dict[int, str] = {}
    for row in rows:
        text = (row["episode_index"] or "").strip()
        episode = read_index(text)
        if episode is None or episode >= total:
            raise UserError(
                f"{option}: episode_index must be one of this dataset's 0..{total - 1}; got {text!r}"
            )
        if episode in said:
            raise UserError(f"{option} names episode {episode} twice; keep one of the lines")
        said[episode] = (row["success"] or "").strip()
    return Success(option, _boolean(said.items(), origin=option))


def _boolean(pairs: Iterable[tuple[int, Any]], *, origin: str) -> dict[int, bool]:
    found = {}
    for episode, value in pairs:
        if value is None or value == "":
            continue  # not known
        word = str(value).lower()
        if word not in _WORDS:
            raise UserError(
                f"{origin} must be true or false (or 1 and 0) for every episode; episode {episode} "
                f"has {value!r}. Mend it, or say it in another file with --success-file"
            )
        found[int(episode)] = _WORDS[word]
    return found


def _per_frame(source: Source, column: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        names = ["episode_index", column]
        table = pa.concat_tables(
            [pq.read_table(path, columns=names) for path in data_files(source)]
        )
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UserError(f"{source.root / 'data'} cannot be read: {error}") from error
    values = np.array(table[column].to_pylist(), dtype=object).reshape(len(table), -1)[:, 0]
    return table["episode_index"].to_numpy(), values


def _any(frames: tuple[np.ndarray, np.ndarray], *, origin: str) -> dict[int, bool]:
    episode_index, values = frames
    found: dict[int, bool] = {}
    # The distinct values of an episode are few, its frames many.
    for episode, distinct in pd.Series(values).groupby(episode_index).unique().items():
        said = [_boolean([(int(str(episode)), value)], origin=origin) for value in distinct]
        known = [value for one in said for value in one.values()]
        if known:
            found[int(str(episode))] = any(known)
    return found
