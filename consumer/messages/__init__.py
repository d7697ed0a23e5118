"""The wire: what upstream systems publish, and the words that requests and events share."""

from consumer.messages.bodies import MAX_BODY_BYTES, Invalid, read_json
from consumer.messages.cancellations import CallCancel, read_cancel
from consumer.messages.endings import CallOutcome, Ending
from consumer.messages.formats import read_moment, rfc3339, rfc3339_at
from consumer.messages.numbers import read_number
from consumer.messages.requests import (
    CANCEL,
    COMPLETED,
    FAILED,
    MAX_METADATA,
    REQUESTED,
    STARTED,
    CallRequested,
    ConfirmedBy,
    Defaults,
    Reason,
    looks_like_a_name,
    read_body,
    read_request,
    readable_id,
)

__all__ = [
    "CANCEL",
    "COMPLETED",
    "FAILED",
    "MAX_BODY_BYTES",
    "MAX_METADATA",
    "REQUESTED",
    "STARTED",
    "CallCancel",
    "CallOutcome",
    "CallRequested",
    "ConfirmedBy",
    "Defaults",
    "Ending",
    "Invalid",
    "Reason",
    "looks_like_a_name",
    "read_body",
    "read_cancel",
    "read_json",
    "read_moment",
    "read_number",
    "read_request",
    "readable_id",
    "rfc3339",
    "rfc3339_at",
]
