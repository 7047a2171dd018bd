"""Instances: how many start, what they are when, and how they end. Each is one of moto's, with its life beside it.

| rule | from |
|---|---|
| as many as can be had between MinCount and MaxCount, in one zone | API_RunInstances, MaxCount: "Amazon EC2 launches the largest possible number of instances above the specified minimum count", MinCount: "… more capacity than Amazon EC2 can provide in the target Availability Zone, Amazon EC2 does not launch any instances" |
| AmiLaunchIndex is 0..n-1 | API_Instance, amiLaunchIndex: "The AMI launch index, which can be used to find this instance in the launch group" |
| user data of more than 16,384 bytes is refused | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html: "User data is limited to 16 KB, in raw form, before it is base64-encoded" |
| no tag of a user starts with aws: | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html: "The aws: prefix is reserved for AWS use" |
| ended instances are shown for an hour | API_TerminateInstances: "Terminated instances remain visible after termination (for approximately one hour)" |
| ending several is all or nothing | API_TerminateInstances: "If you specify multiple instances and the request fails … none of the instances are terminated" |
| listings and ids may be late | https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html: "the result of an API command … might not be immediately visible to all subsequent commands", InvalidInstanceID.NotFound among its errors |
| volumes and interfaces that came with an instance go with it | API_TerminateInstances: "By default, Amazon EC2 deletes all EBS volumes that were attached when the instance launched" |
| a security group in use stays | API_DeleteSecurityGroup: "that is associated with an instance or network interface … the operation fails with DependencyViolation" |
| no zone named: one that has the type is chosen | API_Placement: "If neither is specified, Amazon EC2 automatically selects an Availability Zone within the Region" |
"""

from typing import Any

from . import launch
from .access import dry_run
from .clock import moment, naive
from .wire import Answer, Refused, answer

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

SHUT_DOWN_ITSELF = ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")

ENDED_BY_USER = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")


class Machine:
    """An instance and its life: every state that it was in, with the second that this began."""

    def __init__(self, region: str, inst: Any, spec: dict[str, Any], launched: float):
        self.region, self.inst, self.spec, self.launched = region, inst, spec, launched
        self.id = inst.id
        self.type = inst.instance_type
        self.zone = inst.availability_zone
        self.lifecycle = "on-demand"
        self.token: str | None = None
        self.spot_request: str | None = None
        self.fleet: str | None = None
        self.profile: dict[str, str] | None = None
        self.reservation = ""
        self.tags: dict[str, str] = {}
        self.address = inst.private_ip
        self.public_address = inst.public_ip
        self.networks = launch.networks(inst)
        self.life: list[tuple[float, str, tuple[str, str] | None]] = []
        # Whether it ended so long ago that nothing shows it any more.
        self.forgotten = False
        # When a spot instance that was warned is taken back.
        self.interrupted_at: float | None = None
        # When a rebalance was recommended, as metadata says it.
        self.recommended: str | None = None

    def become(self, when: float, state: str, reason: tuple[str, str] | None = None) -> None:
        self.life.append((when, state, reason))
        self.inst._state.name, self.inst._state.code = state, CODES[state]

    @property
    def state(self) -> str:
        return self.life[-1][1]

    @property
    def alive(self) -> bool:
        """Whether it takes capacity and counts against quotas."""
        return self.state in ("pending", "running", "stopping")

    def at(self, when: float) -> tuple[float, str, tuple[str, str] | None] | None:
        """Its state then; nothing before its launch."""
        for entry in reversed(self.life):
            if entry[0] <= when:
                return entry
        return None


