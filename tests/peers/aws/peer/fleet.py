"""CreateFleet of type `instant`: one request over many pools, and what it says of each.

| rule | from |
|---|---|
| one attempt; the answer lists what was launched and what could not be | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instant-fleet.html: "The API response lists the instances that launched, along with errors for those instances that could not be launched" |
| price-capacity-optimized: of the pools with the most capacity the cheapest | API_SpotOptionsRequest, AllocationStrategy. Here: pools that hold all that is missing come first, by price; then the others, by what they hold |
| lowest-price, which is the default; capacity-optimized; diversified; prioritized for on-demand | the same, and API_OnDemandOptionsRequest |
| MinTargetCapacity: all of it or nothing | "If this minimum capacity isn't reached, no instances are launched" |
| it needs SingleAvailabilityZone or SingleInstanceType | "At least one of the following must be specified" |
| tags of instances, volumes and interfaces come with the request | API_CreateFleet, TagSpecification: "If the fleet type is instant, specify … instance to tag the instances at launch" |
| instances have aws:ec2:fleet-id | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/manage-ec2-fleet.html |
| a fleet that launched is described only by its id, and deleted only with its instances | API_DescribeFleets: "If a fleet is of type instant, you must specify the fleet ID", API_DeleteFleets: "A deleted instant fleet with running instances is not supported" |
| full quotas: MaxSpotInstanceCountExceeded, VcpuLimitExceeded among the errors | as RunInstances says |

Not here: InstanceRequirements, capacity reservations, MaxTotalPrice, fleets of other types.
"""

import uuid
from typing import Any

from . import launch
from .access import dry_run
from .capacity import Room
from .clock import moment
from .quotas import code_of, over
from .wire import Refused


class Pool:
    """One way to launch: an override in a zone."""

    def __init__(self, config: dict[str, Any], override: dict[str, Any], spec: dict[str, Any], zone: str, order: int):
        self.config, self.override, self.spec, self.zone, self.order = config, override, spec, zone, order
        self.type = spec["InstanceType"]
        self.weight = override.get("WeightedCapacity") or 1.0
        self.free = 0
        self.price = float("inf")
        self.quota_full = False


def create_fleet(peer: Any, call: Any) -> dict[str, Any]:
    if call["Type"] != "instant":
        raise Refused("InvalidAction", f"this peer has fleets of type instant only, not {call['Type'] or 'maintain'}", 501)
    pools = pools_of(peer, call)
    if call["DryRun"]:
        raise dry_run()
    fleet = f"fleet-{uuid.uuid4()}"
    target = call["TargetCapacitySpecification"]
    total = target["TotalTargetCapacity"]
    shares = {"on-demand": target.get("OnDemandTargetCapacity") or 0, "spot": target.get("SpotTargetCapacity") or 0}
    rest = total - sum(shares.values())
    if rest > 0:
        shares[target.get("DefaultTargetCapacityType") or "on-demand"] += rest
    launched: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for lifecycle, wanted in shares.items():
        if wanted > 0:
            options = call["SpotOptions" if lifecycle == "spot" else "OnDemandOptions"] or {}
            fill(peer, call, fleet, pools, lifecycle, wanted, options, launched, errors)
    tags = {tag["Key"]: tag.get("Value", "") for each in call["TagSpecifications"] or [] if each["ResourceType"] == "fleet"
            for tag in each.get("Tags", [])}
    peer.backend(call).tags[fleet].update(tags)
    peer.fleets[fleet] = {"region": call.region, "call": call, "created": peer.clock.seconds(), "instances": launched,
                          "errors": errors, "state": "active", "total": total, "tags": peer.backend(call).tags[fleet]}
    return {"FleetId": fleet, "Errors": errors, "Instances": launched}


def pools_of(peer: Any, call: Any) -> list[Pool]:
    """Every override in every zone where it may start. What is wrong with any is wrong with the request."""
    pools: list[Pool] = []
    tags = [each for each in call["TagSpecifications"] or [] if each["ResourceType"] != "fleet"]
    for config in call["LaunchTemplateConfigs"] or []:
        named = config["LaunchTemplateSpecification"]
        if not named.get("Version"):
            raise Refused("MissingParameter", "The request must contain the parameter Version of the launch template")
        version, data = launch.template(peer, call, named)
        resolved = {"LaunchTemplateId": version.template.id, "Version": str(version.number)}
        for override in config.get("Overrides") or [{}]:
            if override.get("InstanceRequirements"):
                raise Refused("InvalidAction", "this peer has no InstanceRequirements", 501)
            spec = launch.spec(peer, call, asked_for(named, data, override, tags))
            for zone in launch.zones(peer, call, spec):
                pools.append(Pool(resolved, override, spec, zone, len(pools)))
    if not pools:
        raise Refused("MissingParameter", "The request must contain the parameter LaunchTemplateConfigs")
    return pools


