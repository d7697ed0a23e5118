"""The stand-in portal itself: its switches, its limits, its calls. No HTTP in here."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import timedelta, timezone
from typing import TYPE_CHECKING
from uuid import uuid4

from consumer.sandbox.answers import ANSWERS, INFOCALL, METHOD_STAGES, Answer
from consumer.sandbox.gates import GATES
from consumer.sandbox.history import ANSWERED, Calendar, Call
from consumer.sandbox.limits import Limits
from consumer.sandbox.methods import METHODS, View
from consumer.sandbox.numbers import NUMBERS
from consumer.sandbox.oauth import OAuthServer
from consumer.sandbox.replies import Error, Json, Reply, Result
from consumer.sandbox.switches import Switches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.sandbox.request import RestRequest


@dataclass
class Tally:
    """What came in. *arrivals* are the Unix times of the last startwithtext requests."""

    total: int = 0
    refused_by_rate: int = 0
    by_answer: Counter[str] = field(default_factory=Counter)
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=20_000))


class SandboxPortal:
    """A portal in memory.

    Args:
        switches: How it behaves; may be replaced at any time.
        monotonic: The clock of the rate limit, in seconds.
        wall: The clock of everything else, in Unix seconds.
    """

    def __init__(
        self,
        switches: Switches | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.switches = switches or Switches()
        self.calls: list[Call] = []
        self.history: list[Call] = []
        self._unlisted: list[Call] = []
        self.last_row = 0
        """The id of the latest row of the history."""
        self.tally = Tally()
        self._wall = wall
        self._limits = Limits(monotonic, wall)
        self._struck: Counter[str] = Counter()
        self.oauth = OAuthServer(lambda: self.switches, self.now)

    def now(self) -> float:
        """Tell the portal's time, in Unix seconds."""
        return self._wall() + self.switches.clock_offset_s

    def patch(self, changes: Mapping[str, object]) -> None:
        """Set some switches.

        Raises:
            pydantic.ValidationError: A field is unknown or a value wrong; nothing was set.
        """
        self.switches = Switches.model_validate({**self.switches.model_dump(), **changes})

    def forget_calls(self) -> None:
        """Forget all calls, and how often each number has failed."""
        self.calls.clear()
        self.history.clear()
        self._unlisted.clear()
        self._struck.clear()

    def answer(self, request: RestRequest) -> Reply:
        """Process *request* in the order in which a portal does (`GATES`)."""
        self.tally.total += 1
        if request.method == INFOCALL:
            self.tally.arrivals.append(self._wall())
        answer = self._stopped(request)
        self.tally.by_answer[answer.name if answer else "ok"] += 1
        if answer is not None:
            return self._give(answer, request)
        payload = METHODS[request.method](self._view(), request)
        return Json(200, {**payload, "time": self._time(request.method, 0.01)})

    def _stopped(self, request: RestRequest) -> Answer | None:
        """Find the answer that ends *request*; None for another method that simply works."""
        fate = self._fate(request)
        infocall = request.method == INFOCALL
        for stage, (passes, refusal) in GATES.items():
            if stage in METHOD_STAGES and stage != "permission" and not infocall:
                continue
            if not passes(self._limits, self.switches, request):
                self.tally.refused_by_rate += stage == "rate"
                return ANSWERS[refusal]
            if stage == "credential" and (refused := self.oauth.refusal_of(request)):
                return ANSWERS[refused]
            if fate is not None and fate.stage == stage:
                if self.switches.trouble is None:
                    self._struck[request.digits] += 1
                return fate
        return ANSWERS["placed"] if infocall else None

    def _fate(self, request: RestRequest) -> Answer | None:
        """Look up how *request* will fail: by the trouble, else by its number."""
        infocall = request.method == INFOCALL
        if (name := self.switches.trouble) is not None:
            trouble = ANSWERS[name]
            return trouble if infocall or trouble.stage not in METHOD_STAGES else None
        number = NUMBERS.get(request.digits)
        if not infocall or number is None:
            return None
        if number.times is None or self._struck[number.number] < number.times:
            return number.answer
        return None

    def _give(self, answer: Answer, request: RestRequest) -> Reply:
        if answer.stage == "controller":
            self._limits.operating_of(request.method).add(self._wall(), self.switches.operating_s)
        call = self._place(request) if answer.places else None
        match answer.reply:
            case Error() as error:
                return self._error(error, request)
            case Result(result, call_id, damage):
                known = call.call_id if call is not None and call_id else None
                ran = self._time(request.method, self.switches.operating_s)
                body = {"result": {"RESULT": result, "CALL_ID": known}, "time": ran}
                return Json(200, body, damage)
            case reply:
                return reply

    def _error(self, error: Error, request: RestRequest) -> Json:
        status = error.status
        if self.switches.statuses == "observed" and error.observed is not None:
            status = error.observed
        own = error.code == "ERROR_CORE" and error.status == 400  # noqa: PLR2004
        code = self.switches.error_core if own else error.code
        text = error.description.replace("<FROM_LINE>", request.line)
        return Json(status, {"error": code, "error_description": text, **error.extra})

    def _place(self, request: RestRequest) -> Call:
        now = self._wall()
        if self.switches.allowance is not None and not request.is_sip:
            self.patch({"allowance": max(0, self.switches.allowance - 1)})
        known = NUMBERS.get(request.digits)
        ends = known.ends if known else ANSWERED
        talks_s = self.switches.call_duration_s if ends.talks else 0.0
        call = Call(
            id=len(self.calls) + 1,
            # The vendor's controller issues it, and by its own clock: some seconds earlier.
            call_id=f"infocall.{uuid4().hex}.{int(now) - 8}",
            from_line=request.line,
            to_number=request.dialled,
            text=request.text("TEXT_TO_PRONOUNCE"),
            voice=request.text("VOICE") or "usenglishmale",
            placed_at=now,
            dated_at=now + self.switches.call_clock_offset_s,
            ended_at=now + (ends.rings_s + talks_s) / self.switches.call_speed
            if ends.listed
            else None,
            duration_s=talks_s,
            code=ends.code,
            reason=ends.reason,
        )
        self.calls.append(call)
        if call.ended_at is not None:
            self._unlisted.append(call)
        return call

    def _time(self, method: str, ran_s: float) -> dict[str, object]:
        """Make the ``time`` object; like newer kernels, with a start cut to whole seconds."""
        start, finish = int(self.now()), self.now() + ran_s
        spent: dict[str, object] = {
            "start": start,
            "finish": finish,
            "duration": finish - start,
            "processing": int(finish) - start,
            "date_start": self.calendar.iso(start),
            "date_finish": self.calendar.iso(finish),
        }
        if self.switches.send_operating:
            operating, now = self._limits.operating_of(method), self._wall()
            spent["operating"] = operating.total_s(now)
            spent["operating_reset_at"] = int(
                operating.reset_at(now) + self.switches.clock_offset_s
            )
        return spent

    def _view(self) -> View:
        self._list_ended()
        return View(self.switches, self.history, self.calendar, self.now())

    def _list_ended(self) -> None:
        """Put into the history what has ended since, in that order: so its ids grow."""
        now = self._wall()
        over = [call for call in self._unlisted if call.ended_at and call.ended_at <= now]
        for call in sorted(over, key=lambda each: (each.ended_at or 0.0, each.id)):
            self._unlisted.remove(call)
            self.last_row += 1
            self.history.append(replace(call, id=self.last_row))

    @property
    def calendar(self) -> Calendar:
        zone = timezone(timedelta(hours=self.switches.utc_offset_h))
        return Calendar(zone, self.switches.user_offset_h * 3600)
