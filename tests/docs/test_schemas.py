"""The contract in `schemas/`: schemas, examples and AsyncAPI document, and the code for them."""

import copy
import dataclasses
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import get_args
from uuid import UUID

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import ValidationError
from pydantic import BaseModel

from consumer.events import (
    CallCompleted,
    CallFailed,
    CallStarted,
    Event,
    cloud_event_headers,
    event_id,
    event_type,
    invalid_event_id,
    to_json,
)
from consumer.messages import (
    CANCEL,
    COMPLETED,
    FAILED,
    MAX_BODY_BYTES,
    MAX_METADATA,
    REQUESTED,
    STARTED,
    CallCancel,
    CallOutcome,
    CallRequested,
    ConfirmedBy,
    Defaults,
    Invalid,
    Reason,
    read_body,
    read_cancel,
)
from consumer.messages.local_time import time_zones

SCHEMAS = Path(__file__).parents[2] / "schemas"
EXAMPLES = SCHEMAS / "examples"
README = (SCHEMAS / "README.md").read_text()
ASYNCAPI = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())
MESSAGES = {
    name: json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    for name in (REQUESTED, CANCEL, STARTED, FAILED, COMPLETED)
}
EVENTS: dict[str, type[Event]] = {
    STARTED: CallStarted,
    FAILED: CallFailed,
    COMPLETED: CallCompleted,
}
LEAST_EXAMPLES = {REQUESTED: 12, CANCEL: 3, STARTED: 3, FAILED: 3, COMPLETED: 3}
DEFAULTS = Defaults(line="reg151083")

FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def _is_a_moment(value: object) -> bool:
    # jsonschema needs a further package for this. The patterns have said all but the calendar.
    return not isinstance(value, str) or bool(datetime.fromisoformat(value[:19]))


@FORMATS.checks("uuid", raises=ValueError)
def _is_a_uuid(value: object) -> bool:
    return not isinstance(value, str) or str(UUID(value)) == value.lower()


def _matches(
    _validator: object, pattern: str, instance: object, _schema: object
) -> Iterator[ValidationError]:
    # JSON Schema's $ is the very end; Python's also matches before a last line break.
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


VALIDATOR = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _matches}
)


def errors(message: str, instance: object) -> list[ValidationError]:
    """Say what the schema of *message* has against *instance*."""
    return list(VALIDATOR(MESSAGES[message], format_checker=FORMATS).iter_errors(instance))


def blamed(message: str, instance: object) -> set[str]:
    """Name the fields that the schema of *message* finds fault with, "body" for the whole."""
    return {_field(error) for error in errors(message, instance)}


def _field(error: ValidationError) -> str:
    if error.absolute_path:
        return str(error.absolute_path[0])
    named = re.match(r"'(\w+)' is a required|.*\('(\w+)' was unexpected", error.message)
    return (named[1] or named[2]) if named else "body"


def examples(message: str, verdict: str) -> list[Path]:
    return sorted((EXAMPLES / message).glob(f"{verdict}-*.json"))


def each(message: str, verdict: str) -> pytest.MarkDecorator:
    """Run a test once for each example of *message* with that *verdict*."""
    paths = examples(message, verdict)
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def events(verdict: str) -> pytest.MarkDecorator:
    """Run a test once for each example of an event with that *verdict*."""
    paths = [path for message in EVENTS for path in examples(message, verdict)]
    return pytest.mark.parametrize("path", paths, ids=[f"{p.parent.name}-{p.stem}" for p in paths])


# --- the schemas and their examples


@pytest.mark.parametrize("message", MESSAGES)
def test_a_schema_is_itself_valid_and_bears_its_name(message: str) -> None:
    schema = MESSAGES[message]

    Draft202012Validator.check_schema(schema)

    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == f"urn:call-consumer:schema:{message}:1"
    assert schema["title"] == message


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_is_described_and_its_examples_fit(message: str) -> None:
    schema = MESSAGES[message]

    for name, field in schema["properties"].items():
        assert field["description"].endswith("."), name
        for value in field["examples"]:
            whole = {**schema["examples"][0], name: value}
            assert not errors(message, whole), name
    for whole in schema["examples"]:
        assert not errors(message, whole)


@pytest.mark.parametrize("message", MESSAGES)
def test_there_are_examples_enough_and_nothing_beside_them(message: str) -> None:
    good, bad = examples(message, "good"), examples(message, "bad")

    assert min(len(good), len(bad)) >= LEAST_EXAMPLES[message]
    assert sorted((EXAMPLES / message).iterdir()) == sorted(good + bad)


def test_there_are_examples_of_nothing_else() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir()) == sorted(MESSAGES)


