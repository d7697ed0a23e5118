"""docker/: what its files name is what the program wants, and each user may do its work only."""

import asyncio
import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import yaml
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused
from yarl import URL

from consumer.demo.private_node import PrivateNode
from consumer.demo.ways import find_server
from consumer.environment import read_settings
from consumer.messages import FAILED, STARTED
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay, discard_letters, look, send_back
from consumer.operations.upstream import listening, publish_requests
from consumer.rabbitmq.declaration import declare
from consumer.rabbitmq.losses import NotPublished
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings
from tests.commands import Command
from tests.home import PROJECT
from tests.workbench import WITHIN_S, Bench

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DEFINITIONS = DOCKER / "rabbitmq" / "definitions.json"
YAML_STYLE = "{extends: default, rules: {document-start: disable, line-length: {max: 100}}}"

DEFINED: dict[str, list[dict[str, Any]]] = json.loads(DEFINITIONS.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())[
    "services"
]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
TOPOLOGY = topology_of(Settings())
BUSY_ONCE, BAD_NUMBER = "+12025550111", "+12025550123"


def tool(name: str, *arguments: str | Path) -> str:
    command = [Path(sys.executable).with_name(name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_dockerfile_is_in_order() -> None:
    assert tool("hadolint", DOCKER / "Dockerfile") == ""


def test_the_yaml_is_in_order() -> None:
    assert tool("yamllint", "--strict", "--config-data", YAML_STYLE, DOCKER) == ""


@pytest.mark.parametrize("name", ["build.lock", "requirements.lock"])
def test_the_image_is_made_of_what_is_tested(name: str) -> None:
    tested = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in (DOCKER / name).read_text().splitlines() if "==" in line]

    assert pins
    assert set(pins) <= set(tested)


def test_the_broker_is_given_the_exchange_and_queues_that_the_worker_would_declare() -> None:
    (exchange,) = DEFINED["exchanges"]
    queues = TOPOLOGY.queues

    assert (exchange["name"], exchange["type"], exchange["durable"]) == ("calls", "topic", True)
    assert [(q["name"], q["arguments"]) for q in DEFINED["queues"]] == [
        (queue.name, queue.arguments) for queue in queues
    ]
    assert [(b["source"], b["routing_key"], b["destination"]) for b in DEFINED["bindings"]] == [
        (TOPOLOGY.exchange, key, queue.name) for key, queue in TOPOLOGY.bindings.items()
    ]


@pytest.mark.parametrize("service", OURS)
def test_every_setting_in_the_compose_file_is_one(service: str) -> None:
    environment = OURS[service].get("environment", {})

    settings = read_settings(environment)

    assert settings.rabbitmq_url or service == "sandbox"
    assert all(name.startswith("CALLS_") for name in environment)


def user_of(service: str) -> URL:
    return URL(OURS[service]["environment"]["CALLS_RABBITMQ_URL"])


@pytest.mark.parametrize("service", sorted(OURS.keys() - {"sandbox"}))
def test_the_broker_knows_the_password_of_each_service(service: str) -> None:
    url = user_of(service)
    (user,) = [user for user in DEFINED["users"] if user["name"] == url.user]
    salt_and_digest = base64.b64decode(user["password_hash"])
    salted = salt_and_digest[:4] + (url.password or "").encode()

    assert salt_and_digest[4:] == hashlib.sha256(salted).digest()
    assert url.path == f"/{DEFINED['vhosts'][0]['name']}"


def test_no_user_is_an_administrator_or_has_rights_that_no_service_needs() -> None:
    names = {user["name"] for user in DEFINED["users"]}

    assert names == {user_of(service).user for service in OURS if service != "sandbox"}
    tags = {user["name"]: user["tags"] for user in DEFINED["users"]}
    assert {name: own for name, own in tags.items() if own} == {"operator": ["management"]}
    assert {right["user"] for right in DEFINED["permissions"]} == names


def test_a_stop_leaves_the_worker_the_time_that_it_may_take() -> None:
    grace = re.fullmatch(r"(\d+)s", OURS["worker"]["stop_grace_period"])

    assert grace
    assert int(grace[1]) > Settings().drain_s


def mounts(service: str) -> dict[str, Path]:
    """Return what a service finds where: its own paths and the files here."""
    given = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {inside: DOCKER / here for here, inside, *_ in given if here.startswith(".")}


@pytest.mark.parametrize("service", [name for name in SERVICES if "volumes" in SERVICES[name]])
def test_every_mounted_file_is_there(service: str) -> None:
    for here in mounts(service).values():
        assert here.is_file(), here


def test_the_project_has_a_name_of_its_own() -> None:
    named = dict(line.split("=") for line in (DOCKER / ".env").read_text().splitlines())

    assert named == {"COMPOSE_PROJECT_NAME": PROJECT["name"]}


def test_no_page_is_reached_from_another_machine_nor_the_brokers_without_its_profile() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert "rabbitmq" not in published
    assert SERVICES["management"]["profiles"] == ["management"]


def test_prometheus_watches_both_workers_the_broker_and_reads_the_alerts() -> None:
    inside = mounts("prometheus")
    config = yaml.safe_load(inside["/etc/prometheus/prometheus.yml"].read_text())
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }

    assert targets == {
        "call-consumer": [f"{name}:{Settings().http_port}" for name in ("worker", "standby")],
        "rabbitmq": ["rabbitmq:15692"],
    }
    assert all(
        "groups" in yaml.safe_load(inside[path].read_text()) for path in config["rule_files"]
    )


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    inside = mounts("grafana")
    provisioned = "/etc/grafana/provisioning"
    source = yaml.safe_load(inside[f"{provisioned}/datasources/call-consumer.yaml"].read_text())
    folder = yaml.safe_load(inside[f"{provisioned}/dashboards/call-consumer.yaml"].read_text())
    (dashboard,) = [path for path in inside if path.endswith(".json")]

    assert URL(source["datasources"][0]["url"]).host in SERVICES
    assert Path(dashboard).parent == Path(folder["providers"][0]["options"]["path"])
    assert "panels" in json.loads(inside[dashboard].read_text())


