"""The one kind of error that a person is meant to read, and an advice that many parts give."""

LOGIN = "run `call-consumer login`"
"""For where there are no tokens that can be used."""


class OperatorError(Exception):
    """Raised for what a person has to fix; says what is wrong, where, and what to do.

    No message of one holds a secret, a number or a text.
    """
