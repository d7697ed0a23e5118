"""What kind of portal the sandbox is just now."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from consumer.sandbox.answers import ANSWERS

LINES = {"reg151083": "Cloud PBX (9)", "sip7": "Office PBX 1", "74950000000": "+7 495 000-00-00"}

Right = Literal["any", "own", "denied", "absent"]
Seconds = Annotated[float, Field(ge=0)]


class Switches(BaseModel):
    """What can be set before and while the sandbox runs (``PATCH /sandbox``)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    secret: str = "sandbox-not-a-secret"  # noqa: S105  # it says so
    client_id: str = "local.sandbox"
    client_secret: str = "sandbox-client-not-a-secret"  # noqa: S105  # it says so
    redirect_to: str = "https://application.example/"
    """Where the page that lets the application in leads to."""
    token_lifetime_s: Seconds = 3600
    """How long access tokens last that are given out from now on."""
    application: Literal["installed", "revoked", "removed"] = "installed"
    """Revoked: no refresh token is good any more; removed: no access token either."""
    authorisation_down: bool = False
    """Whether the authorisation server answers with 503."""
    scopes: tuple[str, ...] = ("call", "telephony")
    lines: dict[str, str] = LINES
    statuses: Literal["docs", "observed"] = "docs"
    """The statuses of auth errors: those Bitrix24's pages list, or those its portals send."""
    error_core: Literal["ERROR_CORE", ""] = "ERROR_CORE"
    """The code of startwithtext's own errors; kernels raise them without one."""
    trouble: str | None = None
    """The name of the answer that every request gets, if it is that method's to give."""

    rate_per_s: Seconds = 2
    """How much the request counter falls each second; 0 turns the limit off."""
    threshold: Annotated[int, Field(ge=0)] | None = None
    """What the counter may reach; None: 25 times the rate."""
    operating_s: Seconds = 0.14
    """How long a startwithtext is said to have run. It is not waited for."""
    operating_limit_s: Seconds = 480
    send_operating: bool = True
    allowance: Annotated[int, Field(ge=0)] | None = None
    """How many more calls this month allows on lines that are not SIP; None: no limit."""

    history: Right = "any"
    """The right to see statistics: all, one's own (so no infocalls), none; or no such method."""
    line_list: Literal["any", "denied", "absent"] = "any"
    call_duration_s: Seconds = 20
    """How long somebody listens to a call; only when it ends it is in the statistics."""
    call_speed: Annotated[float, Field(gt=0)] = 1
    """How much sooner calls end than they say: ringing and speech take so much less time."""
    utc_offset_h: Annotated[float, Field(gt=-24, lt=24)] = 1
    user_offset_h: Annotated[float, Field(gt=-24, lt=24)] = 0
    """How far dates in a filter are shifted: the webhook owner's zone against the portal's."""
    clock_offset_s: float = 0
    """How far the clock of the portal's web server is ahead of ours."""
    call_clock_offset_s: float = 0
    """How far the clock of its telephony, which dates the calls, is ahead of ours."""
    hold_s: Seconds = 70
    """How long a silent answer holds the connection."""

    @field_validator("trouble")
    @classmethod
    def _known(cls, trouble: str | None) -> str | None:
        if trouble is not None and trouble not in ANSWERS:
            raise ValueError(f"no answer has this name; there are: {', '.join(ANSWERS)}")
        return trouble
