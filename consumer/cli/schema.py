"""`call-consumer schema`: the contract, as JSON Schema and AsyncAPI."""

from pathlib import Path

import click

from consumer.output import say

_PACKAGED = Path(__file__).parents[1] / "schemas"
SCHEMAS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "schemas"


@click.command()
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print a schema by NAME, as call.requested, or list their names."""
    names = sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json"))
    if name is None:
        say(*names, "asyncapi")
    elif name in {*names, "asyncapi"}:
        suffix = ".yaml" if name == "asyncapi" else ".schema.json"
        text = (SCHEMAS / f"{name}{suffix}").read_text(encoding="utf-8")
        say(*text.removesuffix("\n").split("\n"))
    else:
        raise click.UsageError(f"there is no schema {name}: name {', '.join(names)} or asyncapi")
