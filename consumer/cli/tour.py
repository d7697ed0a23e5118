"""`call-consumer demo`: the tour."""

import sys

import click

from consumer.cli.console import Failed
from consumer.errors import OperatorError


@click.command()
@click.option("--keep", is_flag=True, help="Leave all of it running until Ctrl-C.")
def demo(*, keep: bool) -> None:
    """Take a tour: start broker, sandbox and worker, place a dozen calls, account for each.

    Needs no settings, and reads only TEST_RABBITMQ_URL, which names a broker to use. Exit 1 if the
    account does not add up.
    """
    try:
        from consumer.demo.tour import take_tour  # noqa: PLC0415  # the image does without
    except ModuleNotFoundError:
        raise Failed("the demo is not in the image: run `make demo` in the repository") from None
    try:
        adds_up = take_tour(keep=keep)
    except OperatorError as error:
        raise Failed(*str(error).split("\n")) from None
    if not adds_up:
        sys.exit(1)
