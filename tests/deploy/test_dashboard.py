"""Dashboard and alerts: against the worker's metrics, promtool, and a real Prometheus."""

import asyncio
import json
import math
import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from consumer import metrics
from consumer.demo.requests import requests
from consumer.messages import CANCEL
from tests.commands import Command
from tests.home import HOME
from tests.workbench import WITHIN_S, Bench

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm" / "call-consumer" / "files"
ALERTS = FILES / "alerts.yaml"
ALERT_TESTS = ROOT / "tests" / "deploy" / "alerts" / "alerts.yaml"
OPERATING = (ROOT / "OPERATING.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
SAMPLES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}
SHOWN = {
    f"{family.name}{suffix}"
    for family in metrics.REGISTRY.collect()
    for suffix in SAMPLES[family.type]
}
DEAD_LETTERS = {("refused",): 2, ("exhausted",): 1, ("invalid",): 2, ("expired",): 1}
"""How many the demo's requests leave, by reason."""
# What Grafana puts in: the scrapes below are half a second apart, the traffic lasts seconds.
VARIABLES = {"$__rate_interval": "1m", "$__range": "10m", "$job": ".+", "$limit": "2"}

Series = list[tuple[dict[str, str], float]]


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bcall_consumer_\w+", expression))


def tool(name: str, package: str = "prometheus") -> str:
    """Find a program of one of Debian's packages; in CI it may not be missing."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


# --- the files


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_every_metric_of_a_panel_is_the_workers(panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        assert names_in(expression) <= SHOWN
        assert names_in(expression) or "$limit" in expression


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_metric_of_an_alert_is_the_workers(rule: dict[str, Any]) -> None:
    assert names_in(rule["expr"])
    assert names_in(rule["expr"]) <= SHOWN


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_every_panel_says_what_to_do_and_asks_the_data_source_that_was_chosen(
    panel: dict[str, Any],
) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}

    assert len(panel["description"]) > 60
    assert panel["datasource"] == chosen
    assert all(target["datasource"] == chosen for target in panel["targets"])


def test_the_dashboard_is_nobodys_yet_and_its_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = Counter(
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )

    assert DASHBOARD["id"] is None
    assert "uid" not in DASHBOARD
    assert set(cells.values()) == {1}
    assert {x for x, _ in cells} == set(range(24))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(PANELS) == len(places)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_alert_leads_to_a_section_of_operating(rule: dict[str, Any]) -> None:
    headings = re.findall(r"^## (.+)$", OPERATING, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}

    assert rule["labels"].keys() == {"severity"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == f"{HOME}/blob/main/OPERATING.md"
    assert anchor in anchors


def test_operating_explains_every_alert_with_its_severity_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (critical|warning) \| .+ \|$", OPERATING, re.MULTILINE)

    assert rows == [(name, rule["labels"]["severity"]) for name, rule in RULES.items()]


# --- promtool


def test_promtool_accepts_the_alerts() -> None:
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", ALERTS], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr
    assert f"{len(RULES)} rules found" in checked.stdout


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    played = subprocess.run(
        [tool("promtool"), "test", "rules", ALERT_TESTS],
        capture_output=True,
        text=True,
        check=False,
    )

    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.parametrize("name", RULES)
def test_of_every_alert_both_is_played_through(name: str) -> None:
    cases = [
        bool(case["exp_samples"])
        for test in yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
        for case in test["promql_expr_test"]
        if f'"{name}"' in case["expr"]
    ]

    assert {True, False} <= set(cases)


# --- a real Prometheus


class Prometheus:
    """A server of the test's own."""

    def __init__(self, port: int) -> None:
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1/", trust_env=False)

    async def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401
        answer = await self._http.get(path, params=parameters)
        found = answer.json()
        assert found["status"] == "success", f"{parameters}: {found}"
        return found["data"]

    async def query(self, expression: str) -> Series:
        data = await self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    async def states(self) -> dict[str, tuple[str, str]]:
        """Return the health and the state of each alert."""
        groups = (await self.ask("rules"))["groups"]
        return {
            rule["name"]: (rule["health"], rule["state"])
            for group in groups
            for rule in group["rules"]
        }

    async def close(self) -> None:
        await self._http.aclose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def worker_port() -> int:
    return free_port()


