"""What chooses dead letters means the same to each command; `list` makes a table of them."""

import asyncio
import csv
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import aio_pika
import pytest
from click.testing import CliRunner, Result

from consumer.cli.main import main
from consumer.messages import rfc3339
from tests.canary import TEXT
from tests.workbench import Bench

NUMBER = "+12025550101"
MIDNIGHT = "2021-11-19T23:00:00.000Z"
"""When 20 November begins in Berlin."""


async def dlq(bench: Bench, *arguments: str, **settings: str) -> Result:
    """Run a command about dead letters in this process, in a thread that has no loop yet."""
    given = {name: str(bench.given[name]) for name in ("rabbitmq_url", "exchange", "queue")}
    env = {f"CALLS_{name.upper()}": value for name, value in (given | settings).items()}
    return await asyncio.to_thread(CliRunner().invoke, main, ["dlq", *arguments], env=env)


async def put(bench: Bench, request_id: str, failed_at: str = MIDNIGHT, **fields: object) -> None:
    body = json.dumps(bench.request(request_id=request_id) | fields).encode()
    headers: dict[str, aio_pika.abc.FieldValue] = {
        "x-failed-at": failed_at,
        "x-reason": "refused",
        "x-code": "=1+1",
        "x-description": 'say "no", always',
        "x-first-seen-at": "2021-11-19T00:00:00.000Z",
    }
    message = aio_pika.Message(body, headers=headers, message_id=request_id)
    await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
async def some(bench: Bench) -> Bench:
    """Lend dead letters that differ in number, metadata and age."""
    now = datetime.now(UTC)
    await put(bench, "day-before", "2021-11-19T22:59:59.999Z", to_number="+1 (202) 555-0101")
    await put(bench, "midnight", metadata={"campaign": "42", "team": "a=b"}, to_number=NUMBER)
    await put(bench, "other", metadata={"campaign": "43", "team": "a=b"}, to_number="2025550101")
    await put(bench, "a-number", metadata={"campaign": 42}, to_number="+12025550102")
    await put(bench, "odd", metadata=["campaign"], to_number=12025550101)
    await put(bench, "5-days", rfc3339(now - timedelta(days=5)))
    await put(bench, "5-hours", rfc3339(now - timedelta(hours=5)))
    await put(bench, "5-minutes", rfc3339(now - timedelta(minutes=5)))
    return bench


CHOSEN: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "a pair": (("--metadata", "campaign=42"), {"midnight", "a-number"}),
    "two pairs": (("--metadata", "campaign=42", "--metadata", "team=a=b"), {"midnight"}),
    "pairs that exclude each other": (
        ("--metadata", "campaign=42", "--metadata", "campaign=43"),
        set(),
    ),
    "a pair without a value": (("--metadata", "campaign="), set()),
    "a number": (("--number", NUMBER), {"day-before", "midnight"}),
    "a number in another notation": (("--number", "+1 202-555.0101"), {"day-before", "midnight"}),
    "a number that nobody has": (("--number", "+12025550199"), set()),
    "days": (("--since", "6d"), {"5-days", "5-hours", "5-minutes"}),
    "hours and minutes": (("--since", "6h", "--until", "30m"), {"5-hours"}),
    "minutes": (("--since", "30m"), {"5-minutes"}),
    "a day": (
        ("--since", "2021-11-20", "--until", "2021-11-21"),
        {"midnight", "other", "a-number", "odd"},
    ),
    "until a day": (("--until", "2021-11-20"), {"day-before"}),
    "a moment": (
        ("--since", "2021-11-19T22:59:59Z", "--until", MIDNIGHT),
        {"day-before"},
    ),
}


@pytest.mark.usefixtures("berlin")
async def test_each_command_chooses_the_same(some: Bench) -> None:
    found: dict[str, list[set[str]]] = {}
    for name, (words, _) in CHOSEN.items():
        listed = await dlq(some, "list", *words, "--json")
        found[name] = [{json.loads(line)["id"] for line in listed.stdout.splitlines()}]
        for act in (("replay",), ("discard",)):
            why = ("--why", "x") if act == ("discard",) else ()
            planned = await dlq(some, *act, *words, *why, "--dry-run")
            found[name].append(set(planned.stdout.split()))
        stats = await dlq(some, "stats", *words, "--json")
        counts = [json.loads(line)["count"] for line in stats.stdout.splitlines()]
        assert sum(counts) == len(found[name][0]), name

    assert found == {name: [chosen] * 3 for name, (_, chosen) in CHOSEN.items()}