# Who may do what, on a real broker.

needs_server = pytest.mark.skipif(
    find_server() is None,
    reason="rabbitmq-server is not installed, so no broker could be given these users",
)


@pytest.fixture(scope="module")
def defined(node: PrivateNode) -> PrivateNode:
    """Lend a broker that has read the definitions, as the compose file's does."""
    node.ctl("import_definitions", str(DEFINITIONS))
    node.ctl("set_permissions", "-p", "calls", "guest", ".*", ".*", ".*")
    return node


def url_of(node: PrivateNode, user: str) -> str:
    here = URL(node.url)
    password = "guest" if user == "guest" else f"{user}-not-a-secret"
    return str(here.with_user(user).with_password(password).with_path("/calls"))


FORBIDDEN: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "upstream": [
        ("basic_publish", {"body": b"", "exchange": "calls", "routing_key": "call.started"}),
        ("basic_publish", {"body": b"", "exchange": "", "routing_key": "call.requested"}),
        ("basic_get", {"queue": "call.requested"}),
        ("basic_get", {"queue": "call.requested.dlq"}),
        ("queue_declare", {"queue": "", "exclusive": True}),
        ("queue_bind", {"queue": "call.requested", "exchange": "calls", "routing_key": "#"}),
        ("exchange_delete", {"exchange": "calls"}),
    ],
    "listener": [
        ("basic_publish", {"body": b"", "exchange": "calls", "routing_key": "call.requested"}),
        ("basic_publish", {"body": b"", "exchange": "", "routing_key": "call.requested"}),
        ("basic_get", {"queue": "call.requested"}),
        ("basic_get", {"queue": "call.requested.dlq"}),
        ("queue_declare", {"queue": "mine", "exclusive": True}),
        ("queue_bind", {"queue": "", "exchange": "calls", "routing_key": "call.requested"}),
        ("queue_bind", {"queue": "", "exchange": "calls", "routing_key": "#"}),
    ],
    "worker": [
        ("basic_publish", {"body": b"", "exchange": "calls", "routing_key": "call.requested"}),
        ("basic_get", {"queue": "call.requested.dlq"}),
        ("basic_get", {"queue": "call.requested.delay.5s"}),
        ("queue_declare", {"queue": "", "exclusive": True}),
        ("queue_declare", {"queue": "call.requested.delay.7s", "durable": True}),
        ("queue_declare", {"queue": "call.requested.ledgers", "durable": True}),
        ("queue_bind", {"queue": "call.requested.dlq", "exchange": "calls", "routing_key": "#"}),
        ("queue_purge", {"queue": "call.requested.dlq"}),
        ("queue_delete", {"queue": "call.requested"}),
        ("exchange_delete", {"exchange": "calls"}),
    ],
    "operator": [
        ("basic_publish", {"body": b"", "exchange": "calls", "routing_key": "call.requested"}),
        ("basic_get", {"queue": "call.requested"}),
        ("basic_consume", {"queue": "call.requested", "consumer_callback": print}),
        ("basic_get", {"queue": "call.requested.delay.5s"}),
        ("queue_purge", {"queue": "call.requested"}),
        ("queue_declare", {"queue": "", "exclusive": True}),
        ("queue_delete", {"queue": "call.requested.dlq"}),
        ("exchange_delete", {"exchange": "calls"}),
    ],
}


