"""`call-consumer status`: one line that says how things are, then the details."""

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import click

from consumer.cli.console import print_table, run, settings_or_exit
from consumer.ledger.workers import WorkerRow, roles
from consumer.messages.endings import in_words
from consumer.operations.finding import Finding
from consumer.operations.status import Status, status_of
from consumer.operations.waits import stamp
from consumer.output import is_terminal, say, write
from consumer.settings import Settings

EVERY_S = 2.0
SEPARATOR = " · "
CLEAR = "\x1b[H\x1b[2J"
"""Moves a terminal's cursor home, and clears the screen."""
DAY_S = 86_400


@click.command()
@click.option("--watch", is_flag=True, help="Say it again every two seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on one line.")
def status(*, watch: bool, as_json: bool) -> None:
    """Show workers, what waits, the pace, today's outcomes. Times are those of this machine."""
    settings = settings_or_exit("rabbitmq_url")
    run(lambda: _show(settings, watch=watch, as_json=as_json))


async def _show(settings: Settings, *, watch: bool, as_json: bool) -> None:
    while True:
        found = await status_of(settings)
        if watch and not as_json and is_terminal(sys.stdout):
            write(sys.stdout, CLEAR)
        if as_json:
            say(as_object(found))
        else:
            _print(found)
        if not watch:
            break
        await asyncio.sleep(EVERY_S)
    if found.broker_trouble and found.ledger_trouble:
        raise SystemExit(1)


def _print(found: Status) -> None:
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0
    say(*wrapped(list(summary(found)), width))
    if found.workers:
        say("")
        print_table(("WORKER", "HOST", "SINCE", "STATE"), _worker_rows(found))
    if found.queues:
        say("")
        first = found.topology.requests.name
        names = sorted(found.queues, key=lambda name: name != first)
        rows = [(name, f"{found.queues[name].messages:,}") for name in names]
        print_table(("QUEUE", "MESSAGES"), rows)
    if not found.ledger_trouble:
        say("", *details(found))
    for name, trouble in (("broker", found.broker_trouble), ("ledger", found.ledger_trouble)):
        if trouble:
            say(f"{name}: {trouble}", err=True)


def wrapped(parts: Sequence[str], width: int) -> list[str]:
    """Join parts to lines of at most *width* columns, or to one line where that is 0."""
    lines = [parts[0]]
    for part in parts[1:]:
        if width and len(lines[-1]) + len(SEPARATOR) + len(part) > width:
            lines.append(part)
        else:
            lines[-1] += SEPARATOR + part
    return lines


def summary(found: Status) -> Iterator[str]:
    """Say the most important things, in a few words each."""
    yield f"paused: {_paused(found)}"
    yield f"workers: {_workers(found)}"
    yield f"waiting {_number(found.requests)}"
    if not found.ledger_trouble:
        waiting = found.waiting
        due = f" (next {_clock(waiting.next_due_at, found.at)})" if waiting.next_due_at else ""
        yield f"scheduled {waiting.scheduled:,}{due}"
        yield f"retrying {waiting.retrying:,}"
        if waiting.in_doubt:
            yield f"in doubt {waiting.in_doubt:,}"
    yield f"dead {_number(found.dead)}"
    if not found.ledger_trouble:
        allowed = f" of {found.allowed_per_s:g}" if found.allowed_per_s else ""
        yield f"{found.per_s:.1f}/s{allowed}"
        yield _done(found)


def _paused(found: Status) -> str:
    if found.pause is not None:
        return f"yes, by {found.pause.by}: {found.pause.reason}"
    if not found.paused:
        return "unknown" if found.ledger_trouble else "no"
    reasons = sorted({reason for worker in found.paused for reason in worker.state.pauses})
    every = len(found.paused) == len(found.workers)
    return f"{'yes' if every else f'{len(found.paused)} of {len(found.workers)}'}, {_and(reasons)}"


def _workers(found: Status) -> str:
    if not found.workers:
        count = found.queues.get(found.topology.requests.name)
        return f"{count.consumers} registered" if count and count.consumers else "none"
    known = roles(found.workers)
    return ", ".join(f"{known.count(role)} {role}" for role in dict.fromkeys(sorted(known)))


def _done(found: Status) -> str:
    if found.requests == 0:
        return "nothing waits"
    if found.done_at is None:
        return "done: cannot be told"
    return f"done about {_clock(found.done_at, found.at)}"


