"""How many instances can be had, where a test says so."""

from typing import Any

UNLIMITED = 1_000_000

FIELDS = {"region", "zone", "type", "lifecycle", "instances"}


class Capacity:
    """Limits: at most `instances` at once of all that a limit fits. What a limit does not name, it fits."""

    def __init__(self, peer: Any):
        self.peer = peer
        self.limits: list[dict[str, Any]] = []

    def set(self, limits: list[dict[str, Any]]) -> None:
        for limit in limits:
            if set(limit) - FIELDS or "instances" not in limit:
                raise ValueError(f"a limit has instances, and of region, zone, type, lifecycle what it is for: {limit}")
        self.limits = limits

    def free(self, region: str, zone: str, kind: str, spot: bool) -> int:
        """How many more of this."""
        return Room(self, region, spot).free(zone, kind)


class Room:
    """What is left in a region, to plan with: what is planned is gone for what is planned after it."""

    def __init__(self, capacity: Capacity, region: str, spot: bool):
        self.region, self.lifecycle = region, "spot" if spot else "on-demand"
        alive = [machine for machine in capacity.peer.instances.everywhere() if machine.alive] if capacity.limits else []
        self.left = []
        for limit in capacity.limits:
            taken = sum(fits(limit, each.region, each.zone, each.type, each.lifecycle) for each in alive)
            self.left.append([limit, max(0, limit["instances"] - taken)])

    def free(self, zone: str, kind: str) -> int:
        fitting = [left for limit, left in self.left if fits(limit, self.region, zone, kind, self.lifecycle)]
        return min(fitting, default=UNLIMITED)

    def plan(self, zone: str, kind: str) -> None:
        for held in self.left:
            if fits(held[0], self.region, zone, kind, self.lifecycle):
                held[1] -= 1


def fits(limit: dict[str, Any], region: str, zone: str, kind: str, lifecycle: str) -> bool:
    is_so = {"region": region, "zone": zone, "type": kind, "lifecycle": lifecycle}
    return all(limit.get(name) in (None, value) for name, value in is_so.items())
