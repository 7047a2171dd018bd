"""Quotas in vCPUs by family, and the Service Quotas API that shows them.

| rule | from |
|---|---|
| on-demand and spot each have their quotas, by family, in vCPUs | https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html: tables with name, default and code |
| P5 has a spot quota of its own, on-demand not | the same tables: "All P5 Spot Instance Requests" and "Running On-Demand P instances" |
| what runs counts | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits: "number of vCPUs … that your running On-Demand Instances are using" |
| spot: also what is ending, until it ended | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-limits.html: "the requests count against your Spot Instance vCPU quota until Amazon EC2 detects the Spot Instance terminations" |
| what ended may count for a while longer | https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html, InstanceLimitExceeded: "terminated instances count toward your instance limits for some time after they are terminated" |
| over it: VcpuLimitExceeded, for spot MaxSpotInstanceCountExceeded | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html |
| more than the quota is never launched in part | API_RunInstances, MaxCount: "Constraints: Between 1 and the quota for the specified instance type" |
| some have no applied value: then GetServiceQuota has nothing, and the default holds | https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_GetServiceQuota.html: "For some quotas, only the default values are available. If the applied quota value is not available for a quota, the quota is not retrieved" |

What is applied here at the start is large, unlike at a new account: tests set what they want to run into.
"""

import re
from typing import Any

from .wire import Refused

# Code: name, letters of the families, whether spot, what AWS gives at first.
QUOTAS: dict[str, tuple[str, tuple[str, ...], bool, float]] = {
    "L-6E869C2A": ("Running On-Demand DL instances", ("dl",), False, 0),
    "L-74FC7D96": ("Running On-Demand F instances", ("f",), False, 0),
    "L-DB2E81BA": ("Running On-Demand G and VT instances", ("g", "gr", "vt"), False, 0),
    "L-F7808C92": ("Running On-Demand HPC instances", ("hpc",), False, 0),
    "L-43DA4232": ("Running On-Demand High Memory instances", ("u",), False, 0),
    "L-1945791B": ("Running On-Demand Inf instances", ("inf",), False, 0),
    "L-417A185B": ("Running On-Demand P instances", ("p",), False, 0),
    "L-1216C47A": ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", (), False, 5),
    "L-2C3B7624": ("Running On-Demand Trn instances", ("trn",), False, 0),
    "L-7295265B": ("Running On-Demand X instances", ("x",), False, 0),
    "L-85EED4F7": ("All DL Spot Instance Requests", ("dl",), True, 0),
    "L-88CF9481": ("All F Spot Instance Requests", ("f",), True, 0),
    "L-3819A6DF": ("All G and VT Spot Instance Requests", ("g", "gr", "vt"), True, 0),
    "L-B5D1601B": ("All Inf Spot Instance Requests", ("inf",), True, 0),
    "L-7212CCBC": ("All P4, P3 and P2 Spot Instance Requests", ("p",), True, 0),
    "L-C4BD4855": ("All P5 Spot Instance Requests", ("p5",), True, 0),
    "L-34B43A08": ("All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", (), True, 5),
    "L-6B0D517C": ("All Trn Spot Instance Requests", ("trn",), True, 0),
    "L-E3A00192": ("All X Spot Instance Requests", ("x",), True, 0),
}

APPLIED_AT_START = 100_000.0


def code_of(kind: str, spot: bool) -> str:
    """The quota that a type counts against. Which one P6 has as spot, AWS's tables do not say: here it is P5's."""
    letters = re.match(r"[a-z]+", kind)
    family = letters.group() if letters else ""
    if spot and re.match(r"p[5-9]", kind):
        return "L-C4BD4855"
    for code, (_, families, of_spot, _) in QUOTAS.items():
        if of_spot == spot and family in families:
            return code
    return "L-34B43A08" if spot else "L-1216C47A"