class Instances:
    """All machines, by region, and how late the cloud is."""

    def __init__(self, peer: Any):
        self.peer = peer
        self.machines: dict[str, dict[str, Machine]] = {}
        self.reservations: dict[str, list[Machine]] = {}
        self.lag = {
            # How long an instance is pending, and how long shutting-down.
            "pending_secs": 0.0,
            "shutting_down_secs": 0.0,
            # How old what DescribeInstances shows is, and from which age on an id is known.
            "listing_secs": 0.0,
            "id_secs": 0.0,
            # How long what ended still counts against quotas.
            "quota_secs": 0.0,
            # How long what ended is shown.
            "terminated_shown_secs": 3600.0,
        }

    def here(self, region: str) -> dict[str, Machine]:
        return self.machines.setdefault(region, {})

    def everywhere(self) -> list[Machine]:
        return [machine for region in self.machines.values() for machine in region.values()]

    def start(
        self, call: Any, spec: dict[str, Any], zone: str, count: int, spot: bool, fleet: str | None = None
    ) -> list[Machine]:
        """Launches them; whether they can be had was asked before."""
        clock = self.peer.clock
        now = clock.seconds()
        reservation = launch.at_moto(self.peer, call, spec, zone, count)
        machines = []
        for inst in reservation.instances:
            inst.launch_time = naive(now)
            machine = Machine(call.region, inst, spec, now)
            machine.reservation = reservation.id
            machine.profile = launch.profile(call, spec)
            machine.tags = self.peer.backend(call).tags[inst.id]
            machine.fleet = fleet
            if fleet is not None:
                machine.tags["aws:ec2:fleet-id"] = fleet
            if spot:
                machine.lifecycle = inst.lifecycle = "spot"
            machine.become(now, "pending")
            clock.at(now + self.lag["pending_secs"], lambda machine=machine: self.run(machine))
            self.here(call.region)[machine.id] = machine
            machines.append(machine)
        self.reservations[reservation.id] = machines
        self.peer.started(machines, spec)
        return machines

    def run(self, machine: Machine) -> None:
        if machine.state == "pending":
            machine.become(machine.launched + self.lag["pending_secs"], "running")
            self.peer.events.state(machine, "running")

    def end(self, machine: Machine, reason: tuple[str, str]) -> None:
        """Begins its end; ended already, nothing."""
        if machine.state in ("shutting-down", "terminated"):
            return
        now = self.peer.clock.seconds()
        machine.become(now, "shutting-down", reason)
        machine.inst._reason = transition(reason, now)
        self.peer.events.state(machine, "shutting-down")
        if machine.lifecycle == "spot":
            self.peer.spot.close(machine, "instance-terminated-by-user")
        self.peer.clock.at(now + self.lag["shutting_down_secs"], lambda: self.ended(machine, reason, now))

    def ended(self, machine: Machine, reason: tuple[str, str], began: float) -> None:
        said = machine.inst._reason
        # Its volumes and interfaces go with it, in moto.
        machine.inst._spot_fleet_id = machine.inst._fleet_id = None
        machine.inst.terminate()
        machine.inst._reason = said
        machine.inst.state_reason.code, machine.inst.state_reason.message = reason
        now = began + self.lag["shutting_down_secs"]
        machine.become(now, "terminated", reason)
        self.peer.events.state(machine, "terminated")
        self.peer.clock.at(now + self.lag["terminated_shown_secs"], lambda: self.forget(machine))

    def forget(self, machine: Machine) -> None:
        machine.forgotten = True
        machine.inst.ec2_backend.tags.pop(machine.id, None)
        self.here(machine.region).pop(machine.id, None)
        reservations = machine.inst.ec2_backend.reservations
        held = reservations.get(machine.reservation)
        if held is not None:
            held.instances = [inst for inst in held.instances if inst.id != machine.id]
            if not held.instances:
                reservations.pop(machine.reservation, None)

    def named(self, call: Any, ids: list[str], known_after: float) -> list[Machine]:
        """Those with these ids. One unknown, or too new to be known, and the call fails."""
        now = self.peer.clock.seconds()
        machines, missing = [], []
        for name in ids:
            machine = self.here(call.region).get(name)
            if machine is None or machine.launched + known_after > now:
                missing.append(name)
            else:
                machines.append(machine)
        for name in missing:
            hexadecimal = name.removeprefix("i-")
            if name == hexadecimal or len(hexadecimal) not in (8, 17) or set(hexadecimal) - set("0123456789abcdef"):
                raise Refused("InvalidInstanceID.Malformed", f'Invalid id: "{name}"')
        if len(missing) == 1:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{missing[0]}' does not exist")
        if missing:
            raise Refused("InvalidInstanceID.NotFound", f"The instance IDs '{', '.join(missing)}' do not exist")
        return machines


def transition(reason: tuple[str, str], now: float) -> str:
    """As seen in what others report of describe-instances. Of one that shut itself down, it says nothing."""
    when = moment(now).strftime("%Y-%m-%d %H:%M:%S GMT")
    if reason == SHUT_DOWN_ITSELF:
        return ""
    return f"User initiated ({when})" if reason[0].startswith("Client.") else f"Service initiated ({when})"


