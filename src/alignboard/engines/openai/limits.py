"""How often an endpoint may be asked: token buckets, and a clock that tests can replace."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """Time as the event loop sees it."""

    def now(self) -> float:
        """Seconds from some start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        await asyncio.sleep(seconds)


class Bucket:
    """At most ``per_minute`` units a minute, taken in the order of asking.

    The bucket holds one second's worth (or one unit), so that a limit is also held within the minute. What is larger
    than the bucket is let through when it is full, and those behind it wait until the debt is paid.
    """

    def __init__(self, per_minute: float | None, clock: Clock) -> None:
        self._rate = None if per_minute is None else per_minute / 60
        self._size = max(1.0, self._rate or 0.0)
        self._level = self._size
        self._clock = clock
        self._last = clock.now()
        self._turn = asyncio.Lock()

    async def take(self, units: float) -> None:
        """Wait until ``units`` may be used."""
        if self._rate is None:
            return
        async with self._turn:
            self._fill(self._rate)
            missing = min(units, self._size) - self._level
            if missing > 0:
                await self._clock.sleep(missing / self._rate)
                self._fill(self._rate)
            self._level -= units

    def give_back(self, units: float) -> None:
        """Units that were taken and not used; fewer than none if more were used than taken."""
        self._level = min(self._size, self._level + units)

    def _fill(self, rate: float) -> None:
        now = self._clock.now()
        self._level = min(self._size, self._level + (now - self._last) * rate)
        self._last = now
