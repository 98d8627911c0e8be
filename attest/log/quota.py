"""Quotas: token buckets by name, in bounded memory."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_NAMES = 100_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Allow `per_second` tokens on average, and `burst` at once."""

    per_second: float
    burst: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True)
class Quota:
    """Hold a bucket for every name seen lately; a name not seen has a full one.

    The bucket left alone for longest goes where there are too many: it has had most time to fill.
    """

    rate: Rate
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, _Bucket] = field(default_factory=OrderedDict[str, _Bucket])
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, name: str) -> int:
        """Return how many seconds this name must wait before it has any token; 0 for none."""
        with self._mutex:
            bucket = self._fill(name)
            if bucket.tokens > 0:
                return 0
            return max(1, math.ceil(-bucket.tokens / self.rate.per_second))

    def charge(self, name: str, amount: float) -> None:
        """Take tokens for what has been done; a debt keeps the name waiting."""
        with self._mutex:
            self._fill(name).tokens -= amount

    def _fill(self, name: str) -> _Bucket:
        now = self.clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self.rate.burst, now)
            if len(self._buckets) > _MOST_NAMES:
                self._buckets.popitem(last=False)
        grown = bucket.tokens + (now - bucket.at) * self.rate.per_second
        bucket.tokens, bucket.at = min(self.rate.burst, grown), now
        self._buckets.move_to_end(name)
        return bucket
