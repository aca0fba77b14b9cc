"""Records as JSON can hold them, and JSON as it is read back."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_topreward.errors import UserError


def plain(value: Any) -> Any:
    """Turn records into mappings, lists and plain values; nan, which JSON has not, into null.

    Args:
        value: dataclasses, mappings, sequences, arrays, numbers; anything else becomes its text.
    """
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def read_json_object(path: Path, *, advice: str) -> dict[str, Any]:
    """Read a file that must hold one JSON object and may have been written by anybody.

    Args:
        path: the file.
        advice: what to do when it is none, a sentence without its full stop.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    if path.exists() and not path.is_file():  # a pipe, or a device that never ends
        raise UserError(f"{path} must be a file; {advice}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {advice}") from None
    except RecursionError:
        raise UserError(
            f"{path} must hold a JSON object; it is nested too deep. {advice}"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path} must hold a JSON object; it holds none ({error}). {advice}"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object; got {type(content).__name__}. {advice}")
    return content


def read_index(text: str) -> int | None:
    """Read an index from a file; None where it is not plain decimal digits.

    ``str.isdigit`` takes "²", which ``int`` refuses, as it does thousands of digits.
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
