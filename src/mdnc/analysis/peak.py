"""The most bytes that are held at a time while a network runs on stand-ins: allocations and frees are followed."""

import weakref
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from mdnc._torch import TorchDispatchMode, ask_device
from mdnc.analysis.parts import PartWatch
from mdnc.analysis.workspaces import moment


class AllocationTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operators make until they are freed.

    Args:
        watch: Knows which part is running.
        there: Tensors that are there from the beginning.
        beside: Bytes that are there beside them.
    """

    def __init__(self, watch: PartWatch, there: Iterable[Tensor] = (), beside: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = beside
        self.most: dict[str, int] = defaultdict(int)  # by the part that ran
        self._watch = watch
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in there:
            self._enter(tensor)

    @property
    def peak(self) -> int:
        """The most bytes that were held at a time."""
        return max(self.most.values(), default=self.held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ask_device:
            return args[0].fake_device  # asked at every turn
        outputs = func(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
            if isinstance(output, Tensor):
                self._enter(output)
        self.note(moment(func, args, outputs))
        return outputs

    def note(self, more: int) -> None:
        """Count bytes that are held for a moment beside all that is held now."""
        part = self._watch.current
        self.most[part] = max(self.most[part], self.held + more)

    def _enter(self, tensor: Tensor) -> None:
        # The Python object of a storage lives as long as the storage itself.
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.held += size
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.held -= size