class Quotas:
    def __init__(self, peer: Any):
        self.peer = peer
        # What a test applied, by region, or by "*".
        self.applied: dict[tuple[str, str], float | None] = {}

    def set(self, region: str, code: str, value: float | None) -> None:
        if code not in QUOTAS:
            raise ValueError(f"no such quota: {code}; there are {sorted(QUOTAS)}")
        self.applied[(region, code)] = None if value is None else float(value)

    def applied_value(self, region: str, code: str) -> float | None:
        for key in ((region, code), ("*", code)):
            if key in self.applied:
                return self.applied[key]
        return APPLIED_AT_START

    def value(self, region: str, code: str) -> float:
        """What holds."""
        applied = self.applied_value(region, code)
        return QUOTAS[code][3] if applied is None else applied

    def used(self, region: str, code: str) -> int:
        spot = QUOTAS[code][2]
        counts = 0
        for machine in self.peer.instances.here(region).values():
            is_spot = machine.lifecycle == "spot"
            taken = machine.state != "terminated" if is_spot else machine.alive
            # Clouds take a while to see that something ended.
            taken = taken or machine.life[-1][0] + self.peer.instances.lag["quota_secs"] > self.peer.clock.seconds()
            if taken and is_spot == spot and code_of(machine.type, spot) == code:
                counts += self.vcpus(machine.type)
        return counts

    def vcpus(self, kind: str) -> int:
        return self.peer.catalogue.all[kind]["VCpuInfo"]["DefaultVCpus"]

    def room(self, region: str, kind: str, spot: bool) -> int:
        """How many more instances of a type the quota allows."""
        code = code_of(kind, spot)
        return max(0, int(self.value(region, code) - self.used(region, code)) // self.vcpus(kind))

    def check(self, call: Any, kind: str, count: int, spot: bool) -> None:
        if count > self.room(call.region, kind, spot):
            raise over(self.value(call.region, code_of(kind, spot)), spot)


def over(value: float, spot: bool) -> Refused:
    if spot:
        return Refused("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    return Refused(
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {int(value)} allows for the instance bucket "
        "that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request "
        "an adjustment to this limit.",
    )


def described(peer: Any, call: Any, code: str, value: float) -> dict[str, Any]:
    name, families, spot, _ = QUOTAS[code]
    family = "/".join(letter.upper() for letter in families) or "Standard"
    shown: dict[str, Any] = {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:aws:servicequotas:{call.region}:{call.account}:ec2/{code}",
        "QuotaCode": code,
        "QuotaName": name,
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
        "UsageMetric": {
            "MetricNamespace": "AWS/Usage",
            "MetricName": "ResourceCount",
            "MetricDimensions": {
                "Class": f"{family}/{'Spot' if spot else 'OnDemand'}",
                "Resource": "vCPU",
                "Service": "EC2",
                "Type": "Resource",
            },
            "MetricStatisticRecommendation": "Maximum",
        },
    }
    return shown


def known(call: Any) -> str:
    if call["ServiceCode"] != "ec2":
        raise Refused("NoSuchResourceException", f"Can't find the service: {call['ServiceCode']}")
    if call["QuotaCode"] not in QUOTAS:
        raise Refused("NoSuchResourceException", f"Can't find the quota: {call['QuotaCode']} for the service: ec2")
    return call["QuotaCode"]


def get_service_quota(peer: Any, call: Any) -> dict[str, Any]:
    code = known(call)
    value = peer.quotas.applied_value(call.region, code)
    if value is None:
        raise Refused("NoSuchResourceException", f"The quota {code} of the service ec2 has no applied value")
    return {"Quota": described(peer, call, code, value)}


def get_default(peer: Any, call: Any) -> dict[str, Any]:
    code = known(call)
    shown = described(peer, call, code, QUOTAS[code][3])
    shown["QuotaArn"] = f"arn:aws:servicequotas:{call.region}::ec2/{code}"
    return {"Quota": shown}


def listed(call: Any, quotas: list[dict[str, Any]]) -> dict[str, Any]:
    if call["ServiceCode"] != "ec2":
        raise Refused("NoSuchResourceException", f"Can't find the service: {call['ServiceCode']}")
    if call["QuotaCode"]:
        quotas = [quota for quota in quotas if quota["QuotaCode"] == call["QuotaCode"]]
    size = call["MaxResults"] or 100
    start = int(call["NextToken"] or 0)
    shown: dict[str, Any] = {"Quotas": quotas[start : start + size]}
    if start + size < len(quotas):
        shown["NextToken"] = str(start + size)
    return shown


def list_service_quotas(peer: Any, call: Any) -> dict[str, Any]:
    values = {code: peer.quotas.applied_value(call.region, code) for code in QUOTAS}
    return listed(call, [described(peer, call, code, value) for code, value in values.items() if value is not None])


def list_defaults(peer: Any, call: Any) -> dict[str, Any]:
    return listed(call, [described(peer, call, code, QUOTAS[code][3]) for code in QUOTAS])
