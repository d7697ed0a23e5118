"""What became of one request, in words and for programs. Pure."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from consumer.ledger import Entry
from consumer.ledger.letter_acts import LetterAct
from consumer.messages.endings import in_words
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.waits import moment, stamp, waits_for_a_person, when_delayed
from consumer.output import shown_id

Outcome = Literal["started", "failed", "waiting", "in doubt", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What an answer depends on beside the request.

    Attributes:
        queue: The queue of requests.
        waiting: How many messages wait there; None if that cannot be told.
        not_looked: Why nobody looked at the dead letters, empty if somebody did.
        retention_days: How long the ledger keeps what is finished.
    """

    queue: str
    waiting: int | None = None
    not_looked: str = ""
    retention_days: int = 400

    @property
    def waits(self) -> str:
        """How many wait in the queue, in words."""
        count = "an unknown number of" if self.waiting is None else f"{self.waiting:,}"
        return f"{count} wait in {self.queue}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is known about one request.

    Attributes:
        entry: The ledger's.
        letter: The newest of its dead letters.
        act: What an operator did with the one before.
        earlier_calls: Calls that were placed for it before the one that *entry* tells of.
        earlier_doubts: Calls to another number that may have rung, before it was edited.
        is_open: Whether a worker will note how its call ends.
    """

    request_id: str
    entry: Entry | None = None
    letter: DeadLetter | None = None
    act: LetterAct | None = None
    earlier_calls: int = 0
    earlier_doubts: int = 0
    is_open: bool = False

    @property
    def outcome(self) -> Outcome:
        """What it came to, in a word."""
        entry = self.entry
        if entry is None:
            if self.letter is None and self.act is not None and self.act.act == "replayed":
                return "waiting"
            return "failed" if self.letter or self.act else "unknown"
        if entry.state == "failed":
            return "waiting" if self.is_sent_back else "failed"
        if entry.state == "started":
            return "started"
        return "waiting" if entry.unsure_since is None else "in doubt"

    @property
    def is_sent_back(self) -> bool:
        """Whether it was replayed, and no worker has taken that up yet."""
        act = self.act
        if self.letter is not None or act is None or act.act != "replayed":
            return False
        return self.entry is None or act.replay > self.entry.replay

    @property
    def times_dialled(self) -> int:
        """How many calls the portal has accepted for it, as far as the ledger knows."""
        started = self.entry is not None and self.entry.state == "started"
        return self.earlier_calls + started

    @property
    def ended(self) -> str:
        """How its call ended, in words; empty where nobody knows, nor will."""
        if self.entry is None or self.entry.outcome is None:
            return "not known yet" if self.is_open else ""
        return in_words(self.entry.outcome, self.entry.duration_s)

    def next(self, around: Around) -> str:
        """Say what comes next, and when."""
        entry = self.entry
        if entry is None:
            return self._unknown(around)
        match entry.state:
            case "placing":
                return (
                    f"being dialled since {moment(entry.claimed_at)}; if its worker died, "
                    "the call history is asked"
                )
            case "delayed":
                return when_delayed(entry)
            case "started":
                return "nothing" if entry.published else "call.started is out, or will be"
            case "failed":
                return self._failed(entry, around)

    def _failed(self, entry: Entry, around: Around) -> str:
        if not entry.published:
            return "call.failed is yet to be published"
        if entry.reason == "cancelled":
            return "nothing: it was taken back"
        if self.letter is not None:
            return waits_for_a_person(self.letter)
        if self.is_sent_back or (self.act is not None and self.act.act == "discarded"):
            return self._acted(around)
        if around.not_looked:
            return f"should be a dead letter: nobody could look ({around.not_looked})"
        return (
            f"no dead letter: it was replayed and not taken yet ({around.waits}), or removed "
            "by somebody who had not this ledger at hand"
        )

    def _acted(self, around: Around) -> str:
        act = self.act
        if act is None:
            return ""
        who = f"by {act.done_by} at {moment(act.done_at)}"
        if act.act == "discarded":
            return f"nothing: discarded {who}: {act.reason}"
        return f"sent back as replay {act.replay} {who}, not taken yet: {around.waits}"

    def _unknown(self, around: Around) -> str:
        if self.letter is not None:
            return f"never dialled; {waits_for_a_person(self.letter)}"
        if self.act is not None:
            return self._acted(around)
        looked = f"; nobody could look at dead letters ({around.not_looked})"
        return (
            f"not seen by any worker: it may still wait ({around.waits}), or went to another "
            f"queue, or has another id, or was finished over {around.retention_days} days ago"
            f"{looked if around.not_looked else ', and is no dead letter'}"
        )

    @property
    def detail(self) -> str:
        """What went wrong, or which call it was."""
        entry, letter = self.entry, self.letter
        if entry is not None and entry.state == "started":
            return f"call {entry.call_id}" if entry.call_id else "call without an id"
        if entry is not None and (entry.code or entry.reason):
            return f"{entry.reason or ''} {entry.code}: {entry.description}".strip()
        if entry is None and letter is not None:
            return f"{letter.reason} {letter.code or ''}: {letter.description or ''}"
        return ""

    def as_json(self, around: Around) -> str:
        """Write it as one line of JSON; times are RFC 3339."""
        told: dict[str, Any] = {"request_id": self.request_id, "outcome": self.outcome}
        told |= {"next": self.next(around), "times_dialled": self.times_dialled}
        entry, letter, act = self.entry, self.letter, self.act
        told |= {name: entry and getattr(entry, name) for name in _PLAIN}
        told |= {name: entry and stamp(getattr(entry, name)) for name in _TIMES}
        told["completed"] = (
            {"outcome": entry.outcome, "code": entry.ended_code, "duration_s": entry.duration_s}
            if entry and entry.outcome
            else None
        )
        told["dead_letter"] = letter and {name: getattr(letter, name) for name in _OF_LETTER}
        told["operator"] = act and {
            "act": act.act,
            "replay": act.replay,
            "at": stamp(act.done_at),
            "by": act.done_by,
            "reason": act.reason,
        }
        return json.dumps(told, ensure_ascii=False)

    def lines(self, around: Around) -> list[tuple[str, str]]:
        """Return what a person should read, each with a name; what is empty is left out."""
        entry = self.entry
        told = [("request", shown_id(self.request_id)), ("outcome", self.outcome)]
        if entry is not None:
            told += _facts(entry)
        if self.detail:
            told.append(("detail", self.detail))
        if self.ended:
            code = f", code {entry.ended_code}" if entry and entry.ended_code else ""
            told.append(("ended", self.ended + code))
        if self.earlier_calls:
            told.append(("before", f"{self.earlier_calls} more placed, at earlier replays"))
        if self.earlier_doubts:
            told.append(("before", f"{self.earlier_doubts} in doubt, to another number"))
        return [*told, ("next", self.next(around))]


_PLAIN = (
    *("state", "scheduled", "attempt", "replay", "line", "call_id", "confirmed_by"),
    *("reason", "code", "description", "http_status", "published", "cancelled_for"),
)
_TIMES = ("first_seen_at", "claimed_at", "changed_at", "due_at", "unsure_since", "cancelled_at")
_OF_LETTER = ("failed_at", "reason", "code", "description", "attempt", "replay")


def _facts(entry: Entry) -> list[tuple[str, str]]:
    facts = {
        "state": f"{entry.state} since {moment(entry.changed_at)}",
        "attempt": f"{entry.attempt}, replay {entry.replay}",
        "line": entry.line,
        "seen": moment(entry.first_seen_at),
        "dialled": moment(entry.claimed_at),
        "known by": entry.confirmed_by,
        "cancelled": moment(entry.cancelled_at)
        + (f": {entry.cancelled_for}" if entry.cancelled_for else ""),
    }
    return [(name, text) for name, text in facts.items() if text]
