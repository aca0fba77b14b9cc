import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock


def _try(output: Path, shared: bool, answer: "multiprocessing.Queue[str]") -> None:
    try:
        with output_lock(output, shared=shared):
            answer.put("held")
    except UserError as error:
        answer.put(str(error))


@pytest.fixture
def in_another_process(tmp_path: Path) -> Callable[[bool], str]:
    def ask(shared: bool) -> str:
        context = multiprocessing.get_context("fork")
        answer = context.Queue()
        process = context.Process(target=_try, args=(tmp_path, shared, answer))
        process.start()
        found = answer.get(timeout=60)
        process.join()
        return found

    return ask


def test_those_who_share_an_output_keep_the_others_away(
    tmp_path: Path, in_another_process: Callable[[bool], str]
) -> None:
    with output_lock(tmp_path, shared=True):
        assert in_another_process(True) == "held"
        assert "in use by another run" in in_another_process(False)
    assert in_another_process(False) == "held"


def test_one_who_holds_an_output_keeps_all_others_away(
    tmp_path: Path, in_another_process: Callable[[bool], str]
) -> None:
    with output_lock(tmp_path):
        assert "in use by another run" in in_another_process(True)
        assert "in use by another run" in in_another_process(False)
    assert in_another_process(True) == "held"


@pytest.mark.parametrize("shared", [True, False])
def test_what_goes_wrong_under_a_lock_frees_it(tmp_path: Path, *, shared: bool) -> None:
    with pytest.raises(ZeroDivisionError), output_lock(tmp_path, shared=shared):
        raise ZeroDivisionError
    with output_lock(tmp_path):
        pass


@pytest.mark.parametrize("shared", [True, False])
def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, *, shared: bool) -> None:
    (tmp_path / "topreward").mkdir()
    (tmp_path / "topreward" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="must not be a link"), output_lock(tmp_path, shared=shared):
        pass
    assert not (tmp_path / "elsewhere").exists()