def run_instances(peer: Any, call: Any) -> Answer:
    spec = launch.spec(peer, call, call.params)
    least, most = call["MinCount"], call["MaxCount"]
    if not least or not most or least < 1 or most < least:
        raise Refused("InvalidParameterValue", f"Value ({most}) for parameter maxCount is invalid.")
    market = spec.get("InstanceMarketOptions", {}).get("MarketType")
    spot = market == "spot"
    zones = launch.zones(peer, call, spec)
    if call["DryRun"]:
        raise dry_run()
    peer.quotas.check(call, spec["InstanceType"], most, spot)
    if spot:
        launch.check_max_price(peer, call, spec, zones)
    zone, count = launch.place(peer, call, spec["InstanceType"], zones, least, most, spot)
    machines = peer.instances.start(call, spec, zone, count, spot)
    for machine in machines:
        machine.token = call["ClientToken"]

    def say() -> Answer:
        return answer("ec2", "RunInstances", reservation_view(machines, peer.clock.seconds()))

    said = say()
    said.again, said.machines = say, machines
    return said


def reservation_view(machines: list[Machine], when: float) -> dict[str, Any]:
    first = machines[0]
    return {
        "ReservationId": first.reservation,
        "OwnerId": first.inst.owner_id,
        "Groups": [],
        "Instances": [launch.view(machine, machine.at(when) or machine.life[0]) for machine in machines],
    }


def terminate_instances(peer: Any, call: Any) -> dict[str, Any]:
    ids = list(dict.fromkeys(call["InstanceIds"] or []))
    if not ids:
        raise Refused("MissingParameter", "The request must contain the parameter InstanceId")
    machines = peer.instances.named(call, ids, peer.instances.lag["id_secs"])
    for machine in machines:
        if machine.inst.disable_api_termination is True:
            raise Refused(
                "OperationNotPermitted",
                f"The instance '{machine.id}' may not be terminated. Modify its 'disableApiTermination' instance "
                "attribute and try again.",
            )
    changes = []
    for machine in machines:
        before = machine.state
        peer.instances.end(machine, ENDED_BY_USER)
        after = machine.state
        changes.append(
            {
                "InstanceId": machine.id,
                "CurrentState": {"Code": CODES[after], "Name": after},
                "PreviousState": {"Code": CODES[before], "Name": before},
            }
        )
    return {"TerminatingInstances": changes}


def describe_instances(peer: Any, call: Any) -> dict[str, Any]:
    from . import filters

    instances = peer.instances
    now = peer.clock.seconds()
    ids = call["InstanceIds"]
    if ids and call["MaxResults"]:
        raise Refused(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    if ids:
        shown, when = instances.named(call, list(dict.fromkeys(ids)), instances.lag["id_secs"]), now
    else:
        shown, when = list(instances.here(call.region).values()), now - instances.lag["listing_secs"]
    wanted = filters.parse(call["Filters"], filters.INSTANCE)
    groups: dict[str, list[Any]] = {}
    for machine in shown:
        state = machine.at(when)
        if state is not None and filters.holds(wanted, machine, state):
            groups.setdefault(machine.reservation, []).append((machine, state))
    reservations, token = filters.page(call, list(groups.items()), 5, 1000, weigh=lambda group: len(group[1]))
    views = []
    for name, members in reservations:
        seen = [launch.view(machine, state) for machine, state in members]
        views.append(
            {"ReservationId": name, "OwnerId": members[0][0].inst.owner_id, "Groups": [], "Instances": seen}
        )
    return {"Reservations": views, "NextToken": token}


def create_tags(peer: Any, call: Any) -> Any:
    launch.check_tag_keys(call["Tags"] or [])
    ids = [name for name in call["Resources"] or [] if name.startswith("i-")]
    peer.instances.named(call, ids, peer.instances.lag["id_secs"])
    return peer.ask_moto(call)


def delete_security_group(peer: Any, call: Any) -> Any:
    """A group that an interface is in cannot go: moto lets it."""
    backend = peer.backend(call)
    group = call["GroupId"]
    for nic in backend.enis.values():
        if group in [held.id for held in nic.group_set]:
            raise Refused("DependencyViolation", f"resource {group} has a dependent object")
    return peer.ask_moto(call)


def not_here(peer: Any, call: Any) -> Any:
    """What moto would do on instances that this peer would not know of, or whose life it would not follow."""
    raise Refused("InvalidAction", f"this peer has no {call.action}", 501)
