"""``safegen doctor``."""

from __future__ import annotations

from safegen.cli.shell import command, print_json
from safegen.settings import Home
from safegen.types import Json


def run(*, as_json: bool) -> None:
    """Print what :func:`safegen.cli.diagnosis.examine` found. Always exit 0: the report itself is the result."""
    with command(as_json=as_json):
        from safegen.cli.diagnosis import examine

        home = Home.default()
        checks = examine(home)
        if as_json:
            body: dict[str, Json] = {"ready": all(c.ok for c in checks), "home": str(home.root)}
            print_json(body | {c.name: c.to_json() for c in checks})
            return
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        console.print(f"  [dim]{'home':<9}[/] ", end="")
        console.print(str(home.root), markup=False)
        for check in checks:
            sign = "[green]✓[/]" if check.ok else "[red]✗[/]"
            console.print(f"{sign} [dim]{check.name:<9}[/] ", end="")
            console.print(check.summary, markup=False)
            if check.remedy:
                console.print(" " * 12 + check.remedy, markup=False)
