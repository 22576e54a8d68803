"""Which web pages may talk to the server. Knows no keys and no routes.

A browser lets any page send requests to any address, this machine's own included, and only keeps the answers from it;
what comes over a WebSocket it doesn't even keep. Where no API key is wanted, the page's `Origin` is all that tells a
visitor from a page that reaches for somebody's localhost.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from auricle.errors import ClientError
from auricle.http.errors import error_response

_EVERY_ORIGIN = "*"
_EXPOSED_HEADERS = ("Location", "Retry-After")
"""Response headers that a page of another origin may read: the address of its call, and when to come back."""
_PREFLIGHT_MAX_AGE_S = 3600


class OriginPolicy:
    """The origins (RFC 6454) from which requests are taken. Immutable."""

    def __init__(self, allowed: Collection[str], own_names: Collection[str], *, wants_key: bool) -> None:
        """`allowed` are origins such as `https://app.example.com`, or `*`; `own_names` are host names of the server.

        With none allowed, all are if the server wants a key (`wants_key`), which no page has by itself.
        """
        self.allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self.allows_all = _EVERY_ORIGIN in self.allowed or (wants_key and not self.allowed)
        self._own_names = frozenset(name.lower() for name in own_names)

    def allows(self, origin: str | None, host: str) -> bool:
        """Whether a request with these `Origin` and `Host` headers is taken. Only browsers send an origin."""
        if origin is None or self.allows_all or origin.lower() in self.allowed:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return urlsplit(origin).netloc.lower() == host.lower() and self._is_own(name)
        except ValueError:  # half an IPv6 address
            return False

    def _is_own(self, name: str) -> bool:
        """Whether a host name is surely this server's. Anybody may let a name of theirs point here (DNS rebinding)."""
        if name == "localhost" or name.endswith(".localhost") or name in self._own_names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def own_names(host: str) -> list[str]:
    """The names under which a server that listens at `host` is surely meant."""
    machine = socket.gethostname()
    return [host, machine, f"{machine.split('.')[0]}.local"]


class _OriginGuard:
    """Middleware that refuses requests and socket upgrades from pages that may not talk to the server."""

    def __init__(self, app: ASGIApp, policy: OriginPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if self._policy.allows(origin, headers.get("host", "")):
            await self._app(scope, receive, send)
            return
        response = _refusal(origin or "")
        if scope["type"] == "websocket":
            # Before the upgrade, unlike all other faults: the page gets no word through, nor back.
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)


def _refusal(origin: str) -> JSONResponse:
    message = (
        f"Pages of the origin '{origin}' may not use this server. "
        f"Allow it with the setting allowed_origins, for example AURICLE_ALLOWED_ORIGINS={origin}"
    )
    return error_response(ClientError("origin_not_allowed", message, status=403))


def guard_origins(app: FastAPI, policy: OriginPolicy) -> None:
    """Have `app` refuse pages that may not talk to it, and tell browsers which may (CORS)."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[_EVERY_ORIGIN] if policy.allows_all else sorted(policy.allowed),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=_EXPOSED_HEADERS,
        max_age=_PREFLIGHT_MAX_AGE_S,
    )
    app.add_middleware(_OriginGuard, policy=policy)  # the last added is asked first
