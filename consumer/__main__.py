"""`python -m consumer` is `call-consumer`."""

from consumer.cli.main import main

main()
