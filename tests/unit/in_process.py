"""``safegen`` within this process: the same commands, without starting Python and torch anew for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from safegen.cli import app
from safegen.settings import Home


@dataclass(frozen=True, slots=True)
class InProcess:
    """Runs commands against one home."""

    home: Home

    def __call__(self, *arguments: object, code: int | None = None) -> Result:
        environment = {"SAFEGEN_HOME": str(self.home.root), "NO_COLOR": "1"}
        done = CliRunner().invoke(app, [str(a) for a in arguments], env=environment)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        if code is not None:
            assert done.exit_code == code, f"exit {done.exit_code}\n{done.output}"
        return done

    def json(self, *arguments: object, code: int | None = None) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)
