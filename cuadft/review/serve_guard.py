"""What stands before the service: the token, the name it is called by, the size and the time of a request.

Without a token it answers to this machine's own names alone, so that no page of the web can reach it through a name of
its own that points here (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import traceback
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from cuadft.core.errors import redact

LOCAL = ("127.0.0.1", "localhost")
OPEN = "/health"  # answered without a token
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src "
    "data:; connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware that refuses what may not pass, and ends what is too large or takes too long."""

    def __init__(self, app: Any, *, megabytes: float, seconds: float, token: str) -> None:
        self.app, self.most, self.seconds, self.token = app, megabytes * 1e6, seconds, token
        self.too_large = f"The request is larger than {megabytes:g} MB."

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, within its limits."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = False

        async def sealed(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if refused := self._refused(scope["path"], Headers(scope=scope)):
            return await refused(scope, receive, sealed)
        status, told = 504, f"Not done within {self.seconds:g} s, the wait included: send less, or try again later."
        try:
            async with asyncio.timeout(self.seconds):
                return await self.app(scope, receive, sealed)
        except TimeoutError:
            pass
        except Exception as error:
            logging.getLogger("cuadft").error(redact("".join(traceback.format_exception(error))))
            status, told = 500, "The service failed at this request; its log says why."
        if not begun:
            await JSONResponse({"detail": told}, status)(scope, receive, sealed)

    def _refused(self, path: str, headers: Headers) -> JSONResponse | None:
        """Return the reply to a request that may not pass, None if it may."""
        host, origin, size = headers.get("host", ""), headers.get("origin"), headers.get("content-length", "0")
        status, told, more = 0, "", {}
        if self.token and path != OPEN and not self._is_known(headers.get("authorization", "")):
            status, more = 401, {"WWW-Authenticate": 'Basic realm="cuadft", charset="UTF-8"'}
            told = "A token is needed: send it as `Authorization: Bearer TOKEN`, or as the password in a browser."
        elif not self.token and host.partition(":")[0] not in LOCAL:
            status, told = 400, f"Called by another name than this machine's own: use {' or '.join(LOCAL)}."
        elif origin is not None and origin.partition("://")[2] != host:
            status, told = 403, "A page of another site may not use this service."
        elif size.isdigit() and int(size) > self.most:
            status, told, more = 413, self.too_large, {"Connection": "close"}
        return JSONResponse({"detail": told}, status, more) if status else None

    def _is_known(self, authorization: str) -> bool:
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given).decode(errors="replace").partition(":")[2]
            except ValueError:
                return False
        return secrets.compare_digest(given.encode(), self.token.encode())
