import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer import devbroker


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """Lend a broker; where there is none the test fails, so that none is left out unseen."""
    with devbroker.rabbitmq() as url:
        yield url


@pytest.fixture(autouse=True)
def _clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no setting, `.env` or ledger of the developer's reach a test."""
    for name in os.environ:
        if name.upper().startswith("CALLS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