async def test_a_number_is_read_as_the_worker_reads_it(some: Bench) -> None:
    listed = await dlq(some, "list", "--number", "202 555 0101", "--json", default_region="US")

    ids = {json.loads(line)["id"] for line in listed.stdout.splitlines()}
    assert ids == {"day-before", "midnight", "other"}


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "a key": (("--metadata", "campaign"), "write KEY=VALUE"),
    "a value": (("--metadata", "=42"), "write KEY=VALUE"),
    "no pair": (("--metadata", ""), "write KEY=VALUE"),
    "a national number": (("--number", "2025550177"), "write +<country code><number>"),
    "a short number": (("--number", "+120255501"), "check its length"),
    "letters": (("--number=+1202555CALL",), "not allowed: U+0043 at character 9"),
    "no number": (("--number", ""), "Error: "),
    "a unit that is none": (("--since", "7w"), "write 7d, 12h or 30m"),
    "a unit alone": (("--until", "d"), "write 7d, 12h or 30m"),
    "a day that is none": (("--since", "2026-02-30"), "write 7d, 12h or 30m"),
    "before all days": (("--since", "999999999d"), "write 7d, 12h or 30m"),
    "digits of another script": (
        ("--since", "\N{ARABIC-INDIC DIGIT SEVEN}d"),
        "write 7d, 12h or 30m",
    ),
    "the first day": (("--since", "0000-01-01"), "write 7d, 12h or 30m"),
}


@pytest.mark.parametrize("command", ["list", "replay"])
@pytest.mark.parametrize(("words", "error"), WRONG.values(), ids=WRONG)
async def test_a_filter_that_cannot_be_read_is_named_without_its_number(
    bench: Bench, command: str, words: tuple[str, ...], error: str
) -> None:
    result = await dlq(bench, command, *words)

    assert (result.exit_code, error in result.stderr) == (2, True), result.stderr
    assert "2025" not in result.output


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2021-11-20", 24)]
)
async def test_a_day_is_as_long_as_its_clock_says(bench: Bench, day: str, hours: int) -> None:
    begins = datetime.fromisoformat(day).astimezone(UTC)
    last = begins + timedelta(hours=hours, milliseconds=-1)
    await put(bench, "first", rfc3339(begins))
    await put(bench, "last", rfc3339(last))
    await put(bench, "next", rfc3339(last + timedelta(milliseconds=1)))

    following = (datetime.fromisoformat(day) + timedelta(days=1)).date()
    listed = await dlq(bench, "list", "--since", day, "--until", f"{following}", "--json")

    ids = [json.loads(line)["id"] for line in listed.stdout.splitlines()]
    assert ids == ["first", "last"]


# For a spreadsheet


async def table_of(bench: Bench, *arguments: str) -> str:
    return (await dlq(bench, "list", "--csv", *arguments)).stdout_bytes.decode()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


async def test_a_table_for_a_spreadsheet_has_the_names_of_json(bench: Bench) -> None:
    pair = {"campaign": "42"}
    await put(bench, "r-1", to_number=NUMBER, metadata=pair, from_line="reg1", urgent=True)

    table = await table_of(bench)
    whole = await table_of(bench, "--unmask")
    told = json.loads((await dlq(bench, "list", "--json")).stdout)

    (row,) = rows(table)
    names = {*told, *told["headers"], *told["request"]} - {"headers", "request"}
    assert names <= set(row)
    assert table.count("\r\n") == table.count("\n") == 2
    assert (row["id"], row["failed_at"], row["replay"]) == ("r-1", MIDNIGHT, "0")
    assert row["description"] == 'say "no", always'
    assert row["x-first-seen-at"] == "2021-11-19T00:00:00.000Z"
    assert (row["to_number"], row["text_to_pronounce"]) == ("'+12•••••••01", "…")
    assert row["urgent"] == "true"
    assert (row["from_line"], row["metadata"], row["voice"]) == ("reg1", "…", "")
    (unmasked,) = rows(whole)
    assert (unmasked["to_number"], unmasked["text_to_pronounce"]) == (f"'{NUMBER}", TEXT)
    assert json.loads(unmasked["metadata"]) == {"campaign": "42"}


HARMFUL = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1")
HARMLESS = (" =1", "a=1", "'=1", "", "1;=1", "a\r\n=1", "\x1b[2J")


@pytest.mark.parametrize("text", [*HARMFUL, *HARMLESS])
async def test_no_cell_is_a_formula_and_none_acts_on_a_terminal(bench: Bench, text: str) -> None:
    await put(bench, "r-1", voice=text, text_to_pronounce=text, reason=text)

    printed = await table_of(bench, "--unmask")

    (row,) = rows(printed)
    for name in ("voice", "text_to_pronounce"):
        written = row[name].encode().decode("unicode_escape")
        assert written == (f"'{text}" if text in HARMFUL else text)
    assert (row["code"], row["reason"]) == ("'=1+1", "refused")
    assert all(line.isprintable() for line in printed.split("\r\n"))


async def test_a_table_of_nothing_is_its_head(bench: Bench) -> None:
    none = await dlq(bench, "list", "--csv")
    both = await dlq(bench, "list", "--csv", "--json")

    assert (none.exit_code, none.stdout.count("\n")) == (0, 1)
    assert none.stdout.startswith("id,failed_at,reason,code,")
    assert "no dead letters" in none.stderr
    assert (both.exit_code, "not both" in both.stderr) == (2, True)


async def test_what_nobody_can_read_is_a_row_too(bench: Bench) -> None:
    message = aio_pika.Message(b"{\x1b", message_id="-m")
    await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")

    (row,) = rows(await table_of(bench, "--unmask"))

    assert (row["id"], row["request_id"], row["reason"]) == ("'-m", "", "invalid")