def asked_for(named: dict[str, Any], data: dict[str, Any], override: dict[str, Any], tags: list[Any]) -> dict[str, Any]:
    """An override over its template, as RunInstances would be asked."""
    asked: dict[str, Any] = {"LaunchTemplate": named, "TagSpecifications": tags}
    for name in ("InstanceType", "ImageId", "KeyName", "BlockDeviceMappings", "IamInstanceProfile", "MetadataOptions"):
        if override.get(name):
            asked[name] = override[name]
    if override.get("SubnetId") and data.get("NetworkInterfaces"):
        asked["NetworkInterfaces"] = [{**data["NetworkInterfaces"][0], "SubnetId": override["SubnetId"]}]
    elif override.get("SubnetId"):
        asked["SubnetId"] = override["SubnetId"]
    if override.get("AvailabilityZone"):
        asked["Placement"] = {"AvailabilityZone": override["AvailabilityZone"]}
    return asked


def fill(
    peer: Any, call: Any, fleet: str, pools: list[Pool], lifecycle: str, wanted: float, options: dict[str, Any],
    launched: list[dict[str, Any]], errors: list[dict[str, Any]],
) -> None:
    least = options.get("MinTargetCapacity") or 0
    if least and not options.get("SingleAvailabilityZone") and not options.get("SingleInstanceType"):
        raise Refused(
            "InvalidParameterCombination",
            "MinTargetCapacity requires SingleAvailabilityZone or SingleInstanceType",
        )
    look(peer, call, pools, lifecycle)
    ordered = order(pools, lifecycle, wanted, options)
    chosen = choose(peer, call, ordered, lifecycle, wanted, options)
    reached = sum(pool.weight * count for pool, count in chosen)
    spot = lifecycle == "spot"
    if reached < max(least, 0.000001):
        chosen, reached = [], 0
    for pool, count in chosen:
        machines = peer.instances.start(call, pool.spec, pool.zone, count, spot, fleet)
        launched.append(
            {
                "LaunchTemplateAndOverrides": shown(pool),
                "Lifecycle": lifecycle,
                "InstanceIds": [machine.id for machine in machines],
                "InstanceType": pool.type,
                "AvailabilityZone": pool.zone,
                "SubnetId": machines[0].networks[0]["SubnetId"],
            }
        )
    if reached < wanted:
        taken = {id(pool): count for pool, count in chosen}
        for pool in ordered:
            if taken.get(id(pool), 0) * pool.weight < wanted - reached:
                errors.append(error(peer, call, pool, lifecycle, pool.free - taken.get(id(pool), 0)))


def look(peer: Any, call: Any, pools: list[Pool], lifecycle: str) -> None:
    """What each pool holds and costs now."""
    spot = lifecycle == "spot"
    for pool in pools:
        room = peer.quotas.room(call.region, pool.type, spot)
        pool.free = min(peer.capacity.free(call.region, pool.zone, pool.type, spot), room)
        pool.quota_full = room == 0
        if spot:
            price = peer.spot.now(call.region, pool.zone, pool.type)
        else:
            price = peer.prices.on_demand(call.region, pool.type)
        pool.price = float("inf") if price is None else price / pool.weight


def order(pools: list[Pool], lifecycle: str, wanted: float, options: dict[str, Any]) -> list[Pool]:
    strategy = (options.get("AllocationStrategy") or "lowest-price").replace("lowestPrice", "lowest-price")
    if strategy in ("lowest-price", "diversified"):
        return sorted(pools, key=lambda pool: (pool.price, pool.order))
    if strategy == "price-capacity-optimized" and lifecycle == "spot":
        return sorted(pools, key=lambda pool: (*depth(pool, wanted), pool.price, pool.order))
    if strategy in ("capacity-optimized", "capacity-optimized-prioritized") and lifecycle == "spot":
        return sorted(pools, key=lambda pool: (*depth(pool, wanted), priority(pool), pool.order))
    if strategy == "prioritized" and lifecycle == "on-demand":
        return sorted(pools, key=lambda pool: (priority(pool), pool.order))
    raise Refused("InvalidParameterValue", f"Value ({strategy}) for parameter AllocationStrategy is invalid.")


def depth(pool: Pool, wanted: float) -> tuple[int, int]:
    """First the pools that hold all of it, all alike; then the others, the fullest first."""
    return (0, 0) if pool.free * pool.weight >= wanted else (1, -pool.free)


def priority(pool: Pool) -> float:
    held = pool.override.get("Priority")
    return float("inf") if held is None else held


def choose(
    peer: Any, call: Any, ordered: list[Pool], lifecycle: str, wanted: float, options: dict[str, Any]
) -> list[tuple[Pool, int]]:
    """How many of which pool. In one zone, or of one type: where the most can be had, the first of several."""
    groups: dict[tuple[str, str], list[Pool]] = {}
    for pool in ordered:
        zone = pool.zone if options.get("SingleAvailabilityZone") else ""
        kind = pool.type if options.get("SingleInstanceType") else ""
        groups.setdefault((zone, kind), []).append(pool)
    plans = [take(peer, call, group, lifecycle, wanted, options) for group in groups.values()]
    return max(plans, key=lambda plan: min(wanted, sum(pool.weight * count for pool, count in plan)))


