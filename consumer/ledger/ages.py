"""How long ago a record was written, by a monotonic clock."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from consumer.ledger.entry import Entry

CLOCKS_AGREE_S = 5.0
"""How far two hosts' clocks may be apart, measured against the portal's, which counts seconds."""
REMEMBERED = 25_000
"""Beginnings, 5 MB of them. What is forgotten is measured anew: a wait may last longer."""


class Ages:
    """Measures ages from the moment at which this process first saw a record.

    Time before that counts only where the writer's clock and ours are equally far from the
    portal's: clocks can be changed, and differ from host to host.

    Args:
        clock_offset_s: How far the portal's clock is ahead of ours now; None if unknown.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        clock_offset_s: Callable[[], float | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock_offset_s = clock_offset_s
        self._clock = clock
        self._began: OrderedDict[Hashable, float] = OrderedDict()

    def age_of(self, entry: Entry) -> float:
        """Return for how many seconds a claim has stood or, where it has none, a state."""
        since = entry.claimed_at if entry.state == "placing" else entry.changed_at
        return self.age_s(_version_of(entry), since, entry.clock_offset_s)

    def age_of_doubt(self, entry: Entry) -> float:
        """Return for how many seconds a call has been in doubt."""
        since = entry.changed_at if entry.unsure_since is None else entry.unsure_since
        return self.age_s(_doubt_of(entry), since, entry.clock_offset_s)

    def age_of_replay(self, entry: Entry) -> float:
        """Return how many seconds ago a call in doubt was replayed."""
        return self.age_s(_replay_of(entry), entry.replayed_at, entry.clock_offset_s)

    def note(self, written: Entry, was: Entry | None) -> None:
        """Note what has begun just now: its age never hangs on the wall clock.

        Nobody asks how old a settled request is.
        """
        if written.state in {"placing", "delayed"}:
            self.begin(_version_of(written))
        if written.unsure_since is not None and (was is None or was.unsure_since is None):
            self.begin(_doubt_of(written))
        if written.replayed_at and (was is None or not was.replayed_at):
            self.begin(_replay_of(written))

    def begin(self, key: Hashable) -> None:
        """Note that what *key* names has just happened."""
        self._began[key] = self._clock()
        if len(self._began) > REMEMBERED:
            self._began.popitem(last=False)

    def age_s(self, key: Hashable, since: float, clock_offset_s: float | None) -> float:
        """Return for how many seconds what *key* names has been so, as far as that is certain.

        Args:
            key: Names one event.
            since: When it was, by the clock of who wrote it down.
            clock_offset_s: How far the portal's clock was ahead of that clock.
        """
        if key not in self._began:
            self.begin(key)
            if self._agree(clock_offset_s):
                self._began[key] -= max(0.0, time.time() - since)
        return self._clock() - self._began[key]

    def _agree(self, theirs: float | None) -> bool:
        ours = self.clock_offset_s()
        return ours is not None and theirs is not None and abs(ours - theirs) <= CLOCKS_AGREE_S


def _version_of(entry: Entry) -> Hashable:
    return (entry.request_id, entry.version)


def _doubt_of(entry: Entry) -> Hashable:
    return ("doubt", entry.request_id, entry.claimed_at)


def _replay_of(entry: Entry) -> Hashable:
    return ("replay", entry.request_id, entry.replay)
