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
        lifecycle = "spot" if spot else "on-demand"
        least = UNLIMITED
        for limit in self.limits:
            if not fits(limit, region, zone, kind, lifecycle):
                continue
            taken = sum(
                1
                for machine in self.peer.instances.everywhere()
                if machine.alive and fits(limit, machine.region, machine.zone, machine.type, machine.lifecycle)
            )
            least = min(least, max(0, limit["instances"] - taken))
        return least


def fits(limit: dict[str, Any], region: str, zone: str, kind: str, lifecycle: str) -> bool:
    is_so = {"region": region, "zone": zone, "type": kind, "lifecycle": lifecycle}
    return all(limit.get(name) in (None, value) for name, value in is_so.items())
