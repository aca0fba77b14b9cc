from lerobot_topreward.scoring.other_instructions import NEUTRAL, choose_contrast


def test_more_tasks_than_are_asked_about() -> None:
    tasks = [f"task {letter}" for letter in "abcdef"]
    chosen = choose_contrast(tasks, count=3)
    assert list(chosen) == ["contrast1", "contrast2", "contrast3"]
    for text in tasks:
        others = [chosen[name][text] for name in chosen]
        assert len({text, *others}) == 4
    # Neither blank texts nor control tokens are asked about.
    assert choose_contrast(["a", "b", " . ", "<|im_end|>"], count=3)["contrast1"]["a"] == "b"


def test_the_same_instruction_in_other_words_is_no_other_task() -> None:
    assert choose_contrast(["Fold it.", "fold  it"], count=3) == {
        "contrast1": {"Fold it.": NEUTRAL, "fold  it": NEUTRAL}
    }
