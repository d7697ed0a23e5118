"""``/sandbox``: steers the sandbox by its switches, and shows what came in."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.responses import Response

from consumer.sandbox.portal import SandboxPortal, Tally

if TYPE_CHECKING:
    from starlette.requests import Request


class Control:
    """Answers what is asked and set under ``/sandbox``."""

    def __init__(self, portal: SandboxPortal) -> None:
        self._portal = portal

    async def switches(self, request: Request) -> Response:
        if request.method == "PATCH":
            try:
                self._portal.patch(_object(await request.body()))
            except ValidationError as error:
                wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
                return _reply({"error": "; ".join(wrong)}, 400)
            except ValueError as error:
                return _reply({"error": str(error)}, 400)
        return _reply(self._portal.switches.model_dump())

    async def calls(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._portal.forget_calls()
        since = request.query_params.get("since", "0")
        if not since.isdecimal():
            return _reply({"error": "since: write how many calls you have seen"}, 400)
        return _reply([asdict(call) for call in self._portal.calls[int(since) :]])

    async def requests(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._portal.tally = Tally()
        tally = self._portal.tally
        return _reply({**vars(tally), "arrivals": list(tally.arrivals)})


def _object(body: bytes) -> dict[str, object]:
    try:
        changes = json.loads(body)
    except ValueError as error:
        raise ValueError(f"this is no JSON: {error}") from error
    if not isinstance(changes, dict):
        raise ValueError("write a JSON object of switches")  # noqa: TRY004
    return changes


def _reply(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")
