"""The pages are small, and so are their pictures."""

from pathlib import Path

import consumer.web

FOLDER = Path(consumer.web.__file__).parent


def test_all_that_makes_the_pages_is_under_1300_lines() -> None:
    files = [
        file for kind in ("py", "html", "css", "js", "svg") for file in FOLDER.rglob(f"*.{kind}")
    ]

    assert len(files) > 20
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) < 1300


def test_the_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in FOLDER.glob("screenshots/*.png")}

    assert sizes.keys() == {"now.png", "dead-letters.png"}
    assert max(sizes.values()) < 150_000
