"""Seals tokens, so that a copy of the ledger yields none."""

import base64
import json
from dataclasses import asdict

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from consumer.bitrix24.tokens import Tokens


class Unreadable(Exception):
    """Raised for what was sealed with another secret, for another portal, or damaged."""


class Seal:
    """Seals and opens the tokens of one portal.

    Args:
        client_secret: Makes the key: whoever has it may use the tokens anyway.
        portal: What is sealed for one portal cannot be opened for another.
    """

    def __init__(self, client_secret: str, portal: str) -> None:
        info = f"call-consumer tokens {portal}".encode()
        # No salt: the secret is random, and unlike a password no dictionary has it.
        key = HKDF(SHA256(), 32, salt=None, info=info).derive(client_secret.encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def close(self, tokens: Tokens) -> bytes:
        """Return *tokens* sealed."""
        return self._fernet.encrypt(json.dumps(asdict(tokens)).encode())

    def open(self, sealed: bytes) -> Tokens:
        """Return the tokens that were sealed.

        Raises:
            Unreadable: They cannot be opened.
        """
        try:
            fields = json.loads(self._fernet.decrypt(sealed))
            return Tokens(**fields | {"scopes": tuple(fields["scopes"])})
        except (InvalidToken, ValueError, TypeError, KeyError):
            raise Unreadable from None