def take(
    peer: Any, call: Any, group: list[Pool], lifecycle: str, wanted: float, options: dict[str, Any]
) -> list[tuple[Pool, int]]:
    """From each pool in turn, never over a limit or a quota that several pools share."""
    spot = lifecycle == "spot"
    counts = {id(pool): 0 for pool in group}
    room = Room(peer.capacity, call.region, spot)
    codes = {code_of(pool.type, spot) for pool in group}
    vcpus = {code: peer.quotas.value(call.region, code) - peer.quotas.used(call.region, code) for code in codes}

    def fits(pool: Pool) -> bool:
        return room.free(pool.zone, pool.type) > 0 and vcpus[code_of(pool.type, spot)] >= peer.quotas.vcpus(pool.type)

    reached = 0.0
    diversified = options.get("AllocationStrategy") == "diversified"
    while reached < wanted:
        able = [pool for pool in group if fits(pool)]
        if not able:
            break
        pool = min(able, key=lambda each: counts[id(each)]) if diversified else able[0]
        counts[id(pool)] += 1
        room.plan(pool.zone, pool.type)
        vcpus[code_of(pool.type, spot)] -= peer.quotas.vcpus(pool.type)
        reached += pool.weight
    return [(pool, counts[id(pool)]) for pool in group if counts[id(pool)]]


def shown(pool: Pool) -> dict[str, Any]:
    override = {name: value for name, value in pool.override.items() if name in SHOWN}
    override["InstanceType"] = pool.type
    if not override.get("SubnetId"):
        override["AvailabilityZone"] = pool.zone
    return {"LaunchTemplateSpecification": pool.config, "Overrides": override}


SHOWN = ("InstanceType", "MaxPrice", "SubnetId", "AvailabilityZone", "WeightedCapacity", "Priority", "ImageId")


def error(peer: Any, call: Any, pool: Pool, lifecycle: str, left: int) -> dict[str, Any]:
    spot = lifecycle == "spot"
    if pool.quota_full:
        refused = over(peer.quotas.value(call.region, code_of(pool.type, spot)), spot)
    elif left > 0:
        refused = Refused(
            "UnfulfillableCapacity",
            "Unable to fulfill capacity due to your request configuration. Please adjust your request and try again.",
        )
    else:
        refused = launch.no_capacity(peer, call, pool.type, [pool.zone], spot)
    return {
        "LaunchTemplateAndOverrides": shown(pool),
        "Lifecycle": lifecycle,
        "ErrorCode": refused.code,
        "ErrorMessage": refused.message,
    }


def describe_fleets(peer: Any, call: Any) -> dict[str, Any]:
    views = []
    for name in call["FleetIds"] or []:
        held = peer.fleets.get(name)
        if held is None or held["region"] != call.region:
            raise Refused("InvalidFleetId.NotFound", f"The fleet ID '{name}' does not exist")
        reached = float(sum(len(each["InstanceIds"]) for each in held["instances"]))
        views.append(
            {
                "FleetId": name, "FleetState": held["state"], "Type": "instant", "CreateTime": moment(held["created"]),
                "ActivityStatus": "fulfilled", "FulfilledCapacity": reached,
                "TargetCapacitySpecification": {"TotalTargetCapacity": held["total"]},
                "Tags": [{"Key": key, "Value": value} for key, value in held["tags"].items()],
            }
        )
    return {"Fleets": views}


def delete_fleets(peer: Any, call: Any) -> dict[str, Any]:
    from .instances import ENDED_BY_USER

    done, failed = [], []
    for name in call["FleetIds"]:
        held = peer.fleets.get(name)
        if held is None or held["region"] != call.region:
            problem = {"Code": "fleetIdDoesNotExist", "Message": f"The fleet ID '{name}' does not exist"}
            failed.append({"FleetId": name, "Error": problem})
            continue
        alive = [machine for machine in peer.instances.here(call.region).values() if machine.fleet == name and machine.alive]
        if alive and call["TerminateInstances"] is False:
            problem = {"Code": "unexpectedError", "Message": "NoTerminateInstances option is not supported for instant fleet"}
            failed.append({"FleetId": name, "Error": problem})
            continue
        for machine in alive:
            peer.instances.end(machine, ENDED_BY_USER)
        before, held["state"] = held["state"], "deleted_terminating" if alive else "deleted"
        done.append({"FleetId": name, "CurrentFleetState": held["state"], "PreviousFleetState": before})
    return {"SuccessfulFleetDeletions": done, "UnsuccessfulFleetDeletions": failed}
