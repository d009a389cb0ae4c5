"""Language models behind an API: bounded retries, a deadline, a circuit breaker and the count of what was used.

    lm = remote("openai/gpt-5-mini")        # any LiteLLM id; keys and addresses come from the environment
    program(..., lm=lm)
    usage.table({"judge": lm})

DSPy's own retries wait without jitter, lose the Retry-After header on LiteLLM's way and take no notice of other calls,
and LiteLLM's time limit counts silence only, so that a reply which trickles in may take for ever. Hence this engine
does both itself and lets DSPy and LiteLLM try once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dspy
from dspy import lm15
from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.utils.exceptions import LMError

from cuadft.attempt import attempt, kept, retry_after
from cuadft.breaker import Breaker
from cuadft.errors import redact
from cuadft.replies import Replies
from cuadft.usage import Usage

AGAIN = (lm15.RateLimitError, lm15.TimeoutError, lm15.ServerError, lm15.TransportError)  # may pass with time
HOPELESS = (lm15.AuthError, lm15.BillingError, lm15.ConfigurationError, lm15.UnsupportedModelError)  # every call meets them
KINDS = (*AGAIN, *HOPELESS, lm15.ContextLengthError, lm15.InvalidRequestError, lm15.ProviderError, lm15.LM15Error)
LONGEST_PAUSE = 3600.0  # seconds; a server that wants more is asked again after this
LONGEST_REASON = 300  # characters kept of an endpoint's error


@dataclass(frozen=True)
class Patience:
    """How long to bear with an endpoint."""

    timeout: float = 120.0  # seconds for one whole reply
    retries: int = 4  # further attempts of a call
    wait: float = 1.0  # seconds before the first of them; doubled before each next one
    longest_wait: float = 60.0  # seconds; a Retry-After beyond it ends the call
    give_up: int = 8  # failed calls in a row that open the breaker
    pause: float = 30.0  # seconds until it lets a trial through


class EndpointDown(LMError):
    """Report a call that was not sent, because the endpoint failed too often just before."""

    default_code = "endpoint_down"


class Endpoint:
    """An engine for dspy.LM that calls a LiteLLM id, with patience; `usage` counts, `breaker` guards."""

    def __init__(self, model: str, patience: Patience = Patience(), *, sleep: Callable[[float], None] = time.sleep,
                 replies: Replies | None = None, **client: Any) -> None:  # fmt: skip
        """replies: where they are kept and looked for.

        client: api_key, api_base and other settings of the connection, where the environment doesn't give them.
        """
        self.patience, self.client, self.sleep, self.replies = patience, client, sleep, replies
        self.where = f"{model}{_host(model, client)}"
        self.usage, self.breaker = Usage(model), Breaker(patience.give_up, patience.pause)

    def __deepcopy__(self, memo: dict[int, Any]) -> Endpoint:
        return self

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Return the reply to one request; raises an lm15 error, or EndpointDown without having asked.

        The errors have no cause: a traceback of what LiteLLM raised may show the key.
        """
        if self.replies and (known := kept(request, self.replies)):
            return known
        self._check_open()
        retries = 0
        while True:
            self.sleep(self.breaker.held())
            try:
                response = attempt(request, self.patience.timeout, self.client, self.usage, self.replies)
            except AGAIN as error:
                asked = retry_after(error)
                # open: so many other calls failed meanwhile that this one need not go through all its attempts
                spent = retries >= self.patience.retries or self.breaker.open
                if spent or (asked or 0.0) > self.patience.longest_wait:
                    raise self._given_up(error, retries, asked) from None
                self._wait(retries, asked)
                retries += 1
                self.usage.add(retries=1)
            except HOPELESS as error:
                raise self._given_up(error, retries, None) from None
            except lm15.LM15Error as error:  # the request or its reply is at fault, and the endpoint there
                self.breaker.succeeded()
                self.usage.add(bad_replies=1)
                raise self._short(error) from None
            else:
                self.breaker.succeeded()
                self.usage.add(answered=1)
                return response

    def _check_open(self) -> None:
        self.usage.add(calls=1)
        if (left := self.breaker.refused()) is not None:
            self.usage.add(not_asked=1)
            raise EndpointDown(f"Not asked: {self.where} failed {self.breaker.failed_in_a_row} times in a row, and is tried "
                               f"again in {left:.0f} s. Last error: {self.breaker.last}")  # fmt: skip

    def _wait(self, retries: int, asked: float | None) -> None:
        """Wait as the server asked, and a little more; else for a random half to whole of a doubling time."""
        if asked is not None:
            self.breaker.hold(asked)
            self.sleep(asked + random.uniform(0, min(1.0, 0.1 * asked + 0.1)))
        else:
            self.sleep(random.uniform(0.5, 1) * min(self.patience.wait * 2**retries, self.patience.longest_wait))

    def _given_up(self, error: lm15.LM15Error, retries: int, asked: float | None) -> lm15.LM15Error:
        long = asked is not None and asked > self.patience.longest_wait
        short = self._short(error, f" (after {retries} retries)" if retries else "",
                            f" (it asks for {asked:.0f} s of rest)" if long else "")  # fmt: skip
        self.usage.add(failed=1)
        self.breaker.failed(short.message, pause=min(asked, LONGEST_PAUSE) if long else 0.0)
        return short

    def _short(self, error: lm15.LM15Error, *more: str) -> lm15.LM15Error:
        """Return an error of the same kind with one line, without keys; DSPy has no use for the other attributes."""
        line = " ".join(redact(error.message, self.client).partition("\n")[0].split())[:LONGEST_REASON]
        kind = next(known for known in KINDS if isinstance(error, known))
        short = kind(line, status=error.status, provider_code=error.provider_code)
        short.message = line + "".join(more)  # some kinds add a paragraph of advice of their own
        return short


def remote(lm: str, *, patience: Patience = Patience(), replies: str | Path | None = None, **settings: Any) -> dspy.LM:
    """Return a dspy.LM for a LiteLLM id ("bedrock/...", "openai/..."); keys come from the environment only.

    replies: a file that keeps the replies, and answers what was asked before.
    settings: DSPy's (temperature, max_tokens, cache), those of the connection, `timeout` and `num_retries`.
    """
    patience = replace(patience, timeout=settings.pop("timeout", patience.timeout),
                       retries=settings.pop("num_retries", patience.retries))  # fmt: skip
    client = {name: settings.pop(name) for name in CLIENT_KEYS & settings.keys()}
    # uncached: DSPy's cache on disk is made of pickles, and a run keeps its answers itself
    settings = {"temperature": 0.0, "cache": False} | settings
    engine = Endpoint(lm, patience, replies=Replies(replies) if replies else None, **client)
    return dspy.LM(lm, engine=engine, num_retries=0, **settings)


def _host(model: str, client: dict[str, Any]) -> str:
    """Return " at host" of a chosen address, without what else may stand in it: user, key, path."""
    names = [f"{model.partition('/')[0].upper()}_{end}" for end in ("API_BASE", "BASE_URL")]
    address = client.get("api_base") or client.get("base_url") or next((os.environ[n] for n in names if os.environ.get(n)), "")
    host = urlsplit(str(address)).netloc.rpartition("@")[2]
    return f" at {host}" if host else ""
