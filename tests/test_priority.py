"""What runs as root does not take the machine for itself."""

import subprocess
import sys
from pathlib import Path

import pytest

ENCODE = """
import os, sys
import av, numpy as np
from lerobot_topreward.priority import keep_normal_priority

keep_normal_priority()
keep_normal_priority()  # a second time is no error
container = av.open(sys.argv[1], "w")
stream = container.add_stream("libsvtav1", rate=10)
stream.width = stream.height = 64
stream.pix_fmt = "yuv420p"
image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
for packet in [*stream.encode(image), *stream.encode()]:
    container.mux(packet)
print({os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of Linux")
def test_an_encoder_takes_no_real_time_priority(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENCODE, str(tmp_path / "video.mp4")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ended.stdout == "{0}\n"  # SCHED_OTHER, as without root
