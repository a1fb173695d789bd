"""The networks by name."""

import os
from collections.abc import Collection
from typing import Any

from mdnc import _bundle
from mdnc._bundle import Bundle
from mdnc.modules import Network, _pretrained, resnet
from mdnc.modules._external import allowed_class

NAMED: dict[str, type[Network]] = {
    name: made
    for name in resnet.__all__
    if isinstance(made := getattr(resnet, name), type) and issubclass(made, Network)
}


def load(source: str | os.PathLike[str], *, allow: Collection[str] = ()) -> Any:
    """Rebuild whichever network `save_pretrained` or ``mdnc fit`` wrote, on the CPU and in eval mode.

    Nothing in the files is run. The example saved with the network is, and ``origin.difference`` says how far the
    answer was off; ``origin.data`` holds what the network was trained on (normalisation, class names). With it
    ``net.predict(x)`` answers as ``mdnc predict`` does; for a class that is not mdnc's, ``Answer(net).predict(x)``.

    Args:
        source: A folder of ``save_pretrained``, a checkpoint of ``mdnc fit`` or the folder of its run (the best
            checkpoint is taken), or ``'hf://owner/name'`` with an optional ``@revision``.
        allow: Full names of classes of ``nn.Module``, not mdnc's, that may be imported and built, because you trust
            them.

    Returns:
        The network, of the class that was saved.

    Raises:
        FileNotFoundError: There is nothing, or a part is missing.
        ValueError: It is damaged (`DamagedFileError`), of a newer format, of an unknown class, or its answer to the
            example is off.

    Example:
        >>> import mdnc, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> mdnc.modules.resnet.UNet1d(8, [1, 1]).save_pretrained(folder)
        >>> type(mdnc.checkpoints.load(folder)).__name__
        'UNet1d'
    """
    return revived(_bundle.read(source), source, allow)


def revived(bundle: Bundle, source: str | os.PathLike[str], allow: Collection[str] = ()) -> Any:
    """Build the network of a bundle: one of mdnc's, or of a class that is allowed.

    Raises:
        ValueError: The class is neither, or see `load`.
    """
    if bundle.name in NAMED:
        return _pretrained.revived(NAMED[bundle.name], bundle, source)
    if '.' not in bundle.name:
        known = ', '.join(NAMED)
        raise ValueError(f'{source} holds a {bundle.name:.80}, which is none of {known}; load it by its class.')
    cls = allowed_class(bundle.name, allow, source)
    try:
        net = cls(**bundle.arguments)
        net.load_state_dict(bundle.weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f'{source} does not hold a {bundle.name} as that class is now: {error}') from error
    net.origin = _pretrained.Origin(str(source), bundle.data, None)  # type: ignore[assignment]
    return net.eval()
