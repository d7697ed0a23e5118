"""What a ledger in a file holds after a loss of power: all up to the latest wait for the disk."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.decision import Announce, Failure, Retry
from consumer.ledger import Ledger
from consumer.ledger.sqlite import SqliteStore
from tests.desk import deciding, opened_desk
from tests.fakes import delivery

if TYPE_CHECKING:
    import pytest

    from consumer.caller import Turn
    from consumer.decision import Decision
    from consumer.messages import CallRequested

IDS = [f"r-{n}" for n in range(20)]
STARTED = Announce("call-1", "answer")
LATER = Retry(30, 2, Failure("CONNECTION_ERROR", "Connection error"))
DECISIONS: list[Decision] = [STARTED, LATER] * len(IDS)


class Disk:
    """Keeps of a ledger's files what was on the disk at the latest wait for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "ledger.db"
        self.kept = folder / "kept.db"
        self.waits = 0
        write = SqliteStore._write  # noqa: SLF001  # a sync of files cannot be seen from outside

        def watched(store: SqliteStore) -> None:
            write(store)
            if store.place == str(self.file) and store._durably:  # noqa: SLF001
                self.waits += 1
                _copy(self.file, self.kept)

        monkeypatch.setattr(SqliteStore, "_write", watched)

    def copy_kept(self) -> Path:
        """Return what the machine finds when it has power again."""
        _copy(self.kept, found := self.file.with_name("found.db"))
        return found


def _copy(file: Path, to: Path) -> None:
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{file}{suffix}", f"{to}{suffix}")
    Path(f"{to}-shm").unlink(missing_ok=True)


async def claimed(file: Path) -> set[str]:
    """Return whose claims are on record in a copy of the ledger."""
    ledger = Ledger(f"sqlite:///{file}", "queue")
    await ledger.open()
    known = {i for i in IDS if await ledger.get(i)}
    await ledger.close()
    return known


async def test_a_claim_is_on_disk_before_the_dial_and_nothing_else_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.published.SOON_S", 60.0)
    disk = Disk(tmp_path, monkeypatch)
    async with opened_desk(f"sqlite:///{disk.file}") as desk:
        processor, place = deciding(desk, *DECISIONS), desk.caller.place
        early: list[str] = []

        async def watched(
            call: CallRequested, attempt: int, turn: Turn, *, send_before: float
        ) -> Decision:
            if call.request_id not in await claimed(disk.copy_kept()):
                early.append(call.request_id)
            return await place(call, attempt, turn, send_before=send_before)

        monkeypatch.setattr(desk.caller, "place", watched)
        await processor.process(delivery(IDS[0]))
        waits = disk.waits
        for request_id in IDS[1:]:
            await processor.process(delivery(request_id))
        waits = disk.waits - waits

    assert early == []
    assert waits == len(IDS) - 1


async def test_a_loss_of_power_makes_doubts_of_the_last_calls_and_never_second_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path, monkeypatch)
    async with opened_desk(f"sqlite:///{disk.file}") as desk:
        processor = deciding(desk, *DECISIONS)
        await asyncio.gather(*(processor.process(delivery(i)) for i in IDS))
        kept = disk.copy_kept()
    assert len(desk.caller.placed) == len(IDS)

    async with opened_desk(f"sqlite:///{kept}") as after:
        processor = after.processor()
        for request_id in IDS:
            await processor.process(delivery(request_id, redelivered=True))
            assert (await after.entry(request_id)).claimed_at > 0

    assert after.caller.placed == []
