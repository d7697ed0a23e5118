"""`python -m consumer` is `call-consumer`."""

from consumer.cli import main

main()
