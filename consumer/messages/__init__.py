"""The wire: what upstream systems publish, and the words that requests and events share."""

from consumer.messages.formats import read_moment, rfc3339
from consumer.messages.requests import (
    FAILED,
    MAX_BODY_BYTES,
    MAX_METADATA,
    REQUESTED,
    STARTED,
    CallRequested,
    ConfirmedBy,
    Defaults,
    Invalid,
    Reason,
    read_body,
    read_json,
    read_request,
    readable_id,
)

__all__ = [
    "FAILED",
    "MAX_BODY_BYTES",
    "MAX_METADATA",
    "REQUESTED",
    "STARTED",
    "CallRequested",
    "ConfirmedBy",
    "Defaults",
    "Invalid",
    "Reason",
    "read_body",
    "read_json",
    "read_moment",
    "read_request",
    "readable_id",
    "rfc3339",
]
