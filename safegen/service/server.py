"""How uvicorn serves the application: with deadlines and limits, and forwarded addresses from trusted proxies alone."""

from __future__ import annotations

from typing import Any

import uvicorn

from safegen.service.app import make_app
from safegen.service.connections import Connections
from safegen.service.limits import ServiceSettings
from safegen.settings import Home


def server_config(home: Home, settings: ServiceSettings) -> uvicorn.Config:
    """Return uvicorn's configuration for one server of ``home``."""
    http: Any = Connections(settings).protocol
    return uvicorn.Config(
        make_app(home, settings), http=http, ws="none", log_level="warning", server_header=False,
        timeout_keep_alive=5, h11_max_incomplete_event_size=32 << 10, lifespan="on", backlog=1024,
        proxy_headers=bool(settings.proxies), forwarded_allow_ips=list(settings.proxies),
    )  # fmt: skip
