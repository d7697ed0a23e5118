"""The state of the parts of a worker, in words, and whether it is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from consumer.controls import LiveControls
from consumer.health import Part
from consumer.limits.circuit_breaker import CircuitBreaker
from consumer.rabbitmq.policies import Policies
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.subscription import Subscription

READY_ALL_THE_SAME = frozenset({"portal", "operator"})
"""The reasons for a pause that a new process would meet again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Asks the parts of a worker how they are.

    Attributes:
        troubles: What keeps messages from being taken, in words, by the reason for the pause.
        waits_for: Which step of the start does not work yet, and what is wrong; None if all did.
    """

    subscription: Subscription
    publisher: Publisher
    breaker: CircuitBreaker
    controls: LiveControls
    policies: Policies
    troubles: Callable[[], Mapping[str, str]]
    waits_for: Callable[[], tuple[str, str] | None]

    def parts(self, *, started: bool) -> dict[str, Part]:
        """Say how each part is; the worker is ready if all are well."""
        paused = sorted(self.subscription.paused_by)
        well = paused != [] and READY_ALL_THE_SAME.issuperset(paused)
        known = self._known()
        return {
            "started": Part(started, "started" if started else "starting or stopping"),
            "broker": Part(
                self.subscription.consuming or well,
                known.get("broker", self._taking(paused)),
            ),
            "publisher": Part(
                self.publisher.connected and self.publisher.stuck_s == 0,
                known.get("publisher", self._publishing()),
            ),
            "ledger": Part(
                "ledger" not in paused and "ledger" not in known,
                known.get("ledger", "down" if "ledger" in paused else "writable"),
            ),
            "pause": Part(ok=True, detail=self.controls.detail or self.breaker.detail),
            # Ready all the same: calls go on, and to take the worker away would fix nothing.
            "policies": Part(ok=True, detail=self.policies.detail),
        }

    def pauses(self) -> dict[str, str]:
        """Say for each reason to take no messages what is wrong, in words."""
        words = {
            "operator": self.controls.detail,
            "portal": f"the circuit breaker is {self.breaker.detail}",
            "ledger": "the ledger cannot be written",
            "publishing": "the broker confirms no message",
            **self.troubles(),
        }
        if (waiting := self.waits_for()) is not None:
            return {waiting[0]: waiting[1]}
        return {reason: words.get(reason, reason) for reason in self.subscription.paused_by}

    def _taking(self, paused: list[str]) -> str:
        if self.subscription.consuming:
            return "consuming"
        return f"paused: {', '.join(paused)}" if paused else "no consumer"

    def _publishing(self) -> str:
        if self.publisher.stuck_s > 0:
            return "nothing is confirmed"
        return "publishing" if self.publisher.connected else "not connected"

    def _known(self) -> dict[str, str]:
        """Say in words what is wrong with a part, where that is known."""
        troubles = self.troubles()
        known = {"broker": troubles.get("topology"), "ledger": troubles.get("lease")}
        if (waiting := self.waits_for()) is not None:
            step, reason = waiting
            part = "ledger" if step == "lease" else step
            known[part] = reason if step == "lease" else f"no {step} yet: {reason}"
        return {part: text for part, text in known.items() if text is not None}
