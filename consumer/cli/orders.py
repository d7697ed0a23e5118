"""What `pause`, `resume` and `block` share: options, and what may keep an order from working."""

import click

from consumer.ledger import Ledger
from consumer.output import say
from consumer.settings import Settings

LONGEST_REASON = 200


def readable(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return a reason that people can read, if there is one.

    Raises:
        BadParameter: There is nothing in it, or too much.
    """
    if value is not None and (not value.strip() or len(value) > LONGEST_REASON):
        raise click.BadParameter(f"say in a few words why, {LONGEST_REASON} characters at most")
    return value


reason_option = click.option(
    "--reason", required=True, callback=readable, metavar="TEXT", help="Why, for other people."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what holds; change nothing.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


async def tell_doubts(ledger: Ledger, settings: Settings, under_way: int) -> None:
    """Say what may keep an order from doing what it should."""
    if under_way:
        count = "a call" if under_way == 1 else f"{under_way} calls"
        text = "begun before, without an answer so far: the phone may still ring"
        say(f"{count} {text}", err=True)
    if not await ledger.has_begun():
        text = f"no worker has taken a request from {settings.queue} with this ledger yet"
        say(f"{text}: are CALLS_QUEUE and CALLS_LEDGER_URL those of the workers?", err=True)