@each(REQUESTED, "good")
def test_schema_and_worker_accept_a_good_request(path: Path) -> None:
    body = path.read_bytes()

    assert not errors(REQUESTED, json.loads(body))
    assert isinstance(read_body(body, DEFAULTS), CallRequested)


@each(REQUESTED, "bad")
def test_schema_and_worker_refuse_a_bad_request_for_the_same_one_mistake(path: Path) -> None:
    body = path.read_bytes()

    (field,) = blamed(REQUESTED, json.loads(body))
    verdict = read_body(body, DEFAULTS)

    assert isinstance(verdict, Invalid)
    assert verdict.description.startswith("the body" if field == "body" else f"{field}: ")


@each(CANCEL, "good")
def test_schema_and_worker_accept_a_good_cancellation(path: Path) -> None:
    body = path.read_bytes()

    assert not errors(CANCEL, json.loads(body))
    assert isinstance(read_cancel(body), CallCancel)


@each(CANCEL, "bad")
def test_schema_and_worker_refuse_a_bad_cancellation_for_the_same_one_mistake(path: Path) -> None:
    body = path.read_bytes()

    (field,) = blamed(CANCEL, json.loads(body))
    verdict = read_cancel(body)

    assert isinstance(verdict, Invalid)
    assert verdict.description.startswith("the body" if field == "body" else f"{field}: ")


@events("good")
def test_a_good_event_is_what_the_code_writes(path: Path) -> None:
    message, fields = path.parent.name, json.loads(path.read_bytes())
    event = EVENTS[message](**fields)

    assert not errors(message, fields)
    assert json.loads(to_json(event)) == fields
    assert event_type(event) == message


@events("good")
def test_a_good_event_bears_the_id_the_code_derives(path: Path) -> None:
    fields = json.loads(path.read_bytes())
    misspelt = (EXAMPLES / REQUESTED / "bad-misspelt-field.json").read_bytes()
    derived = {
        "good-invalid": invalid_event_id(misspelt),
        "good-invalid-without-a-readable-id": invalid_event_id(b"hello"),
    }.get(path.stem) or event_id(fields["request_id"], fields["replay"], path.parent.name)

    assert fields["event_id"] == derived


@events("bad")
def test_a_bad_event_has_one_mistake(path: Path) -> None:
    assert len(blamed(path.parent.name, json.loads(path.read_bytes()))) == 1


@pytest.mark.parametrize("message", EVENTS)
def test_an_event_may_grow_new_fields(message: str) -> None:
    event = {**MESSAGES[message]["examples"][0], "a_field_of_tomorrow": None}

    assert not errors(message, event)


# --- the code that mirrors them


@pytest.mark.parametrize(("message", "model"), [(REQUESTED, CallRequested), (CANCEL, CallCancel)])
def test_a_model_has_the_fields_of_the_schema(message: str, model: type[BaseModel]) -> None:
    schema = MESSAGES[message]
    fields = model.model_fields
    required = {name for name, field in fields.items() if field.is_required()}

    assert schema["additionalProperties"] is False
    assert list(fields) == list(schema["properties"])
    assert required == set(schema["required"])


LIMITED: dict[str, tuple[type[BaseModel], list[str]]] = {
    REQUESTED: (
        CallRequested,
        ["request_id", "to_number", "text_to_pronounce", "from_line", "voice", "urgent"],
    ),
    CANCEL: (CallCancel, ["request_id", "reason"]),
}


@pytest.mark.parametrize(
    ("message", "field"), [(message, field) for message in LIMITED for field in LIMITED[message][1]]
)
def test_a_model_has_the_limits_of_the_schema(message: str, field: str) -> None:
    model = LIMITED[message][0].model_json_schema()["properties"][field]
    limits = model["anyOf"][0] if "anyOf" in model else model
    schema = MESSAGES[message]["properties"][field]

    for limit in ("type", "pattern", "minLength", "maxLength"):
        assert limits.get(limit) == schema.get(limit), limit


def test_the_other_limits_of_a_request_are_those_of_the_schema() -> None:
    schema = MESSAGES[REQUESTED]

    assert schema["properties"]["metadata"]["maxProperties"] == MAX_METADATA
    assert f"{MAX_BODY_BYTES} bytes" in schema["description"]


@pytest.mark.parametrize("message", EVENTS)
def test_an_event_class_has_the_fields_of_the_schema(message: str) -> None:
    schema = MESSAGES[message]
    fields = dataclasses.fields(EVENTS[message])
    required = [field.name for field in fields if field.default is dataclasses.MISSING]

    assert schema.get("additionalProperties", True) is True
    assert [field.name for field in fields] == list(schema["properties"])
    assert required == schema["required"]


