"""``safegen serve``."""

from __future__ import annotations

import ipaddress
import socket

import typer

from safegen.cli.shell import command, print_json
from safegen.errors import ConfigError, InputError
from safegen.settings import Home


def run(*, host: str, port: int, public: bool, as_json: bool) -> None:
    """Serve the resolution API until interrupted. ``--json`` prints one object with its address first."""
    with command(as_json=as_json):
        try:
            import uvicorn

            from safegen.service.server import server_config
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"safegen serve needs {error.name}, which is not installed.",
                remedy='Install the extra: pip install "safegen[server]"',
            ) from error
        from safegen.ledger import Ledger
        from safegen.service.limits import ServiceSettings
        from safegen.service.openapi import PREFIX

        home, settings = Home.default(), ServiceSettings.from_environment()
        if not settings.token and not public and not _local(host):
            raise ConfigError(
                f"Everybody who reaches {host} could ask, for no token is set.",
                remedy="Set SAFEGEN_RESOLUTION_TOKEN_FILE, or say --public if that is meant.",
            )
        Ledger.open(home.ledger_url, create=False, read_only=True).close()  # what is wrong with it shows now
        listening = listen(host, port)
        with listening:
            name = f"[{host}]" if ":" in host else host
            url = f"http://{name}:{listening.getsockname()[1]}{PREFIX}"
            if as_json:
                print_json("serve/1", {"url": url, "token": bool(settings.token)})
            else:
                typer.echo(
                    f"Serving {url} {'with a bearer token' if settings.token else 'without a token'}; Ctrl-C ends."
                )
            uvicorn.Server(server_config(home, settings)).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; InputError if the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"Cannot listen on {host}:{port}: {why}.", remedy="Choose another address.") from error


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
