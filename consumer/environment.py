"""Where the settings come from: the environment, ``.env``, files. Nothing else reads them.

pydantic-settings is not used: it ignores misspelt variables (CONTRIBUTING.md has all reasons).
"""

import codecs
import os
import re
import ssl
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import ValidationError

from consumer.settings import GO_TOGETHER, PREFIX, Secret, Settings, WrongSettings, not_set

MAY_BE_FILES = ("rabbitmq_url", "bitrix24_url", "oauth_client_secret", "ledger_url")
"""Secrets, which ``CALLS_<FIELD>_FILE`` may name a file of."""


def read_settings(
    environment: Mapping[str, str] = os.environ,
    needed: Collection[Secret] = (),
    ca_file: str | None = None,
) -> Settings:
    """Read ``CALLS_*`` from *environment* and, where that is silent, from ``.env`` in this folder.

    Args:
        environment: The environment's variables.
        needed: What the caller cannot do without.
        ca_file: The file of certificates that TLS is to trust, if one is named.

    Raises:
        WrongSettings: Settings are wrong, unknown or missing; all of them are named.
    """
    found = _read_dotenv(Path(".env")) | dict(environment)
    ours = {k: v.strip() for k, v in found.items() if k.startswith(PREFIX)}
    skipped = service_variables(ours)
    fields = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in ours.items()
        if value and name not in skipped
    }
    mistakes = _read_files(fields)
    unknown = [name for name in fields if name not in Settings.model_fields]
    mistakes += [_unknown(name) for name in unknown]
    settings, wrong = _validate({k: v for k, v in fields.items() if k not in unknown})
    mistakes += wrong
    named = {mistake.partition(":")[0].removesuffix("_FILE") for mistake in mistakes}
    mistakes += [
        not_set(field)
        for field in needed
        if field not in fields and f"{PREFIX}{field.upper()}" not in named
    ]
    if _uses_tls(settings):
        mistakes += _ca_file_mistakes(ca_file)
    if mistakes:
        raise WrongSettings(list(dict.fromkeys(mistakes)))
    return settings


def _validate(fields: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return what is right of *fields* as settings, and the mistakes in the rest."""
    try:
        return Settings.model_validate(fields), []
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
    wrong = {str(problem["loc"][0]) for problem in problems if problem["loc"]}
    mistakes = [
        f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}" if problem["loc"] else line
        for problem in problems
        for line in problem["msg"].splitlines()
    ]
    if not wrong:
        return Settings(), mistakes
    for group in GO_TOGETHER:
        wrong |= group if wrong & group else set()
    settings, more = _validate({k: v for k, v in fields.items() if k not in wrong})
    return settings, mistakes + more


def _read_dotenv(path: Path) -> dict[str, str]:
    """Read a file of settings, if there is one.

    Raises:
        WrongSettings: It cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        text = _read_text(path)
    except (OSError, ValueError) as error:
        raise WrongSettings([f"{path}: cannot be read: {_reason(error)}"]) from None
    if broken := _broken_lines(text):
        raise WrongSettings(
            [f"{path}: line {line} cannot be read: write CALLS_NAME=value" for line in broken]
        )
    return {name: value or "" for name, value in dotenv_values(stream=StringIO(text)).items()}


def _broken_lines(text: str) -> list[int]:
    """Return where settings of ours stand that would be left out, counting from 1."""
    return [
        each.original.line + each.original.string[: each.original.string.find(PREFIX)].count("\n")
        for each in parse_stream(StringIO(text))
        if each.error and PREFIX in each.original.string.partition("#")[0]
    ]


def _read_text(path: Path) -> str:
    """Read what an editor or a shell has written: UTF-8, or UTF-16 that says so.

    Raises:
        OSError, ValueError: It cannot be read.
    """
    content = path.read_bytes()
    in_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not in_utf_16 and b"\0" in content:
        raise ValueError("it holds zero bytes, as UTF-16 does: save it as UTF-8")
    text = content.decode("utf-16" if in_utf_16 else "utf-8-sig")
    if "\0" in text:
        raise ValueError("it holds zero bytes, as UTF-32 does: save it as UTF-8")
    return text


def _reason(error: OSError | ValueError) -> str:
    match error:
        case OSError():
            return (error.strerror or type(error).__name__).lower()
        case UnicodeDecodeError():
            return f"it is not UTF-8 from byte {error.start} on: save it as UTF-8"
        case _:
            return str(error)


def _read_files(fields: dict[str, str]) -> list[str]:
    """Put the contents of secret files where the secrets belong; return what went wrong."""
    mistakes = []
    for field in MAY_BE_FILES:
        name = fields.pop(f"{field}_file", None)
        if name is None:
            continue
        setting = f"{PREFIX}{field.upper()}"
        if field in fields:
            mistakes.append(f"{setting}: is set, and {setting}_FILE too: keep one")
            continue
        try:
            fields[field] = _read_secret(name)
        except (OSError, ValueError) as error:
            mistakes.append(f"{setting}_FILE: cannot be read: {_reason(error)}")
    return mistakes


def _read_secret(name: str) -> str:
    if "://" in name:  # not to be repeated: it is the secret itself
        raise ValueError("it is an address: name the file that holds it")
    try:
        secret = _read_text(Path(name)).strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {_reason(error)}") from None
    if not secret:
        raise ValueError(f"{name}: it is empty")
    return secret


def _uses_tls(settings: Settings) -> bool:
    urls = (settings.rabbitmq_url, settings.bitrix24_url, settings.ledger_url)
    secure = re.compile(r"(^|,)amqps://|^https://|[?&]sslmode=verify")
    return any(secure.search(url.get_secret_value()) for url in urls if url is not None)


def _ca_file_mistakes(name: str | None) -> list[str]:
    if not name:
        return []
    try:
        ssl.create_default_context(cafile=name)
    except ssl.SSLError:
        return [f"SSL_CERT_FILE: cannot be read: {name}: it holds no certificates as PEM"]
    except OSError as error:
        return [f"SSL_CERT_FILE: cannot be read: {name}: {_reason(error)}"]
    return []


_ENDPOINT = r"(tcp|udp|sctp)://\S+:\d+"
_SERVICE_VARIABLES: tuple[tuple[str, str], ...] = (
    (r"_SERVICE_HOST", r"[0-9a-fA-F.:]+"),
    (r"_SERVICE_PORT(_\w+)?", r"\d+"),
    (r"_PORT(_\d+_(TCP|UDP|SCTP))?", _ENDPOINT),
    (r"_PORT_\d+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
    (r"_PORT_\d+_(TCP|UDP|SCTP)_PORT", r"\d+"),
    (r"_PORT_\d+_(TCP|UDP|SCTP)_ADDR", r"[0-9a-fA-F.:]+"),
)
"""Ends of names, and values, of what Kubernetes sets in each pod for each service near it."""


def service_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Name what only looks like settings of ours: Kubernetes' variables for ``calls`` services.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    return [
        name
        for name, value in environment.items()
        if any(
            re.fullmatch(rf"CALLS(_[A-Z0-9_]+)?{end}", name) and re.fullmatch(form, value.strip())
            for end, form in _SERVICE_VARIABLES
        )
    ]


def _unknown(field: str) -> str:
    name = f"{PREFIX}{field.upper()}"
    close = get_close_matches(field, Settings.model_fields, n=1)
    hint = f"did you mean {PREFIX}{close[0].upper()}?" if close else "OPERATING.md lists them all"
    return f"{name}: there is no such setting: {hint}"
