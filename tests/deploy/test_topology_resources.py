"""The chart's topology: what the worker would declare, and the rights that each user needs."""

import re
from itertools import chain

import pytest
from helm_python import HelmError

from consumer.rabbitmq.lease import lease_queue
from consumer.rabbitmq.topology import Queue, topology_of
from consumer.settings import Settings
from tests.deploy.test_chart import MINIMAL, Object, named, render, values_of
from tests.deploy.test_docker import DEFINED

GIVEN = values_of("topology")
OTHERS = {"exchange": "phone (new)", "queue": "a.b: calls+", "retryDelaysS": [7, 2_592_000]}
ALL_SETTINGS: dict[str, Object] = {"default": {}, "others": OTHERS}

REFERENCE = {"name", "namespace", "connectionSecret"}
MAY_HAVE = {
    "Vhost": {"name", "tags", "tracing"},
    "Exchange": {"name", "vhost", "type", "durable", "autoDelete", "arguments"},
    "Queue": {"name", "vhost", "type", "durable", "autoDelete", "arguments"},
    "Binding": {"vhost", "source", "destination", "destinationType", "routingKey", "arguments"},
    "User": {"tags", "importCredentialsSecret"},
    "Permission": {"vhost", "user", "userReference", "permissions"},
    "TopicPermission": {"vhost", "user", "userReference", "permissions"},
}
"""The fields of the custom resources that all versions of the operator know.

Source: https://www.rabbitmq.com/kubernetes/operator/using-topology-operator
"""


def made(settings: Object) -> dict[str, list[Object]]:
    """Return by kind what the operator is asked for."""
    values = GIVEN | {"settings": GIVEN["settings"] | settings}
    ours = [each for each in render(values) if each["apiVersion"] == "rabbitmq.com/v1beta1"]
    return {kind: [each for each in ours if each["kind"] == kind] for kind in MAY_HAVE}


def settings_of(given: Object) -> Settings:
    delays = given.get("retryDelaysS")
    return Settings.model_validate(
        {name: given[name] for name in ("exchange", "queue") if name in given}
        | ({"retry_delays_s": tuple(delays)} if delays else {})
    )


@pytest.fixture(params=ALL_SETTINGS)
def given(request: pytest.FixtureRequest) -> Object:
    return ALL_SETTINGS[request.param]


def specs(objects: list[Object]) -> list[Object]:
    return [each["spec"] for each in objects]


def test_the_queues_are_those_that_the_worker_would_declare(given: Object) -> None:
    topology = topology_of(settings_of(given))

    queues = specs(made(given)["Queue"])

    assert [
        Queue(queue["name"], queue["arguments"] | {"x-queue-type": queue["type"]})
        for queue in queues
    ] == list(topology.queues)
    assert all(queue["durable"] for queue in queues)


def test_so_are_exchange_and_bindings(given: Object) -> None:
    topology = topology_of(settings_of(given))

    objects = made(given)

    (exchange,) = specs(objects["Exchange"])
    assert exchange["name"] == topology.exchange
    assert (exchange["type"], exchange["durable"]) == ("topic", True)
    bindings = specs(objects["Binding"])
    assert {each["routingKey"]: each["destination"] for each in bindings} == {
        key: queue.name for key, queue in topology.bindings.items()
    }
    for each in bindings:
        assert (each["source"], each["destinationType"]) == (topology.exchange, "queue")


@pytest.mark.parametrize(
    ("kind", "defined"), [("Permission", "permissions"), ("TopicPermission", "topic_permissions")]
)
def test_the_rights_are_those_of_the_compose_file(kind: str, defined: str) -> None:
    rights = {
        spec["userReference"]["name"].removeprefix("calling-call-consumer-"): spec["permissions"]
        for spec in specs(made({})[kind])
    }

    assert rights == {
        each["user"]: {k: v for k, v in each.items() if k not in {"user", "vhost"}}
        for each in DEFINED[defined]
    }


def test_the_rights_follow_the_names(given: Object) -> None:
    settings = settings_of(given)
    topology = topology_of(settings)
    everything = {
        *(queue.name for queue in topology.queues),
        *(lease_queue(settings.queue, "").name, topology.exchange, "amq.default", "else", "calls2"),
    }
    rights = {
        spec["userReference"]["name"].rpartition("-")[2]: spec["permissions"]
        for spec in specs(made(given)["Permission"])
    }

    def allowed(user: str, right: str) -> set[str]:
        return {name for name in everything if re.search(rights[user][right], name)}

    lease = lease_queue(settings.queue, "").name
    read = [topology.requests, topology.cancellations, topology.evicted]
    written = [topology.dead_letters, *topology.delays.values()]
    assert allowed("worker", "configure") == {lease}
    assert allowed("worker", "read") == {lease, *(queue.name for queue in read)}
    assert allowed("worker", "write") == {
        *(queue.name for queue in written),
        *("amq.default", topology.exchange),
    }
    assert allowed("upstream", "write") == {topology.exchange} == allowed("listener", "read")
    assert allowed("operator", "read") == {topology.dead_letters.name, topology.evicted.name}


def test_every_object_has_fields_that_the_operator_knows_and_outlives_the_release() -> None:
    objects = made({})
    names = [(each["kind"], named(each)) for each in chain(*objects.values())]

    assert all(objects.values())
    assert len(set(names)) == len(names)
    for kind, ours in objects.items():
        for each in ours:
            reference = each["spec"].pop("rabbitmqClusterReference")
            assert reference == {"name": "rabbitmq", "namespace": "messaging"}
            assert each["spec"].keys() <= MAY_HAVE[kind]
            assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", named(each))
            assert each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
            if kind in {"Permission", "TopicPermission"}:
                user = ("User", each["spec"]["userReference"]["name"])
                assert user in names


def test_users_without_a_secret_are_not_made_and_the_first_virtual_host_neither() -> None:
    topology = GIVEN["topology"] | {"vhost": "/", "users": {"worker": "broker-worker"}}
    kinds = [each["kind"] for each in render(GIVEN | {"topology": topology})]

    assert "Vhost" not in kinds
    assert [kinds.count(kind) for kind in ("User", "Permission", "TopicPermission")] == [1, 1, 1]


BOTH = {"name": "a", "connectionSecret": {"name": "b"}}
REFUSED: dict[str, tuple[Object, str]] = {
    "queues declared twice": (GIVEN | {"settings": {"declare": True}}, "settings.declare to false"),
    "no cluster": (
        MINIMAL | {"topology": {"enabled": True}, "settings": {"declare": False}},
        "/topology/rabbitmqClusterReference.*minProperties",
    ),
    "two clusters": (
        MINIMAL
        | {
            "topology": {
                "rabbitmqClusterReference": {"name": "a", "connectionSecret": {"name": "b"}}
            }
        },
        "/topology/rabbitmqClusterReference",
    ),
}


@pytest.mark.parametrize(("values", "why"), REFUSED.values(), ids=REFUSED)
def test_a_topology_that_cannot_work_is_refused(values: Object, why: str) -> None:
    with pytest.raises(HelmError, match=why):
        render(values)
