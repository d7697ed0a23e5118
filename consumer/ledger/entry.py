"""What the ledger keeps about one request."""

from dataclasses import dataclass, field
from typing import Literal

from consumer.decision import Failure
from consumer.messages import ConfirmedBy, Reason
from consumer.messages.endings import CallOutcome

State = Literal["placing", "started", "delayed", "failed"]
Scheduled = Literal["not_before", "calling_hours"]
"""What a request waits for that no attempt has failed."""
UNSEEN_BODY = ""
"""The digest of the body of a request that no worker has seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """All that is known about one request; times are seconds since the epoch, by a host's clock.

    Attributes:
        attempt: The current or the last attempt; when delayed, the next one, or the one in doubt.
        replay: How often a person has sent the request back, counting from 0.
        owner: Which worker process wrote this.
        first_seen_at: When upstream published the request, or a worker first saw it.
        first_claimed_at: When this replay was first about to dial, 0 before that.
        claimed_at: When the latest attempt was about to dial, 0 before that.
        changed_at: When the state was reached.
        due_at: When delayed: not before then.
        scheduled: What it waits for, where it does not wait because of a failure.
        cancelled_at: When it was taken back, 0 if it was not. Set by `Ledger.cancel` alone.
        cancelled_for: Why, if upstream said so.
        replayed_at: When this replay began, if the one before is in doubt and it has not dialled;
            else 0.
        rows_from: A row of the call history that is older may belong to an earlier replay.
        clock_offset_s: How far the portal's clock was ahead of the writer's; None if unknown.
        unsure_since: Since when the phone may have rung without our knowing.
        published: Whether the broker has confirmed the message that belongs to the state.
        body_digest: Of the fields as sent.
        target_digest: Of number and line.
        number_digest: Of the number.
        traceparent: The W3C header that the latest attempt was made under, for what is published
            when the message is gone.
        version: Grows with each change.
        outcome: How the call ended; None while that is not known. Set by `Completions` alone, as
            are the next two.
        ended_code: The portal's code for that.
        duration_s: For how many seconds was spoken.
    """

    request_id: str
    state: State
    attempt: int
    replay: int
    owner: str
    first_seen_at: float
    first_claimed_at: float = 0.0
    claimed_at: float = 0.0
    changed_at: float
    due_at: float = 0.0
    scheduled: Scheduled | None = None
    cancelled_at: float = 0.0
    cancelled_for: str | None = None
    replayed_at: float = 0.0
    rows_from: float = 0.0
    clock_offset_s: float | None = None
    call_id: str | None = None
    confirmed_by: ConfirmedBy | None = None
    unsure_since: float | None = None
    line: str | None = None
    reason: Reason | None = None
    code: str = ""
    description: str = ""
    http_status: int | None = None
    published: bool = False
    body_digest: str
    target_digest: str = ""
    number_digest: str = ""
    traceparent: str | None = None
    version: int = 0
    outcome: CallOutcome | None = field(default=None, compare=False)
    ended_code: str | None = field(default=None, compare=False)
    duration_s: float | None = field(default=None, compare=False)

    @property
    def failure(self) -> Failure:
        """What went wrong last."""
        return Failure(self.code, self.description, self.http_status)
