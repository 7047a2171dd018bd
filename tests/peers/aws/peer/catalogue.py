"""Instance types, zones, and which type is where: moto's copies of AWS's own answers, cut to what a test wants, in pages.

| rule | from |
|---|---|
| at most 100 types a page | API_DescribeInstanceTypes, MaxResults: 5 to 100 |
| only enabled regions are listed | API_DescribeRegions, AllRegions: "Indicates whether to display all Regions, including Regions that are disabled for your account" |
"""

import functools
from typing import Any

import moto.utilities.utils

from . import filters
from .wire import Refused

LOCATIONS = ("region", "availability-zone", "availability-zone-id")

load = moto.utilities.utils.load_resource


def load_without_offerings(path: str) -> Any:
    return [] if "instance_type_offerings" in path else load(path)


# Which type is where, in 30 regions: half a second and 50 MB of moto's start, while a test asks for a region or two.
moto.utilities.utils.load_resource = load_without_offerings


@functools.cache
def offerings(location: str, region: str) -> list[dict[str, str]]:
    """What AWS answered there: a type and a location each."""
    try:
        rows = load(f"ec2/resources/instance_type_offerings/{location}/{region}.json")
    except FileNotFoundError:
        return []
    return [{**row, "LocationType": location} for row in rows]


class Catalogue:
    """Which types there are: all of AWS's, or those that a test named."""

    def __init__(self, types: list[str]):
        from moto.ec2.models.instance_types import INSTANCE_TYPES

        self.all = INSTANCE_TYPES
        self.kept = set(types) or None
        self.places: dict[str, dict[str, list[str]]] = {}

    def keep(self, types: list[str]) -> None:
        self.kept = set(types) or None

    def has(self, kind: str) -> bool:
        return kind in self.all and (self.kept is None or kind in self.kept)

    def zones_of(self, region: str, kind: str) -> list[str]:
        if not self.has(kind):
            return []
        places = self.places.get(region)
        if places is None:
            places = self.places[region] = {}
            for row in offerings("availability-zone", region):
                places.setdefault(row["InstanceType"], []).append(row["Location"])
        return sorted(places.get(kind, []))


def known(peer: Any, kind: str) -> bool:
    return peer.catalogue.has(kind)


def zones_of(peer: Any, region: str, kind: str) -> list[str]:
    return peer.catalogue.zones_of(region, kind)


def zones(peer: Any, call: Any) -> list[str]:
    return [zone.name for zone in peer.backend(call).describe_availability_zones()]


def describe_instance_types(peer: Any, call: Any) -> dict[str, Any]:
    from moto.ec2.models.instance_types import InstanceType

    asked = call["InstanceTypes"]
    if asked and call["MaxResults"]:
        raise Refused("InvalidParameterCombination", "The parameter instanceTypes cannot be used with the parameter maxResults")
    if asked and len(asked) > 100:
        raise Refused("InvalidParameterValue", "The maximum number of instance types that can be specified is 100")
    here = {row["InstanceType"] for row in offerings("region", call.region)}
    names = [name for name in peer.catalogue.all if name in here and peer.catalogue.has(name)]
    for name in asked or []:
        if name not in names:
            raise Refused("InvalidInstanceType", f"The following supplied instance types do not exist: [{name}]")
    names = [name for name in names if name in asked] if asked else names
    types = [InstanceType(name) for name in names]
    if call["Filters"]:
        types = [kind for kind in types if type_holds(kind, call["Filters"])]
    shown, token = filters.page(call, types, 5, 100, default=100)
    return {"InstanceTypes": [clean(peer, kind) for kind in shown], "NextToken": token}


