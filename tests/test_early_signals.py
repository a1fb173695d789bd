"""What the command does before anything is imported."""

import os
import signal
import sys

import pytest

from mdnc._early_signals import ignore_save_signal


@pytest.mark.parametrize(
    ('argv', 'orig', 'passes'),
    [
        (['/bin/mdnc', 'fit'], ['python', '/bin/mdnc', 'fit'], True),
        (['-m', 'fit'], ['python', '-m', 'mdnc.cli', 'fit'], True),
        (['train.py'], ['python', 'train.py'], False),
        ([], ['python'], False),
    ],
)
def test_a_wish_to_save_passes_in_the_command_alone(monkeypatch, argv, orig, passes):
    monkeypatch.setattr(sys, 'argv', argv)
    monkeypatch.setattr(sys, 'orig_argv', orig)
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        ignore_save_signal()
        assert (signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL) == passes
        if passes:
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
