"""The command that logs in to a portal by OAuth."""

import json
import secrets
import sys
import time

import click

from consumer.bitrix24.tokens import NoTokens, Tokens, authorise_address, read_pasted
from consumer.cli.console import Failed, run, settings_or_exit
from consumer.operations.login import log_in, needed_application
from consumer.output import escaped, say
from consumer.settings import WrongSettings

LONGEST_PASTE = 65_536
"""In characters."""


@click.command()
def login() -> None:
    """Log in to the portal by OAuth, and store the tokens in the ledger.

    Prints the address to open in a browser. Then reads from stdin the code, or the whole address
    to which the portal sent the browser, or tokens as JSON, as an application gets them at its
    installation.
    """
    settings = settings_or_exit("bitrix24_url")
    try:
        application = needed_application(settings)
    except WrongSettings as error:
        say(*error.mistakes, err=True)
        sys.exit(2)
    state = secrets.token_urlsafe(16)
    address = authorise_address(settings.needed("bitrix24_url"), application.client_id, state)
    say("Open this address, and let the application in:", err=True)
    say(address)
    say(
        "Within 30 s, paste the address that it leads to, or its code; or tokens as JSON:", err=True
    )
    try:
        pasted = read_pasted(_read_paste(), time.time(), state)
    except NoTokens as error:
        raise Failed(f"nothing is stored: {escaped(str(error))}") from None
    tokens = run(lambda: log_in(settings, pasted))
    say(*_told(tokens))


def _read_paste() -> str:
    """Read one line, or JSON to its end."""
    text = sys.stdin.readline(LONGEST_PASTE)
    while text.lstrip().startswith("{") and not _is_whole(text):
        line = sys.stdin.readline(LONGEST_PASTE)
        if not line or len(text) > LONGEST_PASTE:
            break
        text += line
    if not text.strip():
        raise NoTokens("nothing was pasted")
    return text


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _told(tokens: Tokens) -> list[str]:
    scopes = ", ".join(tokens.scopes) or "not told: see that call and telephony are among them"
    lines = {
        "portal": tokens.portal,
        "user": tokens.user or "not told",
        "scopes": scopes,
        "stored": "in the ledger; a running worker sees it within some seconds",
    }
    return [f"{name}: {escaped(text)}" for name, text in lines.items()]
