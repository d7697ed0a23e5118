"""Look at the portal: what the webhook may do, the clock, and the defaults' lines and voices."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from consumer.bitrix24.access import NoAccess
from consumer.bitrix24.lookup import advice_for
from consumer.bitrix24.portal import HISTORY, LINES, VOICES, Portal
from consumer.bitrix24.responses import error_of, read_names
from consumer.bitrix24.scopes import NEEDED_SCOPES, granted_scopes
from consumer.decision import Refused
from consumer.errors import LOGIN
from consumer.ledger import LedgerDown
from consumer.operations.finding import Finding
from consumer.operations.portal import NobodyLoggedIn, open_portal
from consumer.settings import Settings, WrongSettings

CLOCK_TOLERANCE_S = 60.0


async def check_portal(settings: Settings) -> AsyncGenerator[Finding]:
    """Ask the portal what changes nothing there; without an answer there is one finding."""
    try:
        settings.needed("bitrix24_url")
    except WrongSettings as error:
        yield Finding("portal", "wrong", str(error), "make an inbound webhook and set its address")
        return
    try:
        async with (
            open_portal(settings) as portal,
            aclosing(_look_at(portal, settings)) as findings,
        ):
            async for finding in findings:
                yield finding
    except NoAccess as error:
        fix = "see CALLS_OAUTH_SERVER_URL, the network and the proxy"
        fix = LOGIN if isinstance(error.outcome, Refused) else fix
        yield Finding("portal", "wrong", f"not asked: {error}", fix)
    except (LedgerDown, NobodyLoggedIn):  # which the ledger's and the login's findings say
        yield Finding("portal", "warning", "not asked: there are no tokens", "log in, check again")


async def _look_at(portal: Portal, settings: Settings) -> AsyncGenerator[Finding]:
    scopes = await portal.ask("scope")
    if scopes is None:
        fix = "see CALLS_BITRIX24_URL, the network and the proxy"
        text = f"{portal.host} does not answer: {portal.silence}"
        yield Finding("portal", "wrong", text, fix)
        return
    yield _scopes(portal.host or "", *scopes)
    yield _clock(portal.clock_offset_s or 0.0)
    history = await portal.ask(HISTORY)
    advice = "without it doubts wait for a person: grant Call statistics - View, for any call"
    yield _right("call history", history, advice)
    lines = await portal.ask(LINES)
    advice = "only this check needs it: the right Manage numbers - modify"
    yield _names("lines", lines, settings.default_line, "CALLS_DEFAULT_LINE", advice)
    voices = await portal.ask(VOICES)
    advice = "only this check needs it: the scope telephony"
    yield _names("voices", voices, settings.default_voice, "CALLS_DEFAULT_VOICE", advice)


def _scopes(host: str, status: int, body: bytes) -> Finding:
    code, description = error_of(body)
    if code:
        fix = advice_for(code, description)
        return Finding("portal", "wrong", f"{host} answers {code} {description}", fix)
    granted = granted_scopes(body)
    if granted is None:
        text = f"{host} answers, but not as a portal does (HTTP {status})"
        return Finding("portal", "warning", text, "fine for a mock; else see CALLS_BITRIX24_URL")
    if missing := [scope for scope in NEEDED_SCOPES if scope not in granted]:
        fix = f"add to the webhook: {', '.join(missing)} (with OAuth: to the application)"
        return Finding("portal", "wrong", f"{host} answers, scopes are missing", fix)
    text = f"{host} answers, scopes {' and '.join(NEEDED_SCOPES)} are granted"
    return Finding("portal", "ok", text)


def _clock(offset_s: float) -> Finding:
    text = f"the portal's clock is {offset_s:+.0f} s from ours"
    if abs(offset_s) > CLOCK_TOLERANCE_S:
        return Finding("clock", "warning", text, "set this machine's clock (NTP)")
    return Finding("clock", "ok", text)


def _right(item: str, answer: tuple[int, bytes] | None, advice: str) -> Finding:
    if answer is None:
        return Finding(item, "warning", "no answer", advice)
    code, description = error_of(answer[1])
    if code or answer[0] != 200:  # noqa: PLR2004
        text = f"not readable: {code or answer[0]} {description}".strip()
        return Finding(item, "warning", text, advice)
    return Finding(item, "ok", "readable")


def _names(
    item: str, answer: tuple[int, bytes] | None, default: str | None, setting: str, advice: str
) -> Finding:
    finding = _right(item, answer, advice)
    names: dict[str, Any] | None = read_names(answer[1]) if answer else None
    if finding.state != "ok" or names is None:
        return Finding(item, "warning", finding.detail, advice)
    if default is not None and default not in names:
        fix = f"fix {setting}: `call-consumer {item}` lists what exists"
        return Finding(item, "wrong", f"{default} is not among the {len(names)} {item}", fix)
    return Finding(
        item, "ok", f"{len(names)} {item}" + (f", {default} among them" if default else "")
    )
