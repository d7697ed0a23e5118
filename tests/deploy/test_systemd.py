"""The systemd unit: systemd itself finds nothing wrong, and it fits the worker."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from consumer.environment import read_settings
from consumer.settings import Settings
from tests.deploy.test_dashboard import tool
from tests.home import HOME, ROOT

UNIT = ROOT / "docker" / "systemd" / "call-consumer.service"
MOST_EXPOSED = "15"
"""In tenths, of ten: systemd's own judgement of what the unit leaves open."""


def options() -> dict[str, list[str]]:
    """Return the unit's options, each with all that is said of it."""
    found = defaultdict(list)
    for key, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE):
        found[key].append(value)
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Lend the unit with a program that is installed here."""
    installed = str(Path(sys.executable).parent)
    text = UNIT.read_text(encoding="utf-8").replace("/opt/call-consumer/bin", installed)
    (tmp_path / UNIT.name).write_text(text, encoding="utf-8")
    return tmp_path / UNIT.name


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [tool("systemd-analyze", "systemd"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong_with_it(unit: Path) -> None:
    done = analyze("verify", unit)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_would_notice_a_misspelt_option(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("UMask=", "Umask="))

    assert "Umask" in analyze("verify", unit).stderr


def test_it_leaves_little_open(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit)

    assert done.returncode == 0, done.stdout


def test_a_stop_leaves_the_worker_the_time_that_it_may_take() -> None:
    (stop_s,) = options()["TimeoutStopSec"]

    assert int(stop_s) == Settings().drain_s + 15


def test_the_worker_reads_its_addresses_from_the_credentials(tmp_path: Path) -> None:
    addresses = {
        "rabbitmq-url": "amqp://worker:pa55@broker/calls",
        "bitrix24-url": "https://portal/rest/1/s3cret/",
    }
    loaded = dict(each.split(":") for each in options()["LoadCredential"])
    assert loaded == {name: f"/etc/call-consumer/{name}" for name in addresses}
    for name, address in addresses.items():
        (tmp_path / name).write_text(f"{address}\n")

    variables = dict(each.split("=") for each in options()["Environment"])
    read = read_settings({k: v.replace("%d", str(tmp_path)) for k, v in variables.items()})

    assert read.needed("rabbitmq_url").startswith("amqp://worker:pa55@broker")
    assert read.needed("bitrix24_url") == addresses["bitrix24-url"]


def test_prometheus_reads_the_example(tmp_path: Path) -> None:
    rules = ROOT / "helm" / "call-consumer" / "files" / "alerts.yaml"
    (tmp_path / "call-consumer-alerts.yaml").write_bytes(rules.read_bytes())
    example = tmp_path / "prometheus.yml"
    example.write_bytes(UNIT.with_name(example.name).read_bytes())
    check = (tool("promtool"), "check", "config", "--lint-fatal", str(example))
    done = subprocess.run(check, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert f"localhost:{Settings().http_port}" in example.read_text()


def test_it_leads_to_the_document_and_does_not_repeat_a_start_with_wrong_settings() -> None:
    told = options()

    assert told["Documentation"] == [f"{HOME}/blob/main/OPERATING.md"]
    assert told["RestartPreventExitStatus"] == ["2"]
    assert told["Type"] == ["exec"]