@pytest.fixture
def prometheus_port(worker_port: int, tmp_path: Path) -> Iterator[int]:
    """Run a Prometheus that scrapes a worker at *worker_port* and knows the alerts."""
    port = free_port()
    folder = tmp_path / "prometheus"
    folder.mkdir()
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "calls",
                "static_configs": [{"targets": [f"127.0.0.1:{worker_port}"]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    arguments = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
        "log.level": "warn",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [tool("prometheus"), *(f"--{name}={value}" for name, value in arguments.items())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    yield port
    process.terminate()
    process.wait(10)


@pytest.fixture
async def prometheus(prometheus_port: int) -> AsyncIterator[Prometheus]:
    server = Prometheus(prometheus_port)
    yield server
    await server.close()


@asynccontextmanager
async def scraped_worker(
    bench: Bench, call_consumer: Callable[..., Command], port: int
) -> AsyncIterator[None]:
    """Run a worker process that serves metrics, and ask whether it is ready, as Kubernetes does."""
    delays = ",".join(map(str, bench.given["retry_delays_s"]))
    command = call_consumer("run", **bench.given | {"http_port": port, "retry_delays_s": delays})
    async with httpx.AsyncClient(trust_env=False) as http:

        async def ready() -> bool:
            with suppress(httpx.TransportError):
                return (await http.get(f"http://127.0.0.1:{port}/readyz")).is_success
            return False

        await until(ready)
        yield
    command.terminate()
    await bench.until(lambda: command.code is not None)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until what has to be asked for is so."""
    async with asyncio.timeout(WITHIN_S):
        while not await holds():  # noqa: ASYNC110  # neither worker nor Prometheus tells
            await asyncio.sleep(0.1)


async def take_the_tour(bench: Bench) -> int:
    """Publish what the demo publishes and wait for all events; return how many calls it took."""
    asked = requests(datetime.now(UTC))
    for request in asked:
        for _ in range(request.copies):
            await bench.publish(request.body)
        if request.taken_back:
            await bench.publish({"request_id": request.id}, key=CANCEL)
    for request in asked:
        await bench.events(request.id, request.copies)
    # A retry each for busy-once and doubt-silent, two each for busy-twice and busy-always; of the
    # rest too-short, too-late, cancelled, the second copy and what is not JSON are never dialled.
    return len(asked) - 4 + 1 + 1 + 2 + 2


def filled_in(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


async def test_after_a_tour_no_panel_is_empty_and_no_alert_is_raised(
    bench: Bench,
    call_consumer: Callable[..., Command],
    worker_port: int,
    prometheus: Prometheus,
) -> None:
    async with scraped_worker(bench, call_consumer, worker_port):
        await until(lambda: answers(prometheus, "call_consumer_consuming == 1"))
        calls = await take_the_tour(bench)
        for settled in (
            f"sum(call_consumer_calls_total) == {calls}",
            f"sum(call_consumer_dead_letters_total) == {sum(DEAD_LETTERS.values())}",
        ):
            await until(partial(answers, prometheus, settled))

        shown = {
            (title, expression): await prometheus.query(filled_in(expression))
            for title, panel in PANELS.items()
            for expression in expressions(panel)
        }
        used = set().union(*(names_in(rule["expr"]) for rule in RULES.values()))
        missing = [name for name in used if not await prometheus.query(name)]
        states = await prometheus.states()

        assert [what for what, series in shown.items() if not series] == []
        assert [what for what, series in shown.items() if not all_finite(series)] == []
        assert missing == []
        assert states == dict.fromkeys(RULES, ("ok", "inactive"))
        assert told(shown, "Workers that take requests") == {(): 1}
        assert told(shown, "Paused") == {}
        assert told(shown, "New dead letters, by reason") == DEAD_LETTERS
        assert told(shown, "Doubts, and how they ended") == {
            (): 2,
            ("found",): 1,
            ("dialled_again",): 1,
        }
        failures = told(shown, "What fails, and why")
        assert failures["CONNECTION_ERROR", "unavailable"] == 6
        assert failures["ERROR_CORE", "refused"] == 2
        assert sum(failures.values()) == 10  # two answers were lost, under one code or two

        # Two doubts about one number are for a person, who hears of it.
        for request_id in [await bench.ask("+12025550161") for _ in range(2)]:
            await bench.event(request_id)
        await until(
            lambda: answers(
                prometheus,
                'ALERTS{alertname="CallConsumerDoubtsLeftToAPerson", alertstate="firing"}',
            )
        )


async def answers(prometheus: Prometheus, expression: str) -> bool:
    """Tell whether an expression gives anything; not before the server is up."""
    with suppress(httpx.TransportError):
        return bool(await prometheus.query(expression))
    return False


def all_finite(series: Series) -> bool:
    return all(math.isfinite(value) for _, value in series)


def told(shown: dict[tuple[str, str], Series], title: str) -> dict[tuple[str, ...], float]:
    """Return what a panel shows but zero, by the values of the labels in their names' order."""
    return {
        tuple(value for _, value in sorted(labels.items())): value
        for (panel, _), series in shown.items()
        if panel == title
        for labels, value in series
        if value
    }
