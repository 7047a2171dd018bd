"""The peer's clock, which tests move, and what is to happen when it gets there."""

import heapq
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone


class Clock:
    """The time of the machine plus what tests added. Frozen, it moves by `advance` alone."""

    def __init__(self) -> None:
        self.added = 0.0
        self.frozen_at: float | None = None
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0

    def seconds(self) -> float:
        return (time.time() if self.frozen_at is None else self.frozen_at) + self.added

    def now(self) -> datetime:
        return moment(self.seconds())

    def freeze(self, frozen: bool) -> None:
        if frozen and self.frozen_at is None:
            self.frozen_at = time.time()
        elif not frozen and self.frozen_at is not None:
            # It goes on from where it stood, not from where it would be.
            self.added += self.frozen_at - time.time()
            self.frozen_at = None

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Has something done when the clock gets there. What is due already is done by the next `settle`."""
        self.count += 1
        heapq.heappush(self.agenda, (seconds, self.count, act))

    def settle(self) -> None:
        """Does what is due, in order. Every call does this first."""
        while self.agenda and self.agenda[0][0] <= self.seconds():
            heapq.heappop(self.agenda)[2]()

    def advance(self, seconds: float) -> None:
        self.added += seconds
        self.settle()


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def naive(seconds: float) -> datetime:
    """As moto keeps moments: UTC that does not say so."""
    return moment(seconds).replace(tzinfo=None)


def span(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
