"""Spot prices, spot requests, and how spot instances are taken back.

| rule | from |
|---|---|
| the price in force at the start is part of the history | API_DescribeSpotPriceHistory: "It also returns the last price change before the start time, which is the effective price as of the start time" |
| at most 90 days back; newest first | the same, StartTime: "up to the past 90 days"; the order is that of AWS's own examples |
| the end of the pages is an empty token | as AWS's own examples of the CLI show it; a paginator that only asks whether there is one goes round for ever |
| a spot instance has a request; it is fulfilled, and closed with a reason | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html: fulfilled, instance-terminated-by-user, -by-price, -no-capacity |
| taken back: Server.SpotInstanceTermination | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html: "exceeded available capacity or because of an increase in the Spot price" |
"""

import hashlib
from datetime import datetime, timezone
from typing import Any

from . import filters
from .clock import moment
from .wire import Refused

TAKEN_BACK = ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination")

# Every region at once, a few times over; each may hold 50,000 rows.
LISTS_MAX = 64

DAYS_90 = 90 * 86400.0

# What a description costs by the price of Linux.
DESCRIPTIONS = {"Linux/UNIX": 1.0, "Red Hat Enterprise Linux": 1.25, "SUSE Linux": 1.2, "Windows": 1.9}


class Spot:
    def __init__(self, peer: Any):
        self.peer = peer
        # By region, zone (or "*") and type: changes in order of time, as a test set them.
        self.series: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        # Histories that are being paged through.
        self.lists: dict[str, list[Any]] = {}

    def set(self, region: str, zone: str, kind: str, series: list[tuple[float, float]]) -> None:
        self.series[(region, zone, kind)] = sorted(series)

    def changes(self, region: str, zone: str, kind: str, start: float, end: float) -> list[tuple[float, float]]:
        """The price in force at the start, and each change until the end."""
        chosen = self.series.get((region, zone, kind)) or self.series.get((region, "*", kind))
        every = chosen if chosen is not None else self.usual(region, zone, kind, start, end)
        before = [change for change in every if change[0] <= start]
        return before[-1:] + [change for change in every if start < change[0] <= end]

    def usual(self, region: str, zone: str, kind: str, start: float, end: float) -> list[tuple[float, float]]:
        """Where no test says more: about 40 % of on-demand, a few per cent up and down every half day or so, always the
        same for the same zone and type."""
        base = self.peer.prices.on_demand(region, kind)
        if not base or "spot" not in self.peer.catalogue.all[kind]["SupportedUsageClasses"]:
            return []
        seed = hashlib.sha256(f"{zone}/{kind}".encode()).digest()
        share, every, shift = 0.3 + seed[0] / 1280, 30000 + seed[1] * 100, seed[2] * 100
        first = int((start - shift) // every)
        changes = []
        for step in range(first, int((end - shift) // every) + 1):
            sway = hashlib.sha256(seed + step.to_bytes(8, "big", signed=True)).digest()[0] / 2550 - 0.05
            changes.append((float(step * every + shift), round(base * share * (1 + sway), 6)))
        return changes

    def now(self, region: str, zone: str, kind: str) -> float | None:
        """The price in force."""
        now = self.peer.clock.seconds()
        changes = self.changes(region, zone, kind, now, now)
        return changes[-1][1] if changes else None

    def request(self, machine: Any, spec: dict[str, Any]) -> None:
        """The request that comes with a spot instance."""
        name = "sir-" + hashlib.sha256(machine.id.encode()).hexdigest()[:8]
        machine.spot_request = name
        tags = {
            tag["Key"]: tag.get("Value", "")
            for each in spec.get("TagSpecifications") or []
            if each["ResourceType"] == "spot-instances-request"
            for tag in each.get("Tags", [])
        }
        held = machine.inst.ec2_backend.tags[name]
        held.update(tags)
        options = (spec.get("InstanceMarketOptions") or {}).get("SpotOptions") or {}
        self.requests[name] = {
            "region": machine.region, "machine": machine, "state": "active", "status": "fulfilled", "tags": held,
            "created": machine.launched, "updated": machine.launched, "max_price": options.get("MaxPrice"),
        }

    def close(self, machine: Any, status: str) -> None:
        held = self.requests.get(machine.spot_request or "")
        if held is not None and held["state"] != "closed":
            held |= {"state": "closed", "status": status, "updated": self.peer.clock.seconds()}

    def interrupt(self, machine: Any, notice_seconds: float, status: str) -> dict[str, Any]:
        """Warns now, and takes it back once the notice is over."""
        if machine.lifecycle != "spot":
            raise ValueError(f"{machine.id} is no spot instance")
        if status not in ("instance-terminated-by-price", "instance-terminated-no-capacity"):
            raise ValueError("status is instance-terminated-by-price or instance-terminated-no-capacity")
        clock = self.peer.clock
        ends = clock.seconds() + notice_seconds
        machine.interrupted_at = ends
        held = self.requests.get(machine.spot_request or "")
        if held is not None and held["state"] == "active":
            held |= {"status": "marked-for-termination", "updated": clock.seconds()}
        said = self.peer.events.interruption(machine)

        def take() -> None:
            if machine.state not in ("shutting-down", "terminated"):
                self.close(machine, status)
                self.peer.instances.end(machine, TAKEN_BACK)

        clock.at(ends, take)
        clock.settle()
        return {"ends_at": ends, **said}


def describe_price_history(peer: Any, call: Any) -> dict[str, Any]:
    now = peer.clock.seconds()
    end = min(seconds(call["EndTime"], now), now)
    start = max(seconds(call["StartTime"], now - DAYS_90), now - DAYS_90)
    if call["StartTime"] is not None and call["EndTime"] is not None and start > seconds(call["EndTime"], now):
        raise Refused("InvalidParameterValue", "The start time must be before the end time.")
    start = min(start, now)
    end = max(end, start)
    # Further pages are of the list that the first was of: what time passed meanwhile changes nothing.
    asked = {name: value for name, value in call.params.items() if name not in ("NextToken", "MaxResults")}
    key = f"{call.region} {asked}"
    if not call["NextToken"] or key not in peer.spot.lists:
        while len(peer.spot.lists) >= LISTS_MAX:
            peer.spot.lists.pop(next(iter(peer.spot.lists)))
        peer.spot.lists[key] = history(peer, call, start, end)
    shown, token = filters.page(call, peer.spot.lists[key], 1, 1000, default=1000)
    views = [
        {
            "AvailabilityZone": zone, "InstanceType": kind, "ProductDescription": description,
            "SpotPrice": f"{price:.6f}", "Timestamp": moment(when),
        }
        for when, kind, zone, description, price in shown
    ]
    return {"NextToken": token or "", "SpotPriceHistory": views}


def history(peer: Any, call: Any, start: float, end: float) -> list[tuple[float, str, str, str, float]]:
    """Every change that was asked for, the newest first."""
    kinds, zones, descriptions = wanted(call)
    catalogue = peer.catalogue
    rows = []
    for kind in kinds or [name for name in catalogue.all if catalogue.has(name)]:
        if not catalogue.has(kind):
            raise Refused("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        for zone in catalogue.zones_of(call.region, kind):
            if zones is not None and zone not in zones:
                continue
            for when, price in peer.spot.changes(call.region, zone, kind, start, end):
                for description, factor in DESCRIPTIONS.items():
                    if descriptions is None or description in descriptions:
                        rows.append((when, kind, zone, description, price * factor))
    rows.sort(key=lambda row: (-row[0], *row[1:4]))
    return rows


def seconds(when: datetime | None, otherwise: float) -> float:
    return otherwise if when is None else when.replace(tzinfo=timezone.utc).timestamp()


def wanted(call: Any) -> tuple[list[str] | None, list[str] | None, list[str] | None]:
    """Types, zones and descriptions, whether by parameter or by filter."""
    kinds, descriptions = call["InstanceTypes"], call["ProductDescriptions"]
    zones = [call["AvailabilityZone"]] if call["AvailabilityZone"] else None
    for each in call["Filters"] or []:
        values = each.get("Values") or []
        if each["Name"] == "instance-type":
            kinds = [kind for kind in values if not kinds or kind in kinds]
        elif each["Name"] == "availability-zone":
            zones = [zone for zone in values if zones is None or zone in zones]
        elif each["Name"] == "product-description":
            descriptions = [text for text in values if not descriptions or text in descriptions]
        else:
            raise Refused("InvalidParameterValue", f"The filter '{each['Name']}' is invalid")
    if descriptions is not None:
        # Every account is in a VPC now: the longer names mean the same rows.
        descriptions = [text.removesuffix(" (Amazon VPC)") for text in descriptions]
    return kinds, zones, descriptions


def describe_requests(peer: Any, call: Any) -> dict[str, Any]:
    ids = call["SpotInstanceRequestIds"]
    here = {name: held for name, held in peer.spot.requests.items() if held["region"] == call.region}
    for name in ids or []:
        if name not in here:
            raise Refused("InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{name}' does not exist")
    looks = {
        "spot-instance-request-id": lambda name, held: name,
        "state": lambda name, held: held["state"],
        "status-code": lambda name, held: held["status"],
        "instance-id": lambda name, held: held["machine"].id,
        "tag-key": lambda name, held: list(held["tags"]),
    }
    asked = filters.parse(call["Filters"], looks, tags=lambda name, held: held["tags"])
    rows = [(name, held) for name, held in here.items() if (not ids or name in ids) and filters.holds(asked, name, held)]
    shown, token = filters.page(call, rows, 5, 1000)
    return {"SpotInstanceRequests": [request_view(name, held) for name, held in shown], "NextToken": token}


STATUS_TEXT = {
    "fulfilled": "Your spot request is fulfilled.",
    "marked-for-termination": "Your Spot Instance is marked for termination.",
    "instance-terminated-by-user": "Spot Instance terminated due to user-initiated termination.",
    "instance-terminated-by-price": "Your Spot Instance was terminated because the Spot price exceeded your maximum price.",
    "instance-terminated-no-capacity": "Your Spot instance was terminated because there is no Spot capacity available that "
    "matches your request.",
    "request-canceled-and-instance-running": "Your Spot request is canceled, but your instance is still running.",
}


def request_view(name: str, held: dict[str, Any]) -> dict[str, Any]:
    machine = held["machine"]
    return {
        "SpotInstanceRequestId": name,
        "State": held["state"],
        "Status": {"Code": held["status"], "Message": STATUS_TEXT[held["status"]], "UpdateTime": moment(held["updated"])},
        "InstanceId": machine.id,
        "Type": "one-time",
        "CreateTime": moment(held["created"]),
        "LaunchedAvailabilityZone": machine.zone,
        "InstanceInterruptionBehavior": "terminate",
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": held["max_price"],
        "LaunchSpecification": {"ImageId": machine.inst.image_id, "InstanceType": machine.type},
        "Tags": [{"Key": key, "Value": value} for key, value in held["tags"].items()],
    }


def cancel_requests(peer: Any, call: Any) -> dict[str, Any]:
    """Cancelling leaves the instance running."""
    said = []
    for name in call["SpotInstanceRequestIds"] or []:
        held = peer.spot.requests.get(name)
        if held is None or held["region"] != call.region:
            raise Refused("InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{name}' does not exist")
        if held["state"] == "active":
            held |= {"state": "cancelled", "status": "request-canceled-and-instance-running"}
            held["updated"] = peer.clock.seconds()
        said.append({"SpotInstanceRequestId": name, "State": held["state"]})
    return {"CancelledSpotInstanceRequests": said}
