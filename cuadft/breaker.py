"""A circuit breaker: no call goes to an endpoint that keeps failing, but for one now and then to see whether it is back.

After Nygard, "Release It!" (2018), section 5.2.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Breaker:
    """Count the failures of one endpoint and say whether it may be called; threads share one.

    Closed at first. `limit` failed calls in a row open it: calls are refused until `pause` seconds have passed, then
    one is let through (half open). If that succeeds the breaker closes, else another pause begins.
    """

    def __init__(self, limit: int, pause: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.pause, self.clock = limit, pause, clock
        self.failed_in_a_row, self.last = 0, ""
        self._until: float | None = None  # when it is open: the time of the next trial
        self._resume = 0.0  # before this time the endpoint asked for no calls
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Breaker:
        return self  # copies of a program speak to the same endpoint

    @property
    def open(self) -> bool:
        """Say whether the endpoint counts as down."""
        return self._until is not None

    def refused(self) -> float | None:
        """Return the seconds until the next trial if a call is refused now, else None: the call may go."""
        with self._lock:
            if self._until is None:
                return None
            left = self._until - self.clock()
            if left <= 0:  # this call is the trial; others wait for what it finds
                self._until = self.clock() + self.pause
                return None
            return left

    def succeeded(self) -> None:
        """Record that the endpoint answered a call, well or not."""
        with self._lock:
            self.failed_in_a_row, self._until = 0, None

    def failed(self, reason: str, *, pause: float = 0.0) -> None:
        """Record that a call failed for good; `pause`: seconds for which the endpoint wants none, which opens at once."""
        with self._lock:
            self.failed_in_a_row, self.last = self.failed_in_a_row + 1, reason
            if pause or self._until is not None or self.failed_in_a_row >= self.limit:
                self._until = self.clock() + max(pause, self.pause)

    def hold(self, seconds: float) -> None:
        """Ask all callers to wait so long before their next attempt: the endpoint said so to one of them."""
        with self._lock:
            self._resume = max(self._resume, self.clock() + seconds)

    def held(self) -> float:
        """Return for how many seconds callers are asked to wait."""
        with self._lock:
            return max(0.0, self._resume - self.clock())
