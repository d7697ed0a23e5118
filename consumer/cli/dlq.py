"""`call-consumer dlq`: all commands about dead letters."""

from consumer.cli.dead_letters import dlq
from consumer.cli.discard import discard
from consumer.cli.replay import replay

dlq.add_command(replay)
dlq.add_command(discard)

__all__ = ["dlq"]