def test_the_words_of_an_event_are_those_of_the_schema() -> None:
    failed, started = MESSAGES[FAILED]["properties"], MESSAGES[STARTED]["properties"]

    assert failed["reason"]["enum"] == list(get_args(Reason))
    assert started["confirmed_by"]["enum"] == list(get_args(ConfirmedBy))


NUMBERS_ONLY_THE_WORKER_JUDGES: dict[str, tuple[str, str | None, bool]] = {
    "national, no region set": ("(202) 555-0143", None, False),
    "national, region set": ("(202) 555-0143", "US", True),
    "a digit short": ("+1 202 555 014", None, False),
    "a digit long": ("+1 202 555 01430", None, False),
    "possible but not valid": ("+1 999 555 0143", None, True),
}


@pytest.mark.parametrize(
    ("number", "region", "accepted"),
    NUMBERS_ONLY_THE_WORKER_JUDGES.values(),
    ids=NUMBERS_ONLY_THE_WORKER_JUDGES,
)
def test_whether_a_number_is_possible_only_the_worker_can_say(
    number: str, region: str | None, *, accepted: bool
) -> None:
    fields = {**MESSAGES[REQUESTED]["examples"][0], "to_number": number}
    verdict = read_body(json.dumps(fields).encode(), Defaults(line="reg151083", region=region))

    assert not errors(REQUESTED, fields)
    assert isinstance(verdict, CallRequested) is accepted


def test_the_schema_lets_every_time_zone_pass_and_the_worker_knows_which_are_some() -> None:
    fields = MESSAGES[REQUESTED]["examples"][0]

    for zone in time_zones():
        assert not errors(REQUESTED, fields | {"time_zone": zone}), zone
    assert not errors(REQUESTED, fields | {"time_zone": "Europe/Nowhere"})
    verdict = read_body(json.dumps(fields | {"time_zone": "Europe/Nowhere"}).encode(), DEFAULTS)
    assert isinstance(verdict, Invalid)
    assert verdict.description.startswith("time_zone: is no time zone")


# --- requests nobody thought of

GOOD_REQUESTS = [json.loads(path.read_bytes()) for path in examples(REQUESTED, "good")]
FIELDS = sorted(MESSAGES[REQUESTED]["properties"])

# Left out: blanks on which the dialects of regular expressions disagree, and offsets of 60 to 99
# minutes, which RFC 3339 forbids and Python's parser lets pass.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x1c\x1d\x1e\x1f\x85\ufeff"))
MOMENTS = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.from_regex(
        r"\A20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
        r"(\.[0-9]{0,10})?([Zz]|[+-][0-2][0-9]:[0-5][0-9])?\Z"
    ).filter(lambda moment: "T24:" not in moment.upper()),  # Python 3.14 reads it as midnight
)
NUMBERS = st.one_of(
    st.from_regex(r"\A[+(]{0,2}(1 ?20255501)?[0-9 ()./x-]{0,42}\n?\Z"),
    st.from_regex(
        "\\A[\u202a\u200e ]?[+\uff0b(]{0,2}(1 ?20255501)?"
        "[0-9\uff10-\uff19\u0660-\u0669\u00a0\u00ad\u200b\u200e\u202f"
        "\u2010-\u2015 ]{0,12}[\u202c ]?\\Z"
    ),
)
VALUES = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.integers(),
    TEXTS,
    st.integers(0, 130).map("x".__mul__),
    st.integers(1990, 2010).map("é".__mul__),
    st.from_regex(r"\A[A-Za-z0-9._:\- \n]{0,130}\Z"),
    st.sampled_from(sorted(time_zones())),
    MOMENTS,
    st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, st.one_of(TEXTS, st.none(), st.integers()), max_size=2),
    st.integers(18, 23).map(lambda pairs: {f"key{i}": "" for i in range(pairs)}),
)


@st.composite
def mutated_requests(draw: st.DrawFn) -> dict[str, object]:
    """A good request in which one or two fields were dropped, added, or given another value."""
    fields: dict[str, object] = copy.deepcopy(draw(st.sampled_from(GOOD_REQUESTS)))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.one_of(st.sampled_from(FIELDS), TEXTS))
        if draw(st.booleans()):
            fields.pop(name, None)
            continue
        fitting = {"to_number": NUMBERS, "not_before": MOMENTS, "expires_at": MOMENTS}
        fields[name] = draw(st.one_of(VALUES, fitting.get(name, VALUES)))
    return fields


@given(mutated_requests())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_schema_and_worker_agree_on_requests_nobody_thought_of(fields: dict[str, object]) -> None:
    verdict = read_body(json.dumps(fields).encode(), DEFAULTS)

    accepted = isinstance(verdict, CallRequested) or _only_the_worker_can_tell(verdict, fields)

    assert accepted is not bool(errors(REQUESTED, fields))


