"""Filters and pages, as EC2 has them.

| rule | from |
|---|---|
| several filters: all; several values: any; `*` and `?` stand for others | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html: "If you specify multiple filters, the filters are joined with an AND", "multiple values … joined with an OR", "wildcards" |
| the filters of DescribeInstances | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html, Filter.N |
| pages | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html#api-pagination: a token where there is more |
"""

import base64
import fnmatch
import json
import re
from collections.abc import Callable
from typing import Any

from .clock import moment
from .wire import Refused


def first_nic(machine: Any) -> dict[str, Any]:
    return machine.networks[0] if machine.networks else {}


# What each filter of DescribeInstances looks at: the machine and its state then.
INSTANCE: dict[str, Callable[[Any, Any], Any]] = {
    "architecture": lambda machine, state: machine.inst.architecture,
    "availability-zone": lambda machine, state: machine.zone,
    "client-token": lambda machine, state: machine.token or "",
    "dns-name": lambda machine, state: machine.inst.public_dns_name or "",
    "hypervisor": lambda machine, state: "xen",
    "iam-instance-profile.arn": lambda machine, state: (machine.profile or {}).get("Arn", ""),
    "iam-instance-profile.id": lambda machine, state: (machine.profile or {}).get("Id", ""),
    "image-id": lambda machine, state: machine.inst.image_id,
    "instance-id": lambda machine, state: machine.id,
    # On-demand instances have none to compare with.
    "instance-lifecycle": lambda machine, state: "spot" if machine.lifecycle == "spot" else None,
    "instance-state-code": lambda machine, state: state_code(state[1]),
    "instance-state-name": lambda machine, state: state[1],
    "instance-type": lambda machine, state: machine.type,
    "instance.group-id": lambda machine, state: [group["GroupId"] for group in first_nic(machine).get("Groups", [])],
    "instance.group-name": lambda machine, state: [group["GroupName"] for group in first_nic(machine).get("Groups", [])],
    "ip-address": lambda machine, state: machine.public_address or "",
    "key-name": lambda machine, state: machine.inst.key_name or "",
    "launch-index": lambda machine, state: str(machine.inst.ami_launch_index),
    "launch-time": lambda machine, state: moment(machine.launched).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "metadata-options.http-tokens": lambda machine, state: machine.inst.metadata_options.http_tokens,
    "network-interface.network-interface-id": lambda machine, state: [nic["NetworkInterfaceId"] for nic in machine.networks],
    "network-interface.subnet-id": lambda machine, state: [nic["SubnetId"] for nic in machine.networks],
    "owner-id": lambda machine, state: machine.inst.owner_id,
    "placement-group-name": lambda machine, state: "",
    "private-ip-address": lambda machine, state: machine.address or "",
    "requester-id": lambda machine, state: None,
    "reservation-id": lambda machine, state: machine.reservation,
    "root-device-name": lambda machine, state: machine.inst.root_device_name,
    "root-device-type": lambda machine, state: "ebs",
    "spot-instance-request-id": lambda machine, state: machine.spot_request,
    "state-reason-code": lambda machine, state: state[2][0] if state[2] else None,
    "state-reason-message": lambda machine, state: state[2][1] if state[2] else None,
    "subnet-id": lambda machine, state: first_nic(machine).get("SubnetId"),
    "tenancy": lambda machine, state: "default",
    "vpc-id": lambda machine, state: first_nic(machine).get("VpcId"),
    "virtualization-type": lambda machine, state: "hvm",
    "tag-key": lambda machine, state: list(machine.tags),
}


def state_code(name: str) -> str:
    from .instances import CODES

    return str(CODES[name])


def tags_of(machine: Any, state: Any) -> dict[str, str]:
    return machine.tags


def parse(
    asked: list[dict[str, Any]] | None, known: dict[str, Any], tags: Callable[[Any, Any], dict[str, str]] = tags_of
) -> list[tuple[Any, list[Any]]]:
    """What has to hold: for each filter what it looks at, and the patterns of which one has to fit."""
    wanted = []
    for each in asked or []:
        name = each.get("Name") or ""
        look = known.get(name)
        if name.startswith("tag:"):
            look = lambda thing, state, key=name[4:]: tags(thing, state).get(key)  # noqa: E731
        if look is None:
            raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
        wanted.append((look, [pattern(value) for value in each.get("Values") or []]))
    return wanted


def holds(wanted: list[tuple[Any, list[Any]]], machine: Any, state: Any) -> bool:
    for look, patterns in wanted:
        held = look(machine, state)
        values = held if isinstance(held, list) else [held]
        if not any(value is not None and fits(value, each) for value in values for each in patterns):
            return False
    return True


def pattern(value: str) -> Any:
    if "*" in value or "?" in value:
        # Square brackets mean nothing to EC2.
        return re.compile(fnmatch.translate(value.replace("[", "[[]")))
    return value


def fits(value: str, wanted: Any) -> bool:
    return value == wanted if isinstance(wanted, str) else wanted.match(value) is not None


def like(value: str, wanted: str) -> bool:
    return fits(value, pattern(wanted))


def page(
    call: Any,
    items: list[Any],
    least: int,
    most: int,
    default: int | None = None,
    weigh: Callable[[Any], int] = lambda item: 1,
) -> tuple[list[Any], str | None]:
    """The page that was asked for, and the token of the next where there is one."""
    size = call["MaxResults"] or default
    if call["MaxResults"] is not None and not least <= call["MaxResults"] <= most:
        raise Refused(
            "InvalidParameterValue",
            f"Value ( {call['MaxResults']} ) for parameter maxResults is invalid. Expecting a value between {least} and "
            f"{most}.",
        )
    start = 0
    if call["NextToken"]:
        try:
            start = json.loads(base64.b64decode(call["NextToken"]))["from"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused("InvalidNextToken", "The token is invalid.") from error
    if size is None:
        return items[start:], None
    end, weight = start, 0
    while end < len(items) and (weight == 0 or weight + weigh(items[end]) <= size):
        weight += weigh(items[end])
        end += 1
    if end >= len(items):
        return items[start:], None
    return items[start:end], base64.b64encode(json.dumps({"from": end}).encode()).decode()
