"""The control API, `/_peer/…`: what tests order. README.md shows each by example."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from .faults import Fault
from .instances import SHUT_DOWN_ITSELF
from .tokens import AFTER_END


class NoSuch(Exception):
    """There is no such thing to order."""


def control(peer: Any, method: str, path: str, asked: Any) -> Any:
    name, _, query = path.removeprefix("/_peer/").partition("?")
    order = ORDERS.get((method, name))
    if order is None:
        raise NoSuch(f"no {method} /_peer/{name}; there are {sorted(' '.join(each) for each in ORDERS)}")
    if method == "GET":
        asked = {key: values[-1] for key, values in parse_qs(query).items()}
    with peer.lock:
        return order(peer, asked)


def health(peer: Any, _: Any) -> Any:
    return {"ok": True, "port": peer.port}


def log(peer: Any, asked: dict[str, str]) -> Any:
    """Calls since the start or the reset, or `?from=N`, those of one `?action=`."""
    entries = peer.log[int(asked.get("from", 1)) - 1 :]
    if "action" in asked:
        entries = [entry for entry in entries if entry["action"] == asked["action"]]
    return {"calls": entries}


def clear_log(peer: Any, _: Any) -> Any:
    peer.log.clear()
    return {}


def reset(peer: Any, _: Any) -> Any:
    peer.reset()
    return {}


def add_faults(peer: Any, asked: Any) -> Any:
    """One order or several, after those that there are."""
    orders = asked if isinstance(asked, list) else [asked]
    peer.faults.orders += [Fault(order) for order in orders]
    return {"faults": len(peer.faults.orders)}


def show_faults(peer: Any, _: Any) -> Any:
    return {"faults": [{**fault.order, "hits": fault.hits, "left": fault.left} for fault in peer.faults.orders]}


def clear_faults(peer: Any, _: Any) -> Any:
    peer.faults.orders.clear()
    return {}


def set_capacity(peer: Any, asked: dict[str, Any]) -> Any:
    """All limits, instead of those that there were."""
    peer.capacity.set(asked["limits"])
    return {}


def show_capacity(peer: Any, _: Any) -> Any:
    return {"limits": peer.capacity.limits}


def set_lag(peer: Any, asked: dict[str, Any]) -> Any:
    unknown = set(asked) - set(peer.instances.lag)
    if unknown:
        raise ValueError(f"no such lag: {sorted(unknown)}; there are {sorted(peer.instances.lag)}")
    peer.instances.lag |= {name: float(value) for name, value in asked.items()}
    return peer.instances.lag


def advance(peer: Any, asked: dict[str, Any]) -> Any:
    peer.clock.advance(float(asked["secs"]))
    return {"now": peer.clock.seconds()}


def set_clock(peer: Any, asked: dict[str, Any]) -> Any:
    if "frozen" in asked:
        peer.clock.freeze(bool(asked["frozen"]))
    if "skew_secs" in asked:
        peer.skew_seconds = float(asked["skew_secs"])
    return {"now": peer.clock.seconds(), "frozen": peer.clock.frozen_at is not None, "skew_secs": peer.skew_seconds}


def show_instances(peer: Any, asked: dict[str, str]) -> Any:
    """What there really is, whatever listings show: also what ended, until it is forgotten."""
    return {
        "instances": [
            {
                "id": machine.id, "region": machine.region, "zone": machine.zone, "type": machine.type,
                "lifecycle": machine.lifecycle, "state": machine.state, "launched": machine.launched,
                "token": machine.token, "fleet": machine.fleet, "tags": dict(machine.tags),
                "user_data": machine.spec.get("UserData"), "private_ip": machine.address,
                "reason": machine.life[-1][2],
            }
            for machine in peer.instances.everywhere()
            if asked.get("alive") is None or machine.alive
        ]
    }


def set_quotas(peer: Any, asked: dict[str, Any]) -> Any:
    """What is applied: `{"quotas": [{"region": "*", "code": "L-417A185B", "vcpus": 192}]}`."""
    for each in asked["quotas"]:
        peer.quotas.set(each.get("region", "*"), each["code"], each["vcpus"])
    return {}


def set_prices(peer: Any, asked: dict[str, Any]) -> Any:
    """On-demand prices; null where none is listed."""
    for each in asked["prices"]:
        peer.prices.set(each.get("region", "*"), each["type"], each["usd"])
    return {}


def set_spot_prices(peer: Any, asked: dict[str, Any]) -> Any:
    """Series of changes, `[seconds, dollars]` each; seconds of 0 or less are counted from now."""
    now = peer.clock.seconds()
    for each in asked["series"]:
        changes = [(now + when if when <= 0 else float(when), float(dollars)) for when, dollars in each["changes"]]
        peer.spot.set(each["region"], each.get("zone", "*"), each["type"], changes)
    return {}


def interrupt(peer: Any, asked: dict[str, Any]) -> Any:
    notice, status = float(asked.get("notice_secs", 120)), asked.get("status", "instance-terminated-no-capacity")
    return peer.spot.interrupt(machine_of(peer, asked["instance"]), notice, status)


def rebalance(peer: Any, asked: dict[str, Any]) -> Any:
    machine = machine_of(peer, asked["instance"])
    machine.recommended = peer.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    return peer.events.rebalance(machine)


def end(peer: Any, asked: dict[str, Any]) -> Any:
    """An end that nobody asked for: `Server.InternalError`, or whatever code is named."""
    code = asked.get("code", "Server.InternalError")
    message = asked.get("message", "Internal error on launch")
    peer.instances.end(machine_of(peer, asked["instance"]), (code, f"{code}: {message}"))
    peer.clock.settle()
    return {}


def shut_down(peer: Any, asked: dict[str, Any]) -> Any:
    """The machine shuts itself down from within: its end, where its shutdown behaviour is to terminate."""
    machine = machine_of(peer, asked["instance"])
    if machine.inst.instance_initiated_shutdown_behavior == "terminate":
        peer.instances.end(machine, SHUT_DOWN_ITSELF)
        peer.clock.settle()
    elif machine.state == "running":
        machine.become(peer.clock.seconds(), "stopped", SHUT_DOWN_ITSELF)
    return {"state": machine.state}


def metadata(peer: Any, asked: dict[str, Any]) -> Any:
    """A metadata service for one instance, at a port of its own."""
    from .server import serve_metadata

    port = serve_metadata(peer, machine_of(peer, asked["instance"]))
    return {"port": port, "endpoint": f"http://127.0.0.1:{port}"}


def machine_of(peer: Any, name: str) -> Any:
    for machine in peer.instances.everywhere():
        if machine.id == name:
            return machine
    raise ValueError(f"no instance {name}")


def set_types(peer: Any, asked: dict[str, Any]) -> Any:
    """Which types there are; an empty list: all of AWS's."""
    peer.catalogue.keep(asked["types"])
    return {}


