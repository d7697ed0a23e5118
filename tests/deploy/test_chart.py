"""The Helm chart: rendered by Helm's own library, validated, and held to what the worker does."""

import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate  # type: ignore[import-untyped]  # ships no type information
import pytest
import yaml
from click import Group
from helm_python import Chart, HelmError
from yamllint import linter  # type: ignore[import-untyped]  # as above
from yamllint.config import YamlLintConfig  # type: ignore[import-untyped]  # as above

from consumer.cli.main import main
from consumer.environment import MAY_BE_FILES, read_settings
from consumer.health import build_app
from consumer.settings import PREFIX, Settings
from tests.commands import commands_of
from tests.deploy import values_table
from tests.home import HOME, PROJECT

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "call-consumer"
SCENARIOS = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*"))
KUBERNETES = ("1.30", kubernetes_validate.latest_version())
OPERATORS_OWN = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, of which Kubernetes has no schema."""
RABBITMQS = "rabbitmq.com/v1beta1"
"""What the messaging-topology-operator makes; test_topology.py has its tests."""
SECRETS = set(MAY_BE_FILES)
MINIMAL = {"secrets": {"existingSecret": "addresses"}}
OWN = {"rabbitmqUrl": "amqp://u:pa55@broker/", "bitrix24Url": "https://portal/rest/1/s3cret/"}
OWN_POSTGRES = {
    "ledger": {"kind": "postgresql"},
    "secrets": OWN | {"ledgerUrl": "postgresql://u:pa55@db:5432/calls"},
}
OAUTH = {
    "secrets": OWN | {"bitrix24Url": "https://portal/rest/", "oauthClientSecret": "s3cret"},
    "settings": {"oauthClientId": "local.1a2b"},
}

Object = dict[str, Any]


def values_of(scenario: str) -> Object:
    text = (CHART / "ci" / f"{scenario}-values.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def render(values: Object, folder: Path = CHART) -> list[Object]:
    """Return the objects that Helm would install, and the pod of `helm test`."""
    with Chart.load(folder) as chart:
        texts = chart.render(values, name="calling", namespace="telephony")
    found = []
    for path, text in texts.items():
        if path.endswith(".yaml"):
            objects = [one for one in yaml.safe_load_all(text) if one]
            kinds = {each["kind"] for each in objects}
            assert len(kinds) <= 1 or "extra" in path, f"{path}: one kind of resource per file"
            found += objects
    return found


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """Return the one of a kind, the pages' own only by its name."""
    known = [each for each in objects if each["kind"] == kind and named(each).endswith(name)]
    (found,) = [each for each in known if name or not named(each).endswith("-web")]
    return found


def named(each: Object) -> str:
    return str(each["metadata"]["name"])


def pods(objects: list[Object]) -> dict[str, Object]:
    """Return the specifications of the worker's pods and of the test's."""
    return {
        "worker": one(objects, "Deployment")["spec"]["template"]["spec"],
        "check": one(objects, "Pod")["spec"],
    }


def worker(objects: list[Object]) -> Object:
    return container_of(pods(objects)["worker"], "worker")


def container_of(pod: Object, name: str) -> Object:
    """Return our own container; others may run beside it."""
    (container,) = [each for each in pod["containers"] if each["name"] == name]
    return dict(container)


