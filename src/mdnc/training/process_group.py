"""The end of a run of several processes: the threads of their group end before Python does."""

import atexit
import gc

from torch import distributed


def end_group_at_exit(wanted: bool = True) -> None:
    """Have this process leave its group before the interpreter ends; Lightning does so for NCCL alone.

    A thread of gloo that lets go of a tensor while Python is ending asks for its lock, is ended there, and takes the
    process with it: "terminate called without an active exception", exit code -6, after all work was done.

    Args:
        wanted: False takes it back: after an error the other processes may never answer, and leaving would wait.
    """
    atexit.unregister(_end_group)
    if wanted:
        atexit.register(_end_group)


def _end_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()  # what still holds the group, a wrapped network in a cycle, holds its threads
