"""The parameters of a request, as PHP reads them from a query, a form or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from starlette.requests import Request


def parameters_of(request: Request, body: bytes) -> dict[str, object]:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    given = _from_json(body) if kind == "application/json" else _from_form(body)
    return _from_form(request.scope["query_string"]) | given


def _from_json(body: bytes) -> dict[str, object]:
    """Read a JSON object; anything else is no parameters, and no error."""
    try:
        params = json.loads(body.decode())
        json.dumps(params, ensure_ascii=False).encode()  # Half a surrogate pair: PHP refuses it.
    except (ValueError, RecursionError):
        return {}
    return params if isinstance(params, dict) else {}


def _from_form(body: bytes) -> dict[str, object]:
    """Read a query string with PHP's ``name[key]`` and ``name[key][]``."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        return {}
    params: dict[str, object] = {}
    for name, value in pairs:
        top, *keys = name.replace("]", "").split("[")
        _put(params, [top, *keys], value)
    return params


def _put(into: dict[str, object], keys: list[str], value: str) -> None:
    key, *rest = keys
    inner = into.get(key)
    if not rest:
        into[key] = value
    elif rest == [""]:
        into[key] = [*(inner if isinstance(inner, list) else []), value]
    else:
        inner = inner if isinstance(inner, dict) else {}
        into[key] = inner
        _put(inner, rest, value)
