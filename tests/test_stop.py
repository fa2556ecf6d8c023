"""Tests signals that end a training run between two of its steps."""

import os
import signal
import sys

import pytest

from commands.stop import StopRequest

pytestmark = pytest.mark.usefixtures("usual_handlers")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request_and_the_second_interrupts(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before
    assert (
        capsys.readouterr().err.strip() == "stopping after this step, with a checkpoint; a second Ctrl-C ends at once"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_forked_process_ignores_the_signals() -> None:
    with StopRequest() as stop:
        child = os.fork()
        if child == 0:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) * 2:
                os.kill(os.getpid(), number)
            os._exit(7)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert not stop()
