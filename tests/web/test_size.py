"""The pages are small, and so are their pictures."""

from pathlib import Path

import consumer.web

FOLDER = Path(consumer.web.__file__).parent


def lines(*kinds: str) -> int:
    files = [file for kind in kinds for file in FOLDER.rglob(f"*.{kind}")]
    assert files
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def test_what_serves_the_pages_is_under_1200_lines_and_its_style_sheet_under_100() -> None:
    assert lines("py", "html", "js") < 1200
    assert lines("css") < 100


def test_the_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in FOLDER.glob("screenshots/*.png")}

    assert sizes.keys() == {"now.png", "dead-letters.png"}
    assert max(sizes.values()) < 150_000