def snake(camel: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", camel).lower()


def camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(word.title() for word in rest)


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objects(scenario: str) -> list[Object]:
    return rendered(scenario)


@cache
def rendered(scenario: str) -> list[Object]:
    return render(values_of(scenario))


# --- Helm and Kubernetes


def test_helm_finds_nothing_to_warn_of(scenario: str) -> None:
    report = helm_python.lint(CHART, values_of(scenario), strict=True)

    assert [each["error"] for each in report["messages"]] == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_valid(objects: list[Object], version: str) -> None:
    for each in objects:
        if each["kind"] not in OPERATORS_OWN and each["apiVersion"] != RABBITMQS:
            kubernetes_validate.validate(each, version, strict=True)


def test_validation_would_notice_a_misspelt_field() -> None:
    deployment = one(render(MINIMAL), "Deployment")
    deployment["spec"]["template"]["spec"]["enableServiceLink"] = False

    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


def test_there_is_no_autoscaler_and_no_more_than_850_lines_of_templates() -> None:
    templates = [*CHART.glob("templates/**/*.yaml"), *CHART.glob("templates/**/*.tpl")]
    texts = [path.read_text(encoding="utf-8") for path in templates]

    assert sum(len(text.splitlines()) for text in texts) < 850
    assert "HorizontalPodAutoscaler" not in "".join(texts)
    assert "scaler" in (CHART / "README.md").read_text(encoding="utf-8")


def test_the_plain_yaml_is_well_kept() -> None:
    length = "{max: 100, allow-non-breakable-inline-mappings: true}"  # a URL
    rules = f"{{line-length: {length}, document-start: disable}}"
    config = YamlLintConfig(f"{{extends: default, rules: {rules}}}")
    plain = [*CHART.glob("*.yaml"), *CHART.glob("ci/*"), CHART / "files" / "alerts.yaml"]
    plain += ROOT.glob("tests/deploy/alerts/*")

    for path in plain:
        problems = list(linter.run(path.read_text(encoding="utf-8"), config))
        assert not problems, f"{path}: {problems}"


def test_the_chart_installs_the_version_it_comes_with() -> None:
    with Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == PROJECT["version"]
        assert chart.metadata["home"] == HOME
        assert chart.metadata["sources"] == [HOME]
    assert worker(render(MINIMAL))["image"] == f"call-consumer:{PROJECT['version']}"


def test_the_notes_name_commands_that_exist() -> None:
    with Chart.load(CHART) as chart:
        notes = chart.render(MINIMAL, name="calling")["call-consumer/templates/NOTES.txt"]

    commands = re.findall(r"call-consumer ((?:dlq )?[a-z]+)", notes.replace("dlq stats", "dlq"))
    assert set(commands) == {"lines", "publish", "dlq"}
    assert set(commands) <= set(commands_of(main))
    assert isinstance(commands_of(main)["dlq"], Group)


# --- the restricted Pod Security Standard, written out


VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}


