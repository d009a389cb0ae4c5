"""Language models behind an API, with bounded retries, a deadline and a circuit breaker; what they used is counted.

For example:

    lm = remote("openai/gpt-5-mini")        # any LiteLLM id; keys and addresses come from the environment
    program(..., lm=lm)
    usage_table({"judge": lm})              # calls, retries, tokens and cost (see `cuadft.models.usage`)

DSPy's own retries wait without jitter, and know nothing of other calls. LiteLLM's time limit counts silence only, so a
reply that trickles in may take for ever. Therefore `Endpoint` does the retries (by tenacity) and the deadline itself,
and lets DSPy and LiteLLM try once. It has two helpers:

- `Breaker` stops calls to an endpoint that keeps failing; now and then one call tries whether it is back.
- `Replies` keeps replies on disk, so that a stage that is run again asks only for what it lacks.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dspy
import tenacity
from dspy import lm15
from dspy.clients._http import retry_after_seconds
from dspy.clients._litellm import get_litellm
from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.clients.engines.litellm_errors import litellm_errors
from dspy.clients.lm15_boundary import request_kwargs, response_value
from dspy.utils.exceptions import LMError

from cuadft.core import files
from cuadft.core.errors import redact
from cuadft.models.usage import Usage

# Errors that may pass with time, and errors that every further call would meet as well.
PASSING_ERRORS = (lm15.RateLimitError, lm15.TimeoutError, lm15.ServerError, lm15.TransportError)
LASTING_ERRORS = (lm15.AuthError, lm15.BillingError, lm15.ConfigurationError, lm15.UnsupportedModelError)
LONGEST_REASON = 300  # characters kept of an endpoint's error
GRACE = 0.5  # seconds more than LiteLLM's own limit, which then ends a mere silence first


@dataclass(frozen=True)
class Patience:
    """How long a call waits for an endpoint, and how often it is repeated."""

    timeout: float = 120.0  # seconds for one whole reply
    retries: int = 4  # further attempts of a call
    wait: float = 1.0  # seconds before the first retry, doubled before each further one
    longest_wait: float = 60.0  # seconds; a longer Retry-After ends the call
    give_up: int = 8  # failed calls in a row that open the breaker
    pause: float = 30.0  # seconds for which an open breaker lets no call through


def remote(lm: str, *, patience: Patience = Patience(), replies: str | Path | None = None, **settings: Any) -> dspy.LM:
    """Return a dspy.LM for a LiteLLM id, such as "bedrock/..." or "openai/..."; keys come from the environment only.

    replies: a file that keeps the replies; what was asked before is answered from it. settings: DSPy's (temperature,
    max_tokens, cache), `timeout` and `num_retries`, and settings of the connection such as api_base.
    """
    timeout, retries = settings.pop("timeout", patience.timeout), settings.pop("num_retries", patience.retries)
    patience = replace(patience, timeout=timeout, retries=retries)
    client = {name: settings.pop(name) for name in CLIENT_KEYS & settings.keys()}
    # Without DSPy's cache: it keeps pickles on disk, and a run keeps its answers itself.
    settings = {"temperature": 0.0, "cache": False} | settings
    engine = Endpoint(lm, patience, replies=Replies(Path(replies)) if replies else None, **client)
    return dspy.LM(lm, engine=engine, num_retries=0, **settings)


class EndpointDown(LMError):
    """Report a call that was not sent, because the endpoint failed too often just before."""

    default_code = "endpoint_down"


class Endpoint:
    """An engine for dspy.LM that calls a model by its LiteLLM id; `usage` counts, `breaker` stops hopeless calls."""

    def __init__(
        self,
        model: str,
        patience: Patience = Patience(),
        *,
        sleep: Callable[[float], None] = time.sleep,
        replies: Replies | None = None,
        **client: Any,
    ) -> None:
        """Prepare an endpoint without calling it.

        replies: where replies are kept and looked for. client: api_key, api_base and other settings of the
        connection that the environment does not give.
        """
        self.patience, self.client, self.sleep, self.replies = patience, client, sleep, replies
        self.usage, self.breaker = Usage(model), Breaker(patience.give_up, patience.pause)
        half = {"multiplier": patience.wait / 2, "max": patience.longest_wait / 2}
        self._backoff = tenacity.wait_exponential(**half) + tenacity.wait_random_exponential(**half)

    def __deepcopy__(self, memo: dict[int, Any]) -> Endpoint:
        return self  # copies of a program count and wait together

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Return the reply to one request; raises an lm15 error, or EndpointDown if the request was not sent.

        The errors carry no cause, because a traceback of what LiteLLM raised may show the key.
        """
        if self.replies and (known := self.replies.find(request)):
            return known
        self._check_open()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PASSING_ERRORS),
            stop=self._is_spent,
            wait=self._wait,
            before_sleep=lambda state: self.usage.add(retries=1),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            response = retrying(self._attempt, request)
        except (*PASSING_ERRORS, *LASTING_ERRORS) as error:
            retries = retrying.statistics["attempt_number"] - 1
            short = self._short(error, f" (after {retries} retries)" if retries else "")
            self.usage.add(failed=1)
            self.breaker.failed(short.message)
            raise short from None
        except lm15.LM15Error as error:  # the request or its reply is at fault, not the endpoint
            self.breaker.succeeded()
            self.usage.add(bad_replies=1)
            raise self._short(error) from None
        self.breaker.succeeded()
        self.usage.add(answered=1)
        return response

    def _check_open(self) -> None:
        """Count the call; raise EndpointDown if the breaker refuses it."""
        self.usage.add(calls=1)
        if (left := self.breaker.refused()) is not None:
            self.usage.add(not_asked=1)
            raise EndpointDown(
                f"Not asked: {self.usage.model} failed {self.breaker.failed_in_a_row} times in a row, and is tried "
                f"again in {left:.0f} s. Last error: {self.breaker.last}"
            )

    def _attempt(self, request: lm15.Request) -> lm15.Response:
        """Send a request once and return the reply; raises an lm15 error for whatever goes wrong."""
        litellm = get_litellm(feature="endpoints")  # before the deadline starts, because loading it takes seconds
        timeout, no_retries = self.patience.timeout, {"num_retries": 0, "max_retries": 0}
        no_cache = {"cache": {"no-cache": True, "no-store": True}}
        # drop_params: some models (OpenAI's reasoning models) refuse a temperature, and LiteLLM then leaves it out.
        fixed = {"model": request.model, "n": 1, "drop_params": True, "timeout": timeout} | no_retries | no_cache
        sent = request_kwargs(request, "chat") | self.client | fixed
        try:
            with litellm_errors(model=request.model):
                raw = within_deadline(timeout, lambda: litellm.completion(**sent))
        except (lm15.LM15Error, ImportError):
            raise
        except Exception as error:  # DSPy does not know its kind; `_short` takes keys out of its text
            raise lm15.ProviderError(f"{type(error).__name__}: {error}") from error
        self.usage.reply(raw)
        _check_has_text(raw)
        if self.replies:
            self.replies.keep(request, raw.model_dump(mode="json"))
        return response_value(raw, "chat", request)

    def _is_spent(self, state: tenacity.RetryCallState) -> bool:
        """Tell whether a call that failed is not tried again, also because other calls opened the breaker meanwhile."""
        too_long = (retry_after(state.outcome.exception()) or 0.0) > self.patience.longest_wait
        return too_long or self.breaker.open or state.attempt_number > self.patience.retries

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Return a little more than the server asked for; else 50 to 100 % (at random) of a time that doubles."""
        if (asked := retry_after(state.outcome.exception())) is None:
            return self._backoff(state)
        return asked + random.uniform(0, min(1.0, 0.1 * asked + 0.1))

    def _short(self, error: lm15.LM15Error, more: str = "") -> lm15.LM15Error:
        """Return an error of the same kind with one line of text, without keys, and `more` after it."""
        line = " ".join(redact(error.message, self.client).partition("\n")[0].split())[:LONGEST_REASON]
        short = type(error)(line, status=error.status, provider_code=error.provider_code)
        short.message = line + more  # drops the paragraph of advice that some kinds add
        return short


class Breaker:
    """A circuit breaker: it counts the failures of one endpoint and tells whether a call may go; threads share it.

    The breaker is closed at first. `limit` failed calls in a row open it. An open breaker refuses calls for `pause`
    seconds and then lets one call through (half open): if this call succeeds the breaker closes, else another pause
    begins. After Nygard, "Release It!" (2018), section 5.2.
    """

    def __init__(self, limit: int, pause: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.pause, self.clock = limit, pause, clock
        self.failed_in_a_row, self.last = 0, ""
        self._until: float | None = None  # the time of the next trial while the breaker is open, else None
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Tell whether the endpoint counts as down."""
        return self._until is not None

    def refused(self) -> float | None:
        """Return the seconds until the next trial if a call is refused now; None means that the call may go."""
        with self._lock:
            if self._until is None:
                return None
            left = self._until - self.clock()
            if left <= 0:  # this call is the trial, and other calls wait for its outcome
                self._until = self.clock() + self.pause
                return None
            return left

    def succeeded(self) -> None:
        """Record that the endpoint answered a call, whether the answer was usable or not."""
        with self._lock:
            self.failed_in_a_row, self._until = 0, None

    def failed(self, reason: str) -> None:
        """Record that a call failed for good."""
        with self._lock:
            self.failed_in_a_row, self.last = self.failed_in_a_row + 1, reason
            if self.open or self.failed_in_a_row >= self.limit:
                self._until = self.clock() + self.pause


