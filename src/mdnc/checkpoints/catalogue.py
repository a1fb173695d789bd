"""The networks by family and order, and by name."""

import os

from mdnc import _bundle
from mdnc.modules import Network, _pretrained
from mdnc.modules.resnet import presets

FAMILIES: dict[str, dict[int, type[Network]]] = {
    'encoder': {**presets.ENCODERS},
    'decoder': {**presets.DECODERS},
    'autoencoder': {**presets.AES},
    'unet': {**presets.UNETS},
}
NAMED = {made.__name__: made for orders in FAMILIES.values() for made in orders.values()}


def load(source: str | os.PathLike[str]) -> Network:
    """Rebuild whichever network `save_pretrained` or ``mdnc fit`` wrote, on the CPU and in eval mode.

    Nothing in the files is run. The example saved with the network is, and ``origin.difference`` says how far the
    answer was off; ``origin.data`` holds what the network was trained on (normalisation, class names).

    Args:
        source: A folder of ``save_pretrained``, a checkpoint of ``mdnc fit`` or the folder of its run (the best
            checkpoint is taken), or ``'hf://owner/name'`` with an optional ``@revision``.

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
    bundle = _bundle.read(source)
    if bundle.name not in NAMED:
        raise ValueError(f'{source} holds a {bundle.name}, which is none of {", ".join(NAMED)}; load it by its class.')
    return _pretrained.revived(NAMED[bundle.name], bundle, source)
