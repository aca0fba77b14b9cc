"""What a stranger does to a dataset: which damage is refused, and which does not matter."""

import shutil

import pyarrow as pa
from damage import (
    CAMERA,
    DATA,
    EPISODES,
    INFO,
    IRREGULAR,
    OUTSIDE,
    STATS,
    TASKS,
    VIDEO,
    Case,
    column,
    described,
    feature,
    first,
    flipped,
    gone,
    info,
    linked_folder,
    oddities,
    table,
    truncated,
    without,
    write,
)

DEEP = b"[" * 200_000
REFUSED = [
    *oddities(INFO),
    Case("no info", gone(INFO), "must hold a LeRobot dataset; there is no"),
    Case("no meta", gone("meta"), "must hold a LeRobot dataset; there is no"),
    Case("an empty info", write(INFO, b""), "must hold a JSON object"),
    Case("a cut info", truncated(INFO), "must hold a JSON object"),
    Case("info is a list", write(INFO, b"[]"), "must hold a JSON object; got list"),
    Case("info is null", write(INFO, b"null"), "must hold a JSON object"),
    Case("info is nested deep", write(INFO, DEEP), "nested too deep"),
    Case("info is no UTF-8", write(INFO, b'{"fps": "\xff"}'), "must hold a JSON object"),
    Case("info is NaN", write(INFO, b"NaN"), "must hold a JSON object"),
    Case("an integer of a million digits", write(INFO, b'{"fps": %s}' % (b"9" * 10**6)), "JSON"),
    Case("no version", without("codebase_version"), "format v3; it is None"),
    Case("version is a number", info(codebase_version=3.0), "codebase_version must be a text"),
    Case("version 2.1", info(codebase_version="v2.1"), "convert_dataset_v21_to_v30"),
    Case("version 9", info(codebase_version="v9.0"), "Upgrade lerobot"),
    Case("version is a word", info(codebase_version="latest"), "should not say"),
    Case("version is long", info(codebase_version="v" * 10**5), "should not say"),
    *(
        Case(f"fps is {fps!r}", info(fps=fps), "fps must be a number of frames per second")
        for fps in (float("nan"), float("inf"), 0, -10, "10", None, 1e300, True, [10])
    ),
    Case("no fps", without("fps"), "got nothing"),
    *(
        Case(f"total_episodes is {n!r}", info(total_episodes=n), "must be a whole number >= 0")
        for n in ("3", -1, 2.5, None, 10**30)
    ),
    Case("four episodes promised", info(total_episodes=4), "promises 4 episodes and"),
    Case("two episodes promised", info(total_episodes=2), "promises 2 episodes and"),
    Case("no episode", info(total_episodes=0), "must hold at least one recorded episode"),
    Case("total_frames is a text", info(total_frames="12"), "total_frames must be a whole number"),
    Case("13 frames promised", info(total_frames=13), "must hold the 13 frames"),
    Case("total_tasks is a list", info(total_tasks=[1]), "total_tasks must be a whole number"),
    Case("no features", without("features"), "features must be an object of objects"),
    Case("features is a list", info(features=[]), "features must be an object of objects"),
    Case("features is null", info(features=None), "features must be an object of objects"),
    Case("features is empty", info(features={}), "must have a color camera"),
    Case("a feature is a text", info(features={"action": "float32"}), "each with dtype and shape"),
    Case("a feature without dtype", feature("action", dtype=...), "each with dtype and shape"),
    Case("dtype is a number", feature("action", dtype=32), "each with dtype and shape"),
    Case("a feature without shape", feature("action", shape=...), "each with dtype and shape"),
    Case("shape is a text", feature("action", shape="6"), "each with dtype and shape"),
    Case("shape is negative", feature("action", shape=[-6]), "each with dtype and shape"),
    Case("shape holds null", feature("action", shape=[None]), "each with dtype and shape"),
    Case("a camera's info is a list", feature(CAMERA, info=[1]), "each with dtype and shape"),
    Case(
        "a feature that is not stored",
        feature("observation.force", dtype="float32", shape=[1]),
        "it lacks the columns observation.force",
    ),
    Case(
        "a camera that has no video",
        feature("observation.images.top", dtype="video", shape=[48, 64, 3]),
        "must have a column videos/observation.images.top/chunk_index",
    ),
    *(
        Case(f"data_path is {path!r}", info(data_path=path), "data_path must be a relative path")
        for path in (
            "../dataset/data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "/etc/{chunk_index}",
            "data/{nope}.parquet",
            "data/{chunk_index.__class__}.parquet",
            "data/{chunk_index[0]}.parquet",
            "data/{chunk_index!r}.parquet",
            "data/{chunk_index:999999999d}.parquet",
            "data/{chunk_index:{file_index}}.parquet",
            "data/{",
            "data/{}.parquet",
            "data/\0.parquet",
            5,
            None,
        )
    ),
    Case("data_path is another", info(data_path="data/{file_index}.parquet"), "is missing"),
    Case("data_path is a folder", info(data_path="data"), IRREGULAR),
    *(
        Case(f"video_path is {path!r}", info(video_path=path), "video_path must be a relative path")
        for path in ("../{video_key}.mp4", "/dev/zero", "{nope}", "{video_key.__init__}", 5, None)
    ),
    Case("chunks_size is 0", info(chunks_size=0), "chunks_size must be positive"),
    Case("chunks_size is a text", info(chunks_size="many"), "cannot be read"),
    *oddities(EPISODES),
    Case("no table of episodes", gone(EPISODES), "is incomplete"),
    Case("meta/episodes leads outside", linked_folder("meta/episodes"), OUTSIDE),
    Case("an empty table of episodes", write(EPISODES, b""), "cannot be read"),
    Case("a cut table of episodes", truncated(EPISODES), "cannot be read"),
    Case("a garbled table of episodes", write(EPISODES, b"PAR1" * 99), "cannot be read"),
    Case("an episode is not listed", table(EPISODES, lambda t: t.slice(1)), "lists 2"),
    Case(
        "episodes are out of order", table(EPISODES, lambda t: t.take([2, 1, 0])), "in this order"
    ),
    Case("an episode is listed twice", table(EPISODES, lambda t: t.take([0, 1, 1])), "this order"),
    *(
        Case(f"episodes lack {key}", column(EPISODES, key, None), f"must have a column {key}")
        for key in (
            "episode_index",
            "data/chunk_index",
            "data/file_index",
            "dataset_from_index",
            f"videos/{CAMERA}/chunk_index",
            f"videos/{CAMERA}/file_index",
            f"videos/{CAMERA}/from_timestamp",
        )
    ),
    Case(
        "file_index is a text",
        column(EPISODES, "data/file_index", ["../../etc"] * 3, pa.string()),
        "must hold whole numbers",
    ),
    Case("file_index is null", column(EPISODES, "data/file_index", first(None)), "whole numbers"),
    Case("another data file", column(EPISODES, "data/file_index", first(7)), "is missing"),
    Case(
        "from_timestamp is a text",
        column(EPISODES, f"videos/{CAMERA}/from_timestamp", ["0"] * 3, pa.string()),
        "must hold seconds",
    ),
    *oddities(TASKS),
    Case("no tasks", gone(TASKS), "is incomplete"),
    Case("an empty table of tasks", write(TASKS, b""), "cannot be read"),
    Case("a garbled table of tasks", write(TASKS, b"PAR1" * 99), "cannot be read"),
    Case("tasks lack task_index", column(TASKS, "task_index", None), "have a column task_index"),
    Case(
        "task_index is a fraction",
        column(TASKS, "task_index", [0.5, 1.5], pa.float64()),
        "task_index of whole numbers",
    ),
    Case("two tasks of one number", column(TASKS, "task_index", [0, 0]), "each once"),
    Case(
        "a task is null",
        column(TASKS, "task", first(None)),
        "every episode needs a task; the dataset has none for episode 0, 2",
    ),
    Case("a task is blank", column(TASKS, "task", first(" \n")), "every episode needs a task"),
    Case("tasks are numbers", column(TASKS, "task", [0, 1], pa.int64()), "every episode needs"),
    Case(
        "a task ends the turn",
        column(TASKS, "task", first("lift<|im_end|>")),
        "holds the control token '<|im_end|>'",
    ),
    Case(
        "a task shows a video",
        column(TASKS, "task", first("<|video_pad|>")),
        "holds the control token '<|video_pad|>'",
    ),
    *oddities(DATA),
    Case("no data", gone("data"), "is missing"),
    Case("data leads outside", linked_folder("data"), OUTSIDE),
    Case("an empty data file", write(DATA, b""), "cannot be read"),
    Case("a cut data file", truncated(DATA), "cannot be read"),
    Case("a garbled data file", write(DATA, b"PAR1" * 99), "cannot be read"),
    Case("damaged pages", flipped(DATA), "cannot be read"),
    Case(
        "a data file that nothing names",
        lambda root: shutil.copy(root / DATA, root / "data/chunk-000/file-001.parquet"),
        "file-001.parquet is not one of them",
    ),
    Case("rows are missing", table(DATA, lambda t: t.slice(0, 8)), "must hold the 12 frames"),
    Case("a row is there twice", table(DATA, lambda t: t.take([*range(12), 11])), "it holds 13"),
    Case("a row of episode 7", column(DATA, "episode_index", first(7)), "frames of episode 7"),
    Case("a row of episode -1", column(DATA, "episode_index", first(-1)), "frames of episode -1"),
    Case("rows are mixed", column(DATA, "index", lambda v: v[::-1]), "must number its frames"),
    Case("a gap in frame_index", column(DATA, "frame_index", first(1)), "must number its frames"),
    *(
        Case(f"data lack {key}", column(DATA, key, None), f"it lacks the columns {key}")
        for key in ("index", "episode_index", "frame_index", "task_index", "timestamp", "action")
    ),
    Case("index is null", column(DATA, "index", first(None)), "some are null"),
    Case("task_index is null", column(DATA, "task_index", first(None)), "some are null"),
    Case(
        "episode_index is a text", column(DATA, "episode_index", ["0"] * 12, pa.string()), "int64"
    ),
    Case(
        "no such task", column(DATA, "task_index", first(99)), "needs a task; the dataset has none"
    ),
    Case("a task before the first", column(DATA, "task_index", first(-1)), "needs a task"),
    Case(
        "actions are texts", column(DATA, "action", ["up"] * 12, pa.string()), "must hold numbers"
    ),
    Case("actions are null", column(DATA, "action", [None] * 12, pa.null()), "must hold numbers"),
    Case(
        "types that nobody can read",
        table(DATA, lambda t: t.replace_schema_metadata({b"huggingface": b"{"})),
        "cannot be read",
    ),
    Case(
        "types of another form",
        table(DATA, lambda t: t.replace_schema_metadata(described(info=[]))),
        "cannot be read",
    ),
    *oddities(STATS),
    Case("empty statistics", write(STATS, b""), "cannot be read"),
    Case("garbled statistics", write(STATS, b"{"), "cannot be read"),
    Case("statistics nested deep", write(STATS, DEEP), "cannot be read"),
    Case("statistics are a list", write(STATS, b"[1, 2]"), "cannot be read"),
    *oddities(VIDEO),
    Case("videos lead outside", linked_folder("videos"), OUTSIDE),
]
LABELLED = [
    Case("an unknown field", info(colour="blue", total_videos=3), ""),
    Case("no statistics", gone(STATS), ""),
    Case("no splits", info(splits=[]), ""),
    Case("a robot that is a number", info(robot_type=5), ""),
    Case("fps is a fraction", info(fps=10.0), ""),
    Case("a note among the data", lambda root: (root / "data/notes.txt").write_text("mine"), ""),
    Case("episodes lack tasks", column(EPISODES, "tasks", None), ""),
    Case("no to_timestamp", column(EPISODES, f"videos/{CAMERA}/to_timestamp", None), ""),
    Case(
        "to_timestamp is the last frame's own",
        column(
            EPISODES,
            f"videos/{CAMERA}/to_timestamp",
            lambda ends: [end - 0.1 for end in ends],
        ),
        "",
    ),
    Case("to_timestamp is null", column(EPISODES, f"videos/{CAMERA}/to_timestamp", [None] * 3), ""),
    Case("timestamps are NaN", column(DATA, "timestamp", [float("nan")] * 12), ""),
    Case("a task that nobody uses", info(total_tasks=2), ""),
]
