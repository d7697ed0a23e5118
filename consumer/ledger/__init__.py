"""What was done for which request: the truth that every other record gives way to."""

from consumer.ledger.entry import Entry, State
from consumer.ledger.ledger import Ledger
from consumer.ledger.store import LedgerDown, WrongLedger

__all__ = ["Entry", "Ledger", "LedgerDown", "State", "WrongLedger"]