class Replies:
    """A JSON-lines file of replies, found by the hash of what was asked; many threads may use it.

    It suits calls that should give the same answer when they are repeated (temperature 0).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = files.read_jsonl(path, torn_ok=True) if path.is_file() else []
        self._known = {line["key"]: line["reply"] for line in lines}

    def find(self, request: lm15.Request) -> lm15.Response | None:
        """Return the reply that was kept for this very request, None if no reply was kept."""
        if (found := self._known.get(_key(request))) is None:
            return None
        return response_value(get_litellm(feature="endpoints").ModelResponse(**found), "chat", request)

    def keep(self, request: lm15.Request, reply: dict[str, Any]) -> None:
        """Append the reply to a request, as LiteLLM gave it."""
        key = _key(request)
        files.append_jsonl(self.path, [{"key": key, "reply": reply}])
        self._known[key] = reply


def _key(request: lm15.Request) -> str:
    return files.value_hash({"model": request.model} | request_kwargs(request, "chat"))


def within_deadline(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what `call` returns, or raise what it raises; raises lm15.TimeoutError if it takes longer than `seconds`.

    A late call goes on in a thread of its own (a daemon, unlike those of an executor), and its result is dropped.
    """
    done: Future[Any] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    if not wait([done], timeout=seconds + GRACE).done:
        raise lm15.TimeoutError(f"No whole reply within {seconds:g} s")
    return done.result()


def retry_after(error: BaseException | None) -> float | None:
    """Return the seconds that a server asked to wait, else None; LiteLLM leaves the header on the error's cause."""
    while error is not None:
        headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
        for value in (getattr(error, "retry_after", None), headers.get("retry-after")):
            if (seconds := retry_after_seconds(value)) is not None:
                return seconds
        error = error.__cause__ or error.__context__
    return None


def _check_has_text(raw: Any) -> None:
    """Raise lm15.ProviderError for a response without text; DSPy would take and keep it as an empty answer."""
    choice = raw.choices[0] if raw.choices else None
    reason = choice.finish_reason if choice else "no choice"
    if choice is None or reason == "content_filter" or not (choice.message.content or "").strip():
        raise lm15.ProviderError(f"The endpoint sent a response without any reply in it (it ended by: {reason})")