def set_denied(peer: Any, asked: dict[str, Any]) -> Any:
    """Actions that are refused, instead of those that were: `ec2:RunInstances`, `RunInstances`, `ec2:Describe*`."""
    peer.access.denied = list(asked["actions"])
    return {}


def set_policy(peer: Any, asked: dict[str, Any]) -> Any:
    """A policy of IAM, whose actions alone are allowed; null: all are."""
    policy = asked["policy"]
    statements = policy and (policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]])
    peer.access.policy = statements
    return {}


def show_actions(peer: Any, _: Any) -> Any:
    """The IAM actions that calls needed since the start or the reset, with how many."""
    counts: dict[str, int] = {}
    for entry in peer.log:
        for action in entry.get("needs", []):
            counts[action] = counts.get(action, 0) + 1
    return {"actions": dict(sorted(counts.items()))}


def set_access(peer: Any, asked: dict[str, Any]) -> Any:
    """Keys that are expired or invalid, and regions that are not enabled."""
    if "keys" in asked:
        if set(asked["keys"].values()) - {"expired", "invalid"}:
            raise ValueError("a key is expired or invalid")
        peer.access.keys = asked["keys"]
    if "disabled_regions" in asked:
        peer.access.disabled_regions = set(asked["disabled_regions"])
    return {}


def set_tokens(peer: Any, asked: dict[str, Any]) -> Any:
    if asked["after_end"] not in AFTER_END:
        raise ValueError(f"after_end is one of {AFTER_END}")
    peer.tokens.after_end = asked["after_end"]
    return {}


def set_throttle(peer: Any, asked: dict[str, Any]) -> Any:
    peer.throttle.set(asked["rules"])
    return {}


ORDERS: dict[tuple[str, str], Callable[[Any, Any], Any]] = {
    ("GET", "health"): health,
    ("GET", "log"): log,
    ("DELETE", "log"): clear_log,
    ("POST", "reset"): reset,
    ("POST", "faults"): add_faults,
    ("GET", "faults"): show_faults,
    ("DELETE", "faults"): clear_faults,
    ("POST", "capacity"): set_capacity,
    ("GET", "capacity"): show_capacity,
    ("POST", "lag"): set_lag,
    ("POST", "advance"): advance,
    ("POST", "clock"): set_clock,
    ("GET", "instances"): show_instances,
    ("POST", "quotas"): set_quotas,
    ("POST", "prices"): set_prices,
    ("POST", "spot-prices"): set_spot_prices,
    ("POST", "interrupt"): interrupt,
    ("POST", "rebalance"): rebalance,
    ("POST", "end"): end,
    ("POST", "shutdown"): shut_down,
    ("POST", "metadata"): metadata,
    ("POST", "types"): set_types,
    ("POST", "deny"): set_denied,
    ("POST", "policy"): set_policy,
    ("GET", "actions"): show_actions,
    ("POST", "access"): set_access,
    ("POST", "tokens"): set_tokens,
    ("POST", "throttle"): set_throttle,
}
