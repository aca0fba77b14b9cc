"""Keep encoders from taking the machine for themselves."""

import ctypes
import sys

_VERSION = 0x20080522  # of the kernel's capability sets: two words each of 32 bits
_SYS_NICE = 1 << 23  # capabilities(7): real-time priorities


def keep_normal_priority() -> None:
    """Give up this thread's right to real-time priorities, which root has on Linux.

    SVT-AV1, LeRobot's default encoder, gives one to its threads and to the thread that starts it
    where it may; every other program then waits until it is done, and what is started later has
    that priority, too. Threads that are started from here on have no such right either. Does
    nothing elsewhere, or where the right is missing already.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper words
    if libc.capget(header, sets) == 0:
        sets[0] &= ~_SYS_NICE
        libc.capset(header, sets)
