"""The command line: stdout for data, stderr for people, exit 0 done, 1 failed, 2 wrong usage."""

import click

from consumer.cli.program import Program

COMMANDS = {
    "block": (
        "blocks",
        "Block a campaign, a line or a number.",
    ),
    "cancel": ("cancel", "Take requests back that are not dialled yet; prints their ids."),
    "check": ("check", "Look at everything the worker needs; changes nothing."),
    "demo": (
        "tour",
        "Take a tour of it all, with a dozen calls.",
    ),
    "dlq": ("dlq", "Find out what failed and why, send it back, or give it up."),
    "events": ("upstream", "Print events as they come, as JSON lines, until Ctrl-C."),
    "lines": ("portal", "List the lines that the portal can call from."),
    "login": ("login", "Log in to the portal by OAuth, and store the tokens in the ledger."),
    "pause": (
        "pause",
        "Stop all calls of all workers now, until `resume`.",
    ),
    "publish": ("upstream", "Publish a request: publish TO TEXT."),
    "resume": (
        "pause",
        "Let calls be placed again after `pause`.",
    ),
    "run": (
        "run",
        "Run the worker until it is told to stop (SIGTERM, Ctrl-C).",
    ),
    "sandbox": (
        "sandbox",
        "Run a stand-in portal, whose answer the called number decides.",
    ),
    "schema": ("schema", "Print a schema by NAME, as call.requested, or list their names."),
    "show": ("show", "Show what became of any request: ID…, or - for ids from stdin."),
    "status": ("status", "Show workers, what waits, the pace, today's outcomes."),
    "voices": ("portal", "List the voices that the portal can speak with."),
    "web": ("web", "Serve the operators' pages, for a browser."),
}
"""The module of each command, and its help in a line: a module is loaded when it is called."""


@click.group(
    cls=Program, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="call-consumer")
def main() -> None:
    """Place Bitrix24 automatic calls that are asked for over RabbitMQ.

    Settings are environment variables, CALLS_RABBITMQ_URL and CALLS_BITRIX24_URL above all;
    OPERATING.md lists them.
    """
