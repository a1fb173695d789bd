"""End of runs with several processes: leave the process group before Python exits."""

import atexit
import gc

from torch import distributed


def end_group_at_exit(wanted: bool = True) -> None:
    """Leave the process group before the interpreter exits; Lightning does this for NCCL only.

    A thread of gloo that releases a tensor while Python exits waits for its lock, is ended there, and aborts the
    process: "terminate called without an active exception", exit code -6, after all work was done.

    Args:
        wanted: False cancels it: after an error the other processes may never answer, and leaving would wait.
    """
    atexit.unregister(_end_group)
    if wanted:
        atexit.register(_end_group)


def _end_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()  # objects that still refer to the group, such as a wrapped network in a cycle, keep its threads
