"""One call of an API through LiteLLM: within a deadline, its reply counted and checked, its failure as an lm15 error."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

from dspy import lm15

from cuadft.replies import Replies
from cuadft.usage import Usage

GRACE = 0.5  # seconds more than LiteLLM's own limit, which ends a mere silence


def kept(request: lm15.Request, replies: Replies) -> lm15.Response | None:
    """Return the reply that was kept of this very request, None if there is none."""
    from dspy.clients._litellm import get_litellm
    from dspy.clients.lm15_boundary import response_value

    found = replies.find(_asked(request))
    return None if found is None else response_value(get_litellm(feature="endpoints").ModelResponse(**found), "chat", request)


def _asked(request: lm15.Request) -> dict[str, Any]:
    from dspy.clients.lm15_boundary import request_kwargs

    return {"model": request.model} | request_kwargs(request, "chat")


def attempt(request: lm15.Request, timeout: float, client: Mapping[str, Any], usage: Usage,
            replies: Replies | None = None) -> lm15.Response:  # fmt: skip
    """Send a request once and return the reply; raises an lm15 error for whatever goes wrong.

    timeout: seconds for the whole reply. client: settings of the connection, such as api_key and api_base. replies: where
    a good reply is kept.
    """
    from dspy.clients._litellm import get_litellm
    from dspy.clients.engines.litellm_errors import litellm_errors
    from dspy.clients.lm15_boundary import request_kwargs, response_value

    litellm = get_litellm(feature="endpoints")  # here: loading it takes seconds, which are not the endpoint's
    # drop_params: some models (OpenAI's reasoning models) refuse a temperature; LiteLLM then leaves it out
    fixed = {"model": request.model, "n": 1, "drop_params": True, "timeout": timeout, "num_retries": 0, "max_retries": 0,
             "cache": {"no-cache": True, "no-store": True}}  # fmt: skip
    sent = request_kwargs(request, "chat") | dict(client) | fixed
    try:
        with litellm_errors(model=request.model):
            raw = within(timeout, lambda: litellm.completion(**sent))
    except (lm15.LM15Error, ImportError):
        raise
    except Exception as error:  # one that DSPy does not know; its text may hold a key, and the caller takes that out
        raise lm15.ProviderError(f"{type(error).__name__}: {error}") from error
    usage.reply(raw)
    _check(raw)
    if replies:
        replies.keep(_asked(request), raw.model_dump(mode="json"))
    return response_value(raw, "chat", request)


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what a call returns or raise what it raises; raises lm15.TimeoutError if it takes longer.

    A call that is late goes on in a thread of its own, and what it returns is dropped.
    """
    done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        value, error = done.get(timeout=seconds + GRACE)
    except queue.Empty:
        raise lm15.TimeoutError(f"No whole reply within {seconds:g} s") from None
    if error is not None:
        raise error
    return value


def retry_after(error: BaseException | None) -> float | None:
    """Return the seconds that a server asked to wait, None if it didn't; LiteLLM leaves the header on the cause."""
    from dspy.clients._http import retry_after_seconds

    while error is not None:
        headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
        for value in (getattr(error, "retry_after", None), headers.get("retry-after")):
            if (seconds := retry_after_seconds(value)) is not None:
                return seconds
        error = error.__cause__ or error.__context__
    return None


def _check(raw: Any) -> None:
    """Raise lm15.ProviderError for a response without text: DSPy would take it for an empty answer, and keep it."""
    choice = raw.choices[0] if raw.choices else None
    if choice is None:
        raise lm15.ProviderError("The endpoint sent a response without any reply in it")
    if choice.finish_reason == "content_filter":
        raise lm15.ProviderError("The endpoint's content filter stopped the reply")
    if not (choice.message.content or "").strip():
        cut = " (it was cut at max_tokens)" if choice.finish_reason == "length" else ""
        raise lm15.ProviderError(f"The endpoint sent a reply without text{cut}")
