"""The signals that would end us: handle them otherwise, or put them off."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block, give *handler* the signals that would end us, but for those ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, its in before.items():
            if its is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, handler)
        yield
    finally:
        for number, its in before.items():
            signal.signal(number, its)


@contextmanager
def signals_held() -> Iterator[None]:
    """Put signals off: one that came within Popen would leave a process that nobody knows of."""
    if current_thread() is not main_thread():  # no signal interrupts another
        yield
        return
    came: list[int] = []
    try:
        with on_signals(lambda number, _: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)