async def is_allowed(connection: AbstractConnection, act: str, arguments: dict[str, Any]) -> bool:
    channel = await (await connection.channel()).get_underlay_channel()
    if act == "queue_bind" and not arguments["queue"]:
        await channel.queue_declare("", exclusive=True)  # no name means the last one declared
    try:
        await getattr(channel, act)(**arguments)
    except ChannelAccessRefused:
        return False
    return True


@needs_server
async def test_no_user_may_do_anothers_work(defined: PrivateNode) -> None:
    allowed = []
    for user, acts in FORBIDDEN.items():
        connection = await aio_pika.connect(url_of(defined, user))
        async with connection:
            allowed += [(user, *act) for act in acts if await is_allowed(connection, *act)]

    assert allowed == []


@needs_server
async def test_a_worker_that_may_declare_finds_everything_as_it_would_declare_it(
    defined: PrivateNode,
) -> None:
    await declare(url_of(defined, "guest"), TOPOLOGY)


@needs_server
async def test_who_may_not_make_the_lease_is_told_once_and_works(
    defined: PrivateNode, portal_url: str, call_consumer: Callable[..., Command]
) -> None:
    defined.ctl("add_user", "leaseless", "leaseless-not-a-secret")
    defined.ctl("set_permissions", "-p", "calls", "leaseless", "^$", ".*", ".*")
    command = call_consumer(
        "run",
        rabbitmq_url=url_of(defined, "leaseless"),
        bitrix24_url=portal_url,
        declare=False,
        default_line="reg151083",
        http_port=0,
    )
    body = json.dumps(Bench.request("+12025550100")).encode()
    async with asyncio.timeout(WITHIN_S), listening(url_of(defined, "listener"), "calls") as events:
        await publish_requests(url_of(defined, "upstream"), "calls", [body])
        event = await anext(events)
    command.terminate()

    assert await asyncio.to_thread(command.process.wait, 10) == 0
    assert event["type"] == STARTED
    assert [line["queue"] for line in command.log("lease.off")] == ["call.requested.ledger"]


async def dead_letters(url: str, count: int) -> dict[str, DeadLetter]:
    """Wait until there are so many dead letters, and return them by key."""
    while True:
        found = {letter.key: letter async for letter in look(url, TOPOLOGY, Choice())}
        if len(found) == count:
            return found


@needs_server
async def test_who_may_not_publish_is_told_so(defined: PrivateNode) -> None:
    body = json.dumps(Bench.request("+12025550100")).encode()
    with pytest.raises(NotPublished) as caught:
        await publish_requests(url_of(defined, "listener"), "calls", [body])

    assert caught.value.reason == "forbidden"
    assert "refused for user 'listener'" in str(caught.value)


async def test_with_these_rights_requests_go_all_the_way(
    defined: PrivateNode, portal_url: str, call_consumer: Callable[..., Command]
) -> None:
    as_operator = url_of(defined, "operator")
    numbers = ("+12025550100", BUSY_ONCE, BAD_NUMBER)
    bodies = [json.dumps(Bench.request(number)).encode() for number in numbers]
    call_consumer(
        "run",
        rabbitmq_url=url_of(defined, "worker"),
        bitrix24_url=portal_url,
        declare=False,
        default_line="reg151083",
        rate_per_s=0,
        http_port=0,
        follow_up=False,  # or call.completed may come between
    )
    async with asyncio.timeout(WITHIN_S), listening(url_of(defined, "listener"), "calls") as events:
        await publish_requests(url_of(defined, "upstream"), "calls", bodies)
        heard = [await anext(events) for _ in numbers]
        letters = await dead_letters(as_operator, 1)
        await send_back(as_operator, TOPOLOGY, letters, Replay(), lambda _: asyncio.sleep(0))
        heard.append(await anext(events))
        letters = await dead_letters(as_operator, 1)
        await discard_letters(as_operator, TOPOLOGY, letters, lambda _: None)
        left = await dead_letters(as_operator, 0)

    assert sorted((event["type"], event["attempt"], event["replay"]) for event in heard) == [
        (FAILED, 1, 0),
        (FAILED, 1, 1),
        (STARTED, 1, 0),
        (STARTED, 2, 0),
    ]
    assert left == {}