def _worker_rows(found: Status) -> list[Sequence[object]]:
    known = zip(found.workers, roles(found.workers), strict=True)
    return [
        (worker.owner[:8], worker.host, _clock(worker.started_at, found.at), _state(worker, role))
        for worker, role in known
    ]


def _state(worker: WorkerRow, role: str) -> str:
    state = worker.state
    told = [role, *(f"{reason}: {text}" for reason, text in sorted(state.pauses.items()))]
    if state.breaker.startswith("half_open"):
        told.append(f"the circuit breaker is {state.breaker}: one call at a time")
    if state.probes_at:
        told.append(f"probes the portal at {_clock(state.probes_at, worker.seen_at, seconds=True)}")
    if state.blocked_until > worker.seen_at:
        until = _clock(state.blocked_until, worker.seen_at, seconds=True)
        told.append(f"the portal's operating limit allows no call until {until}")
    return "; ".join(told)


def details(found: Status) -> Iterator[str]:
    """Say what today came to, whether anyone picked up, and how the tokens are."""
    yield f"today: {_today(found)}"
    if found.endings:
        yield f"answered: {_answered(found)}"
    if found.tokens is not None:
        yield f"tokens: {_tokens(found.tokens)}"


def _answered(found: Status) -> str:
    share = found.answered_share
    known = f"{share:.0%} of {found.ended:,} that ended today" if share is not None else "unknown"
    counts = (f"{count:,} {in_words(outcome)}" for outcome, count in found.endings.items())
    return SEPARATOR.join([known, *counts])


def _tokens(tokens: Finding) -> str:
    fix = f": {tokens.fix}" if tokens.fix not in tokens.detail else ""
    return f"{tokens.state}, {tokens.detail}{fix}"


def _today(found: Status) -> str:
    told = [f"{count:,} {outcome}" for outcome, count in found.outcomes.items()]
    told += [f"{found.blocks} blocks in force"] if found.blocks else []
    return SEPARATOR.join(told) or "nothing came to an end"


def _number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def _clock(at: float, now: float, *, seconds: bool = False) -> str:
    """Write a time by the clock of this machine; with its day, where that is another one."""
    moment, today = (datetime.fromtimestamp(each, UTC).astimezone() for each in (at, now))
    text = f"{moment:%H:%M:%S}" if seconds else f"{moment:%H:%M}"
    return text if moment.date() == today.date() else f"{moment:%Y-%m-%d} {text}"


def as_object(found: Status) -> str:
    """Write it as one line of JSON; times are RFC 3339."""
    waiting = found.waiting
    known = zip(found.workers, roles(found.workers), strict=True)
    told = {
        "at": stamp(found.at),
        "paused": bool(found.pause) or 0 < len(found.paused) == len(found.workers),
        "pause": found.pause and asdict(found.pause) | {"since": stamp(found.pause.since)},
        "workers": [_worker_object(worker, role) for worker, role in known],
        "waiting": found.requests,
        "scheduled": waiting.scheduled,
        "next_due_at": stamp(waiting.next_due_at),
        "retrying": waiting.retrying,
        "in_doubt": waiting.in_doubt,
        "dead": found.dead,
        "queues": {name: asdict(count) for name, count in found.queues.items()},
        "per_s": round(found.per_s, 2),
        "allowed_per_s": found.allowed_per_s or None,
        "done_at": stamp(found.done_at),
        "today": dict(found.outcomes),
        "ended_today": dict(found.endings),
        "answered_share": found.answered_share and round(found.answered_share, 4),
        "tokens": found.tokens and _tokens_object(found.tokens),
        "blocks": found.blocks,
        "broker": found.broker_trouble or None,
        "ledger": found.ledger_trouble or None,
    }
    return json.dumps(told, ensure_ascii=False)


def _tokens_object(tokens: Finding) -> dict[str, str | None]:
    return {"state": tokens.state, "detail": tokens.detail, "fix": tokens.fix or None}


def _worker_object(worker: WorkerRow, role: str) -> dict[str, object]:
    state = worker.state
    return {
        "id": worker.owner,
        "host": worker.host,
        "role": role,
        "pauses": dict(state.pauses),
        "breaker": state.breaker,
        "probes_at": stamp(state.probes_at),
        "blocked_until": stamp(state.blocked_until),
        "started_at": stamp(worker.started_at),
        "seen_at": stamp(worker.seen_at),
        "handled_at": stamp(worker.handled_at),
    }