@pytest.mark.parametrize("name", ["worker", "check"])
def test_pods_meet_the_restricted_standard(objects: list[Object], name: str) -> None:
    pod = pods(objects)[name]
    of_pod = pod["securityContext"]

    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["seccompProfile"]["type"] in {"RuntimeDefault", "Localhost"}
    assert of_pod.get("runAsUser") != 0
    assert not {"sysctls", "windowsOptions", "seLinuxOptions", "appArmorProfile"} & of_pod.keys()
    for volume in pod.get("volumes", []):
        assert volume.keys() - {"name"} <= VOLUMES
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert set(context["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}
        assert context.get("runAsUser") != 0
        assert context.get("runAsNonRoot", True) is True
        assert not {"privileged", "procMount", "seLinuxOptions", "seccompProfile"} & context.keys()
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert not any(
            "host" in container[probe].get("httpGet", {})
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
            if probe in container
        )


@pytest.mark.parametrize("name", ["worker", "check"])
def test_pods_have_no_token_no_service_variables_and_a_root_they_cannot_write(
    objects: list[Object], name: str
) -> None:
    pod = pods(objects)[name]

    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    container = container_of(pod, name)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"]


def test_the_default_user_is_the_images() -> None:
    context = pods(render(MINIMAL))["worker"]["securityContext"]

    assert [context[each] for each in ("runAsUser", "runAsGroup", "fsGroup")] == [10001] * 3


# --- typos


def keys_of(values: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*path, key))


VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", list(keys_of(VALUES)), ids=".".join)
def test_a_misspelt_key_is_refused(path: tuple[str, ...]) -> None:
    misspelt = f"{path[-1]}x"
    values: Any = {misspelt: None}
    for key in reversed(path[:-1]):
        values = {key: values}

    with pytest.raises(HelmError, match=f"additional properties '{misspelt}' not allowed"):
        render(values | {"nameOverride": ""})


WRONG: dict[str, tuple[Object, str]] = {
    "pages that cannot reach the ledger": (
        MINIMAL | {"web": {"enabled": True}},
        "web.enabled: needs ledger.kind postgresql",
    ),
    "two replicas on SQLite": (MINIMAL | {"replicas": 2}, "/replicas.*maximum: got 2, want 1"),
    "a drain shorter than a call": (
        MINIMAL | {"settings": {"drainS": 65, "timeoutS": 65}},
        "settings.drainS: must be more than settings.timeoutS",
    ),
    "no addresses": ({}, "set secrets.existingSecret, or secrets.rabbitmqUrl"),
    "half of the addresses": (
        {"secrets": {"rabbitmqUrl": OWN["rabbitmqUrl"]}},
        "set secrets.existingSecret, or secrets.bitrix24Url",
    ),
    "PostgreSQL without its address": (
        OWN_POSTGRES | {"secrets": OWN},
        "set secrets.existingSecret, or secrets.ledgerUrl",
    ),
    "OAuth without its secret": (
        OAUTH | {"secrets": OWN},
        "set secrets.existingSecret, or secrets.oauthClientSecret",
    ),
    "PostgreSQL's address for SQLite": (
        {"secrets": OWN_POSTGRES["secrets"]},
        "/secrets/ledgerUrl.*maxLength",
    ),
    "addresses in two places": (
        {"secrets": OWN | {"existingSecret": "addresses"}},
        "/secrets/rabbitmqUrl.*maxLength",
    ),
    "hours in words": (
        MINIMAL | {"settings": {"callingHours": "daytime"}},
        "/settings/callingHours.*pattern",
    ),
    "countries as YAML reads Norway": (
        MINIMAL | {"settings": {"countries": False}},
        "/settings/countries.*string",
    ),
    "no probes": (MINIMAL | {"settings": {"httpPort": 0}}, "/settings/httpPort.*minimum"),
    "root": (MINIMAL | {"podSecurityContext": {"runAsUser": 0}}, "/runAsUser.*minimum"),
}


def test_the_readme_has_a_row_for_each_value_that_says_what_it_does() -> None:
    readme = values_table.README.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| .* \| (.*) \|$", readme, re.MULTILINE))
    leaves = {".".join(path) for path in keys_of(VALUES) if not value_at(path)}

    assert readme == values_table.renewed(readme), "run `make docs`"
    assert leaves <= rows.keys()
    assert [key for key, what in rows.items() if not what] == []


def value_at(path: tuple[str, ...]) -> Object | None:
    """Return the group that *path* leads to, or None."""
    values: Any = VALUES
    for key in path:
        values = values[key]
    return values if values and isinstance(values, dict) else None


@pytest.mark.parametrize(("values", "why"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused_and_no_address_shown(values: Object, why: str) -> None:
    with pytest.raises(HelmError, match=why) as refused:
        render(values)

    assert not re.search("pa55|s3cret", str(refused.value))


# --- settings and addresses


def test_the_settings_are_the_workers_with_its_defaults() -> None:
    ours = {snake(name): value for name, value in VALUES["settings"].items()}
    workers = {
        name: field.default for name, field in Settings.model_fields.items() if name not in SECRETS
    }

    assert {**ours, "retry_delays_s": tuple(ours["retry_delays_s"])} == {
        name: "" if default is None else default for name, default in workers.items()
    }


def test_the_schema_lists_the_workers_settings() -> None:
    with Chart.load(CHART) as chart:
        schema = chart.schema or {}

    settings = schema["properties"]["settings"]
    assert {snake(name) for name in settings["properties"]} == set(Settings.model_fields) - SECRETS
    assert settings["additionalProperties"] is False


def environment(objects: list[Object], name: str) -> dict[str, str]:
    """Return the environment of a pod's container, as Kubernetes puts it together."""
    container = container_of(pods(objects)[name], name)
    source, *_ = container["envFrom"]
    config = one(objects, "ConfigMap", source["configMapRef"]["name"])
    own = {each["name"]: each["value"] for each in container.get("env") or []}
    return {**config["data"], **own}


@pytest.mark.parametrize("name", ["worker", "check"])
def test_the_worker_reads_its_settings_as_they_were_given(
    scenario: str, objects: list[Object], name: str, tmp_path: Path
) -> None:
    variables = environment(objects, name)
    given = values_of(scenario)
    for secret in MAY_BE_FILES:
        if f"{PREFIX}{secret.upper()}_FILE" in variables:
            file = tmp_path / Path(variables[f"{PREFIX}{secret.upper()}_FILE"]).name
            file.write_text(OWN_POSTGRES["secrets"][camel(secret)])
            variables[f"{PREFIX}{secret.upper()}_FILE"] = str(file)

    read = read_settings(variables)

    settings = {snake(key): value for key, value in given.get("settings", {}).items()}
    wanted = Settings.model_validate(settings)
    for field in settings:
        assert getattr(read, field) == getattr(wanted, field), field
    assert read.rabbitmq_url
    assert read.bitrix24_url


ADDRESSES: dict[str, Object] = {
    "a Secret that exists": MINIMAL,
    "SQLite": {"secrets": OWN},
    "PostgreSQL": OWN_POSTGRES,
    "OAuth": OAUTH,
}


@pytest.mark.parametrize("values", ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize("name", ["worker", "check"])
def test_addresses_reach_the_pods_as_files_and_only_so(values: Object, name: str) -> None:
    objects = render(values)
    pod = pods(objects)[name]
    container = container_of(pod, name)
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "secrets"]
    (volume,) = [each["secret"] for each in pod["volumes"] if each["name"] == "secrets"]
    variables = environment(objects, name)
    files = {value for key, value in variables.items() if key.endswith("_FILE")}

    assert files == {f"{mount['mountPath']}/{item['path']}" for item in volume["items"]}
    assert mount["readOnly"]
    assert volume["defaultMode"] == 0o440
    shown = [each for each in objects if re.search("pa55|s3cret", str(each))]
    assert [each["kind"] for each in shown] == ([] if values is MINIMAL else ["Secret"])
    if shown:
        assert set(shown[0]["stringData"]) == {item["key"] for item in volume["items"]}
        assert named(shown[0]) == volume["secretName"]


def test_pods_are_replaced_when_settings_or_own_addresses_change() -> None:
    def checksums(values: Object) -> Object:
        pod = one(render(values), "Deployment")["spec"]["template"]
        return dict(pod["metadata"]["annotations"])

    before = checksums({"secrets": OWN})
    other_rate = checksums({"secrets": OWN, "settings": {"ratePerS": 5}})
    other_broker = checksums({"secrets": OWN | {"rabbitmqUrl": "amqp://elsewhere/"}})

    assert {key for key in before if before[key] != other_rate[key]} == {"checksum/config"}
    assert {key for key in before if before[key] != other_broker[key]} == {"checksum/secret"}


# --- ledger, stop, probes


def test_sqlite_has_one_replica_on_a_volume_that_outlives_the_release() -> None:
    objects = render(MINIMAL)
    spec = one(objects, "Deployment")["spec"]
    claim = one(objects, "PersistentVolumeClaim")
    mounts = {each["name"]: each["mountPath"] for each in worker(objects)["volumeMounts"]}

    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    file = environment(objects, "worker")["CALLS_LEDGER_URL"].removeprefix("sqlite:///")
    assert str(Path(file).parent) == mounts["ledger"]
    # The test's pod cannot have the volume: it may be mounted elsewhere.
    assert environment(objects, "check")["CALLS_LEDGER_URL"] == "sqlite://"
    assert not [each for each in objects if each["kind"] == "PodDisruptionBudget"]


def test_postgresql_has_a_standby_that_no_upgrade_and_no_eviction_takes_away() -> None:
    objects = render(OWN_POSTGRES)
    spec = one(objects, "Deployment")["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"]["type"] == "RollingUpdate"
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert one(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert "PersistentVolumeClaim" not in str(objects)
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == spec["selector"]


def test_the_grace_period_is_longer_than_a_drain_and_that_longer_than_a_call(
    objects: list[Object],
) -> None:
    variables = environment(objects, "worker")
    drain_s, timeout_s = float(variables["CALLS_DRAIN_S"]), float(variables["CALLS_TIMEOUT_S"])

    assert pods(objects)["worker"]["terminationGracePeriodSeconds"] > drain_s > timeout_s


def test_probes_and_metrics_are_where_the_worker_serves_them(objects: list[Object]) -> None:
    routes = {route.path for route in build_app(dict).routes}  # type: ignore[attr-defined]
    container = worker(objects)
    (port,) = container["ports"]
    probes = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }

    assert str(port["containerPort"]) == environment(objects, "worker")["CALLS_HTTP_PORT"]
    paths = {name: probe["path"] for name, probe in probes.items()}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert routes == {*paths.values(), "/metrics"}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    (service,) = one(objects, "Service")["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    for monitor in [each for each in objects if each["kind"] == "ServiceMonitor"]:
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] == service["name"]
        assert endpoint["path"] == "/metrics"


# --- how the objects hang together


def test_selectors_meet_the_worker_and_the_policy_the_test_too(objects: list[Object]) -> None:
    deployment = one(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    of_test = one(objects, "Pod")["metadata"]["labels"].items()
    budgets = [each for each in objects if each["kind"] == "PodDisruptionBudget"]
    matching = [each["spec"]["selector"]["matchLabels"] for each in [deployment, *budgets]]

    for selector in [*matching, one(objects, "Service")["spec"]["selector"]]:
        assert selector.items() <= labels
        assert not selector.items() <= of_test
    policy = one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    assert policy <= labels
    assert policy <= of_test
    for monitor in [each for each in objects if each["kind"] == "ServiceMonitor"]:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert wanted <= one(objects, "Service")["metadata"]["labels"].items()


def test_what_pods_refer_to_is_there_or_named_in_the_values(
    scenario: str, objects: list[Object]
) -> None:
    made = {(each["kind"], named(each)) for each in objects}
    given = (CHART / "ci" / f"{scenario}-values.yaml").read_text(encoding="utf-8")
    names = {
        "configMap": ("ConfigMap", "name"),
        "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
        "secret": ("Secret", "secretName"),
    }

    for pod in pods(objects).values():
        wanted = {("ServiceAccount", pod["serviceAccountName"])}
        for volume in pod["volumes"]:
            for source in volume.keys() & names.keys():
                kind, name = names[source]
                wanted.add((kind, volume[source][name]))
        for kind, name in wanted - made:
            assert re.search(rf": {name}$", given, re.MULTILINE), f"{kind} {name}"


def test_a_closed_network_names_every_way_out() -> None:
    policy = one(render(values_of("locked-down-network")), "NetworkPolicy")["spec"]

    ways = [([port["port"] for port in each["ports"]], "to" in each) for each in policy["egress"]]
    assert ways == [([53, 53], True), ([5671], True), ([3128], True), ([5432], True)]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (way_in,) = policy["ingress"]
    assert (way_in["ports"][0]["port"], len(way_in["from"])) == (8080, 1)


def test_by_default_there_is_no_way_to_a_database_that_is_not_used() -> None:
    policy = one(render(MINIMAL), "NetworkPolicy")["spec"]

    ports = {port["port"] for way in policy["egress"] for port in way["ports"]}
    assert ports == {53, 5672, 5671, 443}


def test_the_name_can_be_the_users_own() -> None:
    assert {named(each) for each in render(MINIMAL | {"fullnameOverride": "calls"})} == {
        "calls",
        "calls-check",
    }


# --- what people bring from other charts


def test_the_values_of_other_charts_reach_their_places() -> None:
    objects = rendered("everything")
    deployment = one(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    service = one(objects, "Service")
    policy = one(objects, "NetworkPolicy")["spec"]

    for name in ("worker", "check"):
        container = container_of(pods(objects)[name], name)
        assert container["image"] == f"registry.example.com/call-consumer:next@sha256:{64 * '0'}"
        assert container["envFrom"][1] == {"secretRef": {"name": "proxy", "optional": True}}
        own = pods(objects)[name]
        assert own["hostAliases"][0]["hostnames"] == ["portal.example.com"]
        assert (own["dnsPolicy"], own["dnsConfig"]["nameservers"]) == ("None", ["192.0.2.53"])
    assert deployment["metadata"]["annotations"] == {"example.com/reloaded-by": "reloader"}
    assert deployment["spec"]["revisionHistoryLimit"] == 3
    assert [each["name"] for each in pod["initContainers"]] == ["wait"]
    assert [each["name"] for each in pod["containers"]] == ["worker", "sidecar"]
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert budget["unhealthyPodEvictionPolicy"] == "IfHealthyBudget"
    assert endpoint["scrapeTimeout"] == "10s"
    assert endpoint["relabelings"][0]["replacement"] == "telephony"
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
    assert service["metadata"]["labels"]["example.com/scraped"] == "true"
    assert service["metadata"]["annotations"] == {"example.com/owner": "telephony"}
    assert (service["spec"]["ipFamilyPolicy"], service["spec"]["ipFamilies"]) == (
        "PreferDualStack",
        ["IPv6", "IPv4"],
    )
    assert (len(policy["ingress"]), policy["egress"][-1]["ports"]) == (2, [{"port": 4318}])
    assert {named(each) for each in objects} >= {"calling-authority", "calling-telephone-by-text"}


def test_common_labels_are_on_everything_that_the_chart_makes() -> None:
    ours = render(MINIMAL | {"commonLabels": {"team": "telephony"}})
    pod = one(ours, "Deployment")["spec"]["template"]

    assert all(each["metadata"]["labels"]["team"] == "telephony" for each in [*ours, pod])


def test_nodes_can_be_drained_while_the_broker_is_away() -> None:
    budget = one(render(OWN_POSTGRES), "PodDisruptionBudget")["spec"]

    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("values", [MINIMAL, OWN_POSTGRES], ids=["", "own addresses"])
def test_a_new_version_of_the_chart_alone_restarts_no_pod(values: Object, tmp_path: Path) -> None:
    newer = shutil.copytree(CHART, tmp_path / "call-consumer")
    chart = newer / "Chart.yaml"
    text = chart.read_text(encoding="utf-8")
    chart.write_text(re.sub(r"^version: .*", "version: 99.0.0", text, flags=re.MULTILINE))

    before, after = render(values), render(values, newer)

    assert one(after, "Deployment")["metadata"]["labels"]["helm.sh/chart"].endswith("99.0.0")
    assert one(before, "Deployment")["spec"] == one(after, "Deployment")["spec"]


# --- the operators' pages


def test_pages_are_off_unless_asked_for() -> None:
    assert not any(named(each).endswith("-web") for each in render(MINIMAL))


def test_the_pages_pod_is_as_closed_as_the_workers_and_reads_the_same() -> None:
    objects = rendered("web")
    pod = one(objects, "Deployment", "-web")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    same = ("securityContext", "automountServiceAccountToken", "enableServiceLinks")

    assert {name: pod[name] for name in same} == {
        name: pods(objects)["worker"][name] for name in same
    }
    assert container["securityContext"] == worker(objects)["securityContext"]
    assert container["envFrom"] == worker(objects)["envFrom"]
    assert pod["volumes"][0] == pods(objects)["worker"]["volumes"][0]
    assert container["args"] == ["web", "--host", "::", "--behind-proxy"]


def test_only_the_ingress_controller_reaches_the_pages_and_it_speaks_tls() -> None:
    objects = rendered("web")
    (way,) = one(objects, "NetworkPolicy", "-web")["spec"]["ingress"]
    (service,) = one(objects, "Service", "-web")["spec"]["ports"]
    ingress = one(objects, "Ingress", "-web")["spec"]
    (path,) = ingress["rules"][0]["http"]["paths"]
    labels = one(objects, "Deployment", "-web")["spec"]["template"]["metadata"]["labels"]

    assert (way["ports"][0]["port"], len(way["from"])) == (service["port"], 1)
    assert path["backend"]["service"]["port"]["name"] == service["name"]
    assert ingress["tls"] == [{"hosts": ["calls.example.com"], "secretName": "calls-certificate"}]
    selector = one(objects, "Service", "-web")["spec"]["selector"]
    assert selector.items() <= labels.items()
    assert not selector.items() <= one(objects, "Pod")["metadata"]["labels"].items()


def test_pages_with_a_certificate_of_their_own_speak_tls() -> None:
    values = values_of("web") | {"web": {"enabled": True, "tlsSecret": "pages"}}
    pod = one(render(values), "Deployment", "-web")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert "--behind-proxy" not in container["args"]
    assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert {"name": "tls", "secret": {"secretName": "pages", "defaultMode": 0o440}} in pod[
        "volumes"
    ]


# --- monitoring


def test_monitoring_is_off_unless_asked_for() -> None:
    assert {each["kind"] for each in render(MINIMAL)} == {
        *("ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Pod"),
        *("Service", "ServiceAccount"),
    }


def test_rules_and_dashboard_are_the_files() -> None:
    objects = render(values_of("monitoring"))
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    dashboard = (CHART / "files" / "dashboard.json").read_text(encoding="utf-8")

    assert one(objects, "PrometheusRule")["spec"] == rules
    moved = one(rendered("everything"), "PrometheusRule")["spec"]
    assert str(moved) == str(rules).replace(
        f"{HOME}/blob/main/OPERATING.md", "https://wiki.example.com/call-consumer"
    )
    config = one(objects, "ConfigMap", "-dashboard")
    assert config["data"]["call-consumer.json"].strip() == dashboard.strip()
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    for kind in OPERATORS_OWN:
        assert one(objects, kind)["metadata"]["labels"]["release"] == "prometheus"
