"""Rates: buckets of tokens, by region and action.

| rule | from |
|---|---|
| a bucket for each action, refilled at a rate; an empty one refuses with RequestLimitExceeded | https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html: "Amazon EC2 uses the token bucket algorithm to implement API throttling" |
| RunInstances and TerminateInstances also have a bucket of instances | the same, resource rate limiting: "each RunInstances request … removes … tokens" for each instance |
| per account and region | the same: "throttles EC2 API requests for each AWS account on a per-Region basis" |
| other services: ThrottlingException, TooManyRequestsException | the errors in their models |
"""

import fnmatch
from typing import Any

from . import wire
from .wire import Refused


# The buckets of every account, as far as the page names them for what bursar calls.
USUAL = [
    {"action": "RunInstances", "capacity": 5, "refill_per_sec": 2},
    {"action": "RunInstances", "capacity": 1000, "refill_per_sec": 2, "per": "instance"},
    {"action": "TerminateInstances", "capacity": 100, "refill_per_sec": 5},
    {"action": "TerminateInstances", "capacity": 1000, "refill_per_sec": 20, "per": "instance"},
    {"action": "Describe*", "capacity": 100, "refill_per_sec": 20},
]


class Throttle:
    def __init__(self, peer: Any):
        self.peer = peer
        self.rules: list[dict[str, Any]] = []
        self.buckets: dict[tuple[int, str, str], tuple[float, float]] = {}

    def set(self, rules: list[dict[str, Any]] | str) -> None:
        if isinstance(rules, str):
            if rules != "usual":
                raise ValueError("rules are a list, or usual")
            rules = USUAL
        for rule in rules:
            if set(rule) - {"action", "service", "capacity", "refill_per_sec", "per"} or "capacity" not in rule:
                raise ValueError(f"a rule has action, capacity and refill_per_sec, and per request or instance: {rule}")
        self.rules, self.buckets = rules, {}

    def check(self, call: Any) -> None:
        now = self.peer.clock.seconds()
        for index, rule in enumerate(self.rules):
            if not fnmatch.fnmatchcase(call.action, rule.get("action", "*")) or rule.get("service", "ec2") != call.service:
                continue
            cost = instances_of(call) if rule.get("per") == "instance" else 1
            key = (index, call.region, call.action)
            held, since = self.buckets.get(key, (float(rule["capacity"]), now))
            held = min(float(rule["capacity"]), held + (now - since) * rule.get("refill_per_sec", 0))
            # What is refused takes nothing.
            self.buckets[key] = (held - cost if held >= cost else held, now)
            if held < cost:
                raise limited(call)


def instances_of(call: Any) -> int:
    if call.action == "CreateFleet":
        return (call.params.get("TargetCapacitySpecification") or {}).get("TotalTargetCapacity", 1)
    return call.params.get("MaxCount") or len(call.params.get("InstanceIds") or []) or 1


def limited(call: Any) -> Refused:
    if call.service == "ec2":
        return Refused("RequestLimitExceeded", "Request limit exceeded.", 503)
    if call.service == "servicequotas":
        return Refused("TooManyRequestsException", "Rate exceeded", 400)
    code = "ThrottlingException" if wire.protocol_of(call.service) == "json" else "Throttling"
    return Refused(code, "Rate exceeded", 400)
