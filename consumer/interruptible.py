"""Which tasks only wait, so that they may be cancelled: nothing has been dialled yet."""

import asyncio
from types import TracebackType


class Interruptible:
    """A block of code in which the task that runs it may be cancelled."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Task[object]] = set()

    def __enter__(self) -> None:
        self._waiting.add(_current())

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._waiting.discard(_current())

    def cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel *task*, if it waits."""
        if task in self._waiting:
            task.cancel()

    def cancel_all(self) -> None:
        """Cancel all that wait."""
        for task in list(self._waiting):
            task.cancel()


def _current() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("this runs in tasks only")
    return task
