"""Faults that tests order: errors, delays, and connections that end without an answer.

| rule | from |
|---|---|
| an answer may be lost whether or not the call took effect | https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html: "Operations might also time out or encounter other server issues before they complete" |
| a request may take effect after its sender gave up on it | the same: results are returned "before the operation's asynchronous workflows have completed" |
| capacity errors are HTTP 500, throttling is 503 | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html: server errors "indicate a server-side issue"; RequestLimitExceeded is answered with 503 |
"""

import fnmatch
from typing import Any

# What AWS answers with where a test names only the code.
STATUS = {
    "InsufficientInstanceCapacity": 500,
    "InsufficientHostCapacity": 500,
    "InsufficientCapacity": 500,
    "InsufficientReservedInstanceCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "InternalServerError": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
    "ServiceUnavailable": 503,
    "ServiceUnavailableException": 503,
    "SlowDown": 503,
    "UnauthorizedOperation": 403,
    "AuthFailure": 401,
    "InvalidClientTokenId": 403,
    "SignatureDoesNotMatch": 403,
    "AccessDenied": 403,
    "ExpiredToken": 400,
    "AccessDeniedException": 400,
    "ThrottlingException": 400,
    "DryRunOperation": 412,
}

FIELDS = {
    "action", "service", "times", "after", "match", "code", "message", "status", "delay_ms", "drop", "later_secs",
    "after_effect",
}


class Fault:
    """One order. `times` calls get it (all, without), once `after` calls that match have passed."""

    def __init__(self, order: dict[str, Any]):
        unknown = set(order) - FIELDS
        if unknown:
            raise ValueError(f"no such field of a fault: {sorted(unknown)}")
        if order.get("drop") not in (None, "before", "after", "later"):
            raise ValueError("drop is before, after or later")
        self.order = order
        self.left = order.get("times")
        self.skip = order.get("after", 0)
        self.hits = 0

    def takes(self, call: Any) -> bool:
        """Whether this call gets it; counts it if so."""
        if not fnmatch.fnmatchcase(call.action, self.order.get("action", "*")):
            return False
        if self.order.get("service", call.service) != call.service or self.left == 0:
            return False
        if not matches(self.order.get("match"), call):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        self.hits += 1
        return True


def matches(wanted: dict[str, Any] | str | None, call: Any) -> bool:
    """Whether a call has these parameters: `{"InstanceType": "p5.48xlarge", "region": "us-east-1"}`, a value or several to
    choose from, nested names with dots, any element of a list; or a piece of text that it holds anywhere."""
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return wanted in call.text()
    for name, value in wanted.items():
        held = [call.region] if name == "region" else found(call.params, name.split("."))
        allowed = value if isinstance(value, list) else [value]
        if not {str(each) for each in held} & {str(each) for each in allowed}:
            return False
    return True


def found(value: Any, path: list[str]) -> list[Any]:
    if isinstance(value, list):
        return [each for item in value for each in found(item, path)]
    if not path:
        return [value]
    if isinstance(value, dict):
        return found(value.get(path[0], []), path[1:])
    return []


class Faults:
    def __init__(self) -> None:
        self.orders: list[Fault] = []

    def first(self, call: Any) -> dict[str, Any] | None:
        """The first order that takes this call."""
        for fault in self.orders:
            if fault.takes(call):
                return fault.order
        return None
