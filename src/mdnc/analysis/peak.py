"""Peak memory of a network that runs on fake tensors, by tracking allocations and frees."""

import weakref
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from mdnc._torch import TorchDispatchMode, ask_device
from mdnc.analysis.parts import PartWatch
from mdnc.analysis.workspaces import moment, unmeasured


class AllocationTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the storages that operators allocate until they are freed.

    Args:
        watch: Provides the part that is running.
        there: Tensors that exist from the beginning.
        beside: Further bytes that are allocated.
    """

    def __init__(self, watch: PartWatch, there: Iterable[Tensor] = (), beside: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = beside
        self.most: dict[str, int] = defaultdict(int)  # by the part that ran
        self.unmeasured: set[str] = set()  # operators whose temporary memory is not known
        self._watch = watch
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in there:
            self._enter(tensor)

    @property
    def peak(self) -> int:
        """The largest number of bytes allocated at a time."""
        return max(self.most.values(), default=self.held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ask_device:
            return args[0].fake_device  # called often
        outputs = func(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
            if isinstance(output, Tensor):
                self._enter(output)
        self.note(moment(func, args, outputs))
        if name := unmeasured(func, args):
            self.unmeasured.add(name)
        return outputs

    def note(self, more: int) -> None:
        """Count bytes that are allocated temporarily in addition to the present ones."""
        part = self._watch.current
        self.most[part] = max(self.most[part], self.held + more)

    def _enter(self, tensor: Tensor) -> None:
        # The Python object of a storage lives as long as the storage.
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.held += size
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.held -= size