def _only_the_worker_can_tell(verdict: Invalid, fields: dict[str, object]) -> bool:
    """Tell whether all the worker minds is what no schema can judge."""
    number = r"to_number: is (no|not a possible) phone number[^;]*"
    zone = r"time_zone: is no time zone[^;]*"
    if re.fullmatch(rf"({number}|{zone})(; {zone})?", verdict.description) is None:
        return False
    looks_like_one = MESSAGES[REQUESTED]["properties"]["time_zone"]
    return "time_zone: " not in verdict.description or VALIDATOR(looks_like_one).is_valid(
        fields["time_zone"]
    )


# --- the AsyncAPI document


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    references = list(_references(ASYNCAPI))

    for reference in references:
        file, _, pointer = reference.partition("#")
        if file:
            assert (SCHEMAS / file).is_file(), reference
        target = ASYNCAPI
        for step in pointer.split("/")[1:] if not file else []:
            target = target[step]
    assert {f"./{message}.schema.json" for message in MESSAGES} <= set(references)


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _references(item)


def test_the_asyncapi_document_has_a_channel_for_each_routing_key() -> None:
    channels = ASYNCAPI["channels"].values()

    assert [channel["address"] for channel in channels] == list(MESSAGES)
    for channel in channels:
        assert channel["bindings"]["amqp"]["exchange"]["name"] == "calls"


def test_the_asyncapi_document_names_the_headers_of_an_event() -> None:
    event: Event = CallFailed(**json.loads((EXAMPLES / FAILED / "good-refused.json").read_bytes()))
    trace = {"traceparent", "tracestate"}

    headers = ASYNCAPI["components"]["messages"]["callFailed"]["headers"]

    assert set(headers["properties"]) == set(cloud_event_headers(event, "here")) | trace


PARSER = "@asyncapi/parser@3.6.3"
PARSE = """
const { Parser, fromFile } = require('@asyncapi/parser');
fromFile(new Parser(), process.argv[1]).parse().then(({ document, diagnostics }) => {
  const errors = diagnostics.filter((d) => d.severity === 0);
  console.log(JSON.stringify(errors.map((d) => [d.path.join('.'), d.message])));
  process.exitCode = document ? 0 : 1;
});
"""


@pytest.fixture(scope="module")
def parser() -> Path:
    """The official AsyncAPI parser, fetched once and kept outside the repository."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node or npm is missing, so the AsyncAPI document was not parsed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    modules = cache / "call-consumer" / PARSER.replace("/", "-") / "node_modules"
    try:
        if not modules.is_dir():
            _install(modules)
    except (subprocess.SubprocessError, OSError) as error:
        if not modules.is_dir():  # else another run was faster
            pytest.skip(f"npm could not install {PARSER}: {error}")
    return modules


def _install(modules: Path) -> None:
    modules.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=modules.parent) as fresh:
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        command = [*npm, "--prefix", fresh, PARSER]
        subprocess.run(command, check=True, timeout=300, capture_output=True)
        Path(fresh, "node_modules").rename(modules)


def test_the_official_parser_finds_no_error_in_the_asyncapi_document(parser: Path) -> None:
    node = shutil.which("node") or "node"
    found = subprocess.run(
        [node, "-e", PARSE, str(SCHEMAS / "asyncapi.yaml")],
        env={**os.environ, "NODE_PATH": str(parser)},
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )

    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr


# --- what upstream developers read


@pytest.mark.parametrize(
    "word", [*get_args(Reason), *get_args(ConfirmedBy), *get_args(CallOutcome)]
)
def test_the_readme_explains_each_reason_confirmation_and_outcome(word: str) -> None:
    assert f"`{word}`" in README


def test_the_readme_lists_every_field_of_a_request_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (required|optional)", README, re.MULTILINE)
    required = {*MESSAGES[REQUESTED]["required"], "from_line"}  # unless the worker has a default

    assert rows == [
        (field, "required" if field in required else "optional")
        for field in MESSAGES[REQUESTED]["properties"]
    ]


def test_the_python_of_the_readme_compiles_and_its_requests_are_good() -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    payloads = re.findall(r"payload='(.*?)'", README)
    requests = re.findall(r"^request = ({.*?^})", README, re.DOTALL | re.MULTILINE)

    for snippet in snippets:
        compile(snippet, "README.md", "exec")
    for text in [*payloads, *(re.sub(r",\n}", "\n}", request) for request in requests)]:
        assert not errors(REQUESTED, json.loads(text))
    assert (len(snippets), len(payloads), len(requests)) == (2, 1, 1)
