"""What the broker's policies do to our queues, as far as it shows without the management API."""

import time
from typing import Literal, get_args

import structlog

from consumer import metrics

SAID_AGAIN_S = 300.0
REMEMBERED_S = 3600.0

Setting = Literal["delivery-limit", "message-ttl", "max-length", "expires"]
BY_DEATH: dict[str, Setting] = {
    "delivery_limit": "delivery-limit",
    "expired": "message-ttl",
    "maxlen": "max-length",
}
"""The setting behind the broker's word for why it took a dead letter out of its queue."""

ADVICE: dict[Setting, str] = {
    "delivery-limit": "nothing is lost; take delivery-limit out of the policy for this queue",
    "message-ttl": "what was taken out is brought back; take message-ttl out of the policy",
    "max-length": "the queue is full; take max-length or max-length-bytes out of the policy",
    "expires": "the queue is gone with all that it held; take expires out of the policy",
}

log = structlog.get_logger(__name__)


class Policies:
    """Remembers what was seen, and reports it: in the log, a metric and `/readyz`."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Setting, str], float] = {}
        for setting in get_args(Setting):
            metrics.POLICY_HITS.labels(setting)  # from 0 on, or an increase to 1 is not seen

    def seen(self, setting: Setting, queue: str) -> None:
        """Report that *setting* affects *queue*: an error once, then every `SAID_AGAIN_S`."""
        metrics.POLICY_HITS.labels(setting).inc()
        now = time.monotonic()
        last = self._seen.get((setting, queue))
        if last is None or now - last >= SAID_AGAIN_S:
            self._seen[setting, queue] = now
            log.error("policy.seen", setting=setting, queue=queue, advice=ADVICE[setting])

    @property
    def recent(self) -> tuple[str, ...]:
        """What was seen within `REMEMBERED_S`, and where."""
        since = time.monotonic() - REMEMBERED_S
        return tuple(f"{s} on {queue}" for (s, queue), at in self._seen.items() if at >= since)

    @property
    def detail(self) -> str:
        """The same in words."""
        return f"a policy sets {', '.join(self.recent)}" if self.recent else "none seen"
