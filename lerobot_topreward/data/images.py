"""Pictures that are stored in ``data/`` instead of a video."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.dataset as pa_ds

from lerobot_topreward.data.info import find_file, first_line
from lerobot_topreward.errors import EpisodeError, UserError


def read_image_cells(
    path: Path, camera: str, rows: pa_ds.Expression
) -> Iterator[tuple[int, object]]:
    """Read the index and the image cell of some rows of a file, few of them at a time."""
    for batch in pa_ds.dataset(path).to_batches(
        columns=["index", camera],
        filter=rows,
        batch_size=16,
        batch_readahead=1,
        use_threads=False,
    ):
        yield from zip(*batch.to_pydict().values(), strict=True)


def image_bytes(cell: Any, *, root: Path) -> bytes:
    """Give the compressed picture that a cell of an image column holds, or names.

    Raises:
        EpisodeError: It holds none, or names a file that is not in the dataset.
    """
    if isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"]
    name = cell.get("path") if isinstance(cell, Mapping) else None
    try:
        path = find_file(root, name) if isinstance(name, str) else None
        if path is None:
            raise EpisodeError(f"a cell holds no image: {cell!r:.60}")
        return path.read_bytes()
    except (UserError, OSError) as error:
        raise EpisodeError(first_line(error)) from None
