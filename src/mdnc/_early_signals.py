"""What the command `mdnc` does before torch is imported, which takes seconds in which a scheduler may signal."""

import os
import signal
import sys


def ignore_save_signal() -> None:
    """Let SIGUSR1, which asks a run to save, pass in the process of the command while there is nothing to save."""
    words = [os.path.basename(sys.argv[0]), *sys.orig_argv[1:]] if sys.argv else []
    ours = bool(words) and (words[0] == 'mdnc' or any(word.startswith('mdnc.cli') for word in words[1:]))
    if ours and hasattr(signal, 'SIGUSR1'):
        signal.signal(signal.SIGUSR1, lambda *_: None)
