"""Serve a system of a run over HTTP, to this machine alone unless a token is set.

    serve("runs/quickstart")                        # until Ctrl-C; the page is http://127.0.0.1:8000
    app = make_app(reviewer, Limits())              # the ASGI application alone

One model is in memory. Requests wait in line for it, and each gets the answer to its own question. A request that is
too large or takes too long, and one that comes when too many wait, is refused with a message (see `serve_guard`).
Nothing is kept but the last pages, in memory.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field

from cuadft.core.errors import SHORTEST_SECRET, InputError, redact
from cuadft.data.documents import Document, document_of_text, documents_of
from cuadft.data.schema import PACKAGED
from cuadft.review.page import review_page
from cuadft.review.reviewer import LONGEST_QUESTION, MOST_QUESTIONS, Question, Review, Reviewer
from cuadft.review.serve_guard import LOCAL, Guard

TOKEN = "CUADFT_TOKEN"  # environment variable
HERE = Path(__file__).parent
PAGES_HELD = 50  # finished reviews that can be looked at
READERS = 2  # threads that read files while the model works
LONGEST_NAME = 200  # characters


@dataclass(frozen=True)
class Limits:
    """What a request may cost: its size in megabytes (10^6), its seconds with the wait, and how many may wait."""

    megabytes: float = 20
    seconds: float = 600
    waiting: int = 500


Words = Annotated[str, Field(min_length=1, max_length=LONGEST_QUESTION)]


class Asked(BaseModel):
    """One question about one contract, whose text is given."""

    contract: str
    question: Words
    name: Annotated[str, Field(max_length=LONGEST_NAME)] = "contract"


def serve(
    run: str | Path,
    *,
    host: str = LOCAL[0],
    port: int = 8000,
    system: str = "",
    iteration: int | None = None,
    limits: Limits | None = None,
    log: Callable[[str], object] = print,
) -> None:
    """Load a system and answer requests until Ctrl-C.

    The token comes from CUADFT_TOKEN; if it is set, every request needs it. Raises InputError if the port is taken, if
    `host` can be reached from outside and no token is set, and as `Reviewer.load`.
    """
    import uvicorn

    token = os.environ.get(TOKEN, "")
    if token and len(token) < SHORTEST_SECRET:
        raise InputError(f"{TOKEN} has fewer than {SHORTEST_SECRET} characters: set a longer one, or unset it.")
    if not token and host not in LOCAL:
        raise InputError(f"--host {host!r} may be reached from outside: set a token in {TOKEN}, or use {LOCAL[0]}.")
    try:
        opened = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"Can't listen on {host}, port {port} ({error}): choose another --port or --host.") from None
    with opened, suppress(KeyboardInterrupt):
        reviewer = Reviewer.load(run, system=system, iteration=iteration)
        app = make_app(reviewer, limits or Limits(), token=token)
        who = "Every request needs the token; its words travel unencrypted" if token else "Only this machine reaches it"
        log(f"{reviewer.label} of {reviewer.run.name}: http://{host}:{opened.getsockname()[1]} ({who}; Ctrl-C ends it)")
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[opened])


def make_app(reviewer: Reviewer, limits: Limits, *, token: str = "") -> FastAPI:
    """Return the ASGI application around a loaded system."""
    desk, words = Desk(reviewer, limits), reviewer.schema.naming
    standard = "CUAD's 41" if reviewer.schema.name == PACKAGED else f"the schema's {len(reviewer.schema.categories)}"
    app = FastAPI(
        title="cuadft", description=f"{words['Document']} review by {reviewer.label}.", docs_url=None, redoc_url=None
    )
    most = {"max_body_size": int(limits.megabytes * 1e6)}
    app.add_middleware(Guard, megabytes=limits.megabytes, seconds=limits.seconds, token=token)
    app.add_exception_handler(InputError, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.post("/review", summary=f"Answer questions about {words['a_document']}: {standard}, or your own", **most)(
        desk.review
    )
    app.post("/ask", summary=f"Answer one question about {words['a_document']}", **most)(desk.ask)
    app.get("/health", summary="Tell that the service is up, and how many requests wait")(desk.health)
    app.get("/pages/{key}", summary="Show the page of a review that was made lately")(desk.page)
    app.get("/", include_in_schema=False)(desk.front)
    app.get("/docs", include_in_schema=False)(lambda: HTMLResponse((HERE / "docs.html").read_text("utf-8")))
    return app


class Desk:
    """The one model and the requests that wait for it, in the order in which they came."""

    def __init__(self, reviewer: Reviewer, limits: Limits) -> None:
        self.reviewer, self.limits, self.waiting = reviewer, limits, 0
        self._model, self._readers = ThreadPoolExecutor(1, "model"), ThreadPoolExecutor(READERS, "reader")
        self._pages: OrderedDict[str, str] = OrderedDict()

    async def review(
        self,
        request: Request,
        file: Annotated[UploadFile | None, File(description="PDF, DOCX or TXT")] = None,
        text: Annotated[str, Form(description="the contract's text, in place of a file")] = "",
        name: Annotated[str, Form(max_length=LONGEST_NAME)] = "",
        question: Annotated[list[Words] | None, Form(max_length=MOST_QUESTIONS)] = None,
    ) -> Response:
        """Take a file or a text; return the findings, with the address of the page under "page".

        With `Accept: text/html` the reply is the page itself.
        """
        if (file is None) == (not text):
            raise InputError("Send a form with a `file` or with a `text`.")
        questions = [Question(each, each) for each in dict.fromkeys(question or ())]
        with self._place():
            if file is None:
                document = await self._do(request, self._readers, document_of_text, name or "contract", text)
            else:
                named = Path(name or file.filename or "contract").name[:LONGEST_NAME]
                document = await self._do(request, self._readers, _only_document, named, await file.read())
            review: Review = await self._do(request, self._model, self.reviewer.review, document, questions)
            page = await self._do(request, self._readers, review_page, review)
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(page)
        key = secrets.token_urlsafe(16)
        self._pages[key] = page
        while len(self._pages) > PAGES_HELD:
            self._pages.popitem(last=False)
        return JSONResponse(review.record() | {"page": f"/pages/{key}"})

    async def ask(self, asked: Asked, request: Request) -> dict[str, Any]:
        """Take a contract's text and one question; return whether there is such a clause, and its words."""
        question = Question(asked.question, asked.question)
        with self._place():
            document = await self._do(request, self._readers, document_of_text, asked.name, asked.contract)
            review: Review = await self._do(request, self._model, self.reviewer.review, document, [question])
        return {"name": asked.name, "system": review.system, "known": review.known} | asdict(review.findings[0])

    async def health(self) -> dict[str, Any]:
        """Return which system answers, and how many requests wait or are being answered."""
        return {"status": "ok", "system": self.reviewer.label, "waiting": self.waiting}

    async def page(self, key: str) -> Response:
        """Return the page of one of the last reviews."""
        if key not in self._pages:
            raise HTTPException(404, f"No such page: the last {PAGES_HELD} are kept until the service ends.")
        return HTMLResponse(self._pages[key])

    async def front(self) -> Response:
        """Return the page that takes a file."""
        values = {"system": html.escape(f"{self.reviewer.label} of {self.reviewer.run.name}")}
        values["megabytes"] = f"{self.limits.megabytes:g}"
        values |= {name: html.escape(word) for name, word in self.reviewer.schema.naming.items()}
        values["in_script"] = json.dumps(self.reviewer.schema.document)[1:-1].replace("<", "\\u003c")
        return HTMLResponse(Template((HERE / "serve.html").read_text("utf-8")).substitute(values))

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold a place in the line; refuse the request if the line is full."""
        if self.waiting >= self.limits.waiting:
            raise HTTPException(503, f"{self.waiting} requests wait: try again later.", {"Retry-After": "30"})
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def _do(self, request: Request, pool: ThreadPoolExecutor, work: Callable, *given: Any) -> Any:
        """Return what some work in a pool gives; work that has not begun is dropped when its client is gone."""
        job = asyncio.get_running_loop().run_in_executor(pool, work, *given)
        gone = asyncio.ensure_future(request.receive())  # the body is read: what can still come is the end
        try:
            await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise HTTPException(499, "The client has gone.")
            return job.result()
        finally:
            job.cancel()
            gone.cancel()


def _only_document(name: str, content: bytes) -> Document:
    found = documents_of(name, content)
    if len(found) != 1:
        raise InputError(f"{name} holds {len(found)} contracts: send one at a time, or use `cuadft review`.")
    return found[0]


async def _refused(_: Request, error: Exception) -> Response:
    """Reply with the reason alone: what was sent may be a whole contract."""
    told = redact(str(error))
    if isinstance(error, RequestValidationError):
        told = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
    return JSONResponse({"detail": told.encode("utf-8", "replace").decode()}, 422)
