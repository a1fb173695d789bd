"""What takes over the signals of a process gives them back."""

import signal

from mdnc.cli import main
from mdnc.training.process_signals import WATCHDOG, leaving_at_once


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]


def test_a_program_that_goes_on_after_a_command_is_not_watched(tmp_path, capsys):
    before = handlers()
    assert main(['test', '--config', str(tmp_path)]) == 2  # no run
    assert capsys.readouterr().err
    assert handlers() == before and not WATCHDOG.running


def test_whoever_looks_already_goes_on():
    before = handlers()
    with leaving_at_once():
        assert WATCHDOG.running and handlers() != before
        with leaving_at_once():
            pass
        assert WATCHDOG.running
    assert handlers() == before and not WATCHDOG.running
