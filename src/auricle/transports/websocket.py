"""Events over a WebSocket."""

from __future__ import annotations

import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from auricle.transports.base import TransportClosed


class WebSocketTransport:
    """A `Transport` over an accepted WebSocket."""

    has_track = False

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> str | bytes:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise TransportClosed(int(message.get("code", 1005)), message.get("reason") or "")
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def send(self, message: str) -> None:
        try:
            await self._websocket.send_text(message)
        except WebSocketDisconnect as error:
            raise TransportClosed(error.code, error.reason or "") from None
        except RuntimeError:  # the web server has closed it by itself, for example for want of a pong
            raise TransportClosed(1011) from None

    async def close(self, code: int, reason: str) -> None:
        if WebSocketState.DISCONNECTED in (self._websocket.client_state, self._websocket.application_state):
            return
        with contextlib.suppress(WebSocketDisconnect):
            await self._websocket.close(code, reason)