def describe_availability_zones(peer: Any, call: Any) -> dict[str, Any]:
    """Zones that need no opting in. Local and wavelength zones are not here, as in a listing without AllAvailabilityZones."""
    rows = []
    for zone in peer.backend(call).describe_availability_zones():
        rows.append(
            {
                "ZoneName": zone.name, "ZoneId": zone.zone_id, "RegionName": call.region, "ZoneType": "availability-zone",
                "State": "available", "OptInStatus": "opt-in-not-required", "GroupName": f"{call.region}-zg-1",
                "NetworkBorderGroup": call.region, "Messages": [],
            }
        )
    fields = {
        "zone-name": "ZoneName", "zone-id": "ZoneId", "region-name": "RegionName", "zone-type": "ZoneType", "state": "State",
        "opt-in-status": "OptInStatus", "group-name": "GroupName",
    }
    looks = {name: (lambda row, state, field=field: row[field]) for name, field in fields.items()}
    asked = filters.parse(call["Filters"], looks)
    for name in call["ZoneNames"] or []:
        if name not in [row["ZoneName"] for row in rows]:
            raise Refused("InvalidParameterValue", f"Invalid availability zone: [{name}]")
    rows = [
        row for row in rows
        if filters.holds(asked, row, None)
        and (not call["ZoneNames"] or row["ZoneName"] in call["ZoneNames"])
        and (not call["ZoneIds"] or row["ZoneId"] in call["ZoneIds"])
    ]
    return {"AvailabilityZones": rows}


def describe_regions(peer: Any, call: Any) -> dict[str, Any]:
    """Only those that are enabled, unless all are asked for."""
    rows = []
    for region in peer.backend(call).describe_regions([]):
        if region.name.startswith(("cn-", "us-gov-")):
            continue
        status = "not-opted-in" if region.name in peer.access.disabled_regions else region.opt_in_status
        if call["AllRegions"] or status != "not-opted-in" or region.name in (call["RegionNames"] or []):
            rows.append({"RegionName": region.name, "Endpoint": region.endpoint, "OptInStatus": status})
    for name in call["RegionNames"] or []:
        if name not in [row["RegionName"] for row in rows]:
            raise Refused("InvalidParameterValue", f"Invalid region name: [{name}]")
    fields = {"region-name": "RegionName", "endpoint": "Endpoint", "opt-in-status": "OptInStatus"}
    looks = {name: (lambda row, state, field=field: row[field]) for name, field in fields.items()}
    asked = filters.parse(call["Filters"], looks)
    named = call["RegionNames"]
    return {"Regions": [row for row in rows if filters.holds(asked, row, None) and (not named or row["RegionName"] in named)]}


def type_holds(kind: Any, wanted: list[dict[str, Any]]) -> bool:
    for each in wanted:
        held = kind.get_filter_value(each["Name"])
        held = held if isinstance(held, list) else [held]
        if not any(filters.like(str(value), pattern) for value in held for pattern in each.get("Values", [])):
            return False
    return True


def clean(peer: Any, kind: Any) -> dict[str, Any]:
    """moto's copy, without what botocore's model has no member for."""
    from .wire import model_of

    shape = model_of("ec2", "DescribeInstanceTypes").output_shape.members["InstanceTypes"].member
    return {name: value for name, value in kind.items() if name in shape.members}


def describe_instance_type_offerings(peer: Any, call: Any) -> dict[str, Any]:
    location = call["LocationType"] or "region"
    if location not in LOCATIONS:
        raise Refused("InvalidParameterValue", f"Value ({location}) for parameter locationType is invalid.")
    rows = [row for row in offerings(location, call.region) if peer.catalogue.has(row["InstanceType"])]
    for each in call["Filters"] or []:
        field = {"instance-type": "InstanceType", "location": "Location"}.get(each["Name"])
        if field is None:
            raise Refused("InvalidParameterValue", f"The filter '{each['Name']}' is invalid")
        rows = [row for row in rows if any(filters.like(row[field], value) for value in each.get("Values", []))]
    shown, token = filters.page(call, rows, 5, 1000, default=1000)
    return {"InstanceTypeOfferings": shown, "NextToken": token}
