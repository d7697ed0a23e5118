"""What was done for which request. Where other records differ, the ledger is right."""

from consumer.ledger.entry import Entry, State
from consumer.ledger.ledger import Ledger
from consumer.ledger.store import LedgerDown, WrongLedger

__all__ = ["Entry", "Ledger", "LedgerDown", "State", "WrongLedger"]
