"""Events of EC2, to the queues that rules of EventBridge target.

| rule | from |
|---|---|
| a warning two minutes before, by event and by metadata | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html, the event of its example |
| the ARN in the warning has the zone where others have region and account | the same: "arn:aws:ec2:us-east-2a:instance/i-1234567890abcdef0" |
| a queue gets it only if its policy lets events.amazonaws.com in | https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sqs-permissions |
| each change of state is an event | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html |
"""

import json
import uuid
from typing import Any

from .clock import moment


class Events:
    def __init__(self, peer: Any):
        self.peer = peer

    def interruption(self, machine: Any) -> dict[str, Any]:
        arn = f"arn:aws:ec2:{machine.zone}:instance/{machine.id}"
        detail = {"instance-id": machine.id, "instance-action": "terminate"}
        return self.send(machine.region, "EC2 Spot Instance Interruption Warning", arn, detail)

    def rebalance(self, machine: Any) -> dict[str, Any]:
        arn = f"arn:aws:ec2:{machine.zone}:instance/{machine.id}"
        return self.send(machine.region, "EC2 Instance Rebalance Recommendation", arn, {"instance-id": machine.id})

    def state(self, machine: Any, state: str) -> None:
        arn = f"arn:aws:ec2:{machine.region}:{machine.inst.owner_id}:instance/{machine.id}"
        detail = {"instance-id": machine.id, "state": state}
        self.send(machine.region, "EC2 Instance State-change Notification", arn, detail)

    def send(self, region: str, kind: str, arn: str, detail: dict[str, str]) -> dict[str, Any]:
        """Puts the event into every queue that a rule of the default bus targets. Says which got it, and which did not."""
        from .peer import ACCOUNT

        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": kind,
            "source": "aws.ec2",
            "account": ACCOUNT,
            "time": moment(self.peer.clock.seconds()).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": region,
            "resources": [arn],
            "detail": detail,
        }
        said: dict[str, Any] = {"delivered": [], "refused": []}
        for rule in self.rules(ACCOUNT, region):
            if rule.state != "ENABLED" or not rule.event_pattern.matches_event(event):
                continue
            for target in rule.targets:
                _, _, _, service, where, account, name = ("x:" + target["Arn"]).split(":", 6)
                if service == "sqs":
                    said["delivered" if deliver(account, where, name, event) else "refused"].append(target["Arn"])
        return said

    def rules(self, account: str, region: str) -> list[Any]:
        # Without a call to it, nothing of it need be loaded.
        if "events" not in self.peer.moto.app_instances:
            return []
        from moto.events.models import events_backends

        bus = events_backends[account][region].event_buses.get("default")
        return list(bus.rules.values()) if bus is not None else []


def deliver(account: str, region: str, name: str, event: dict[str, Any]) -> bool:
    from moto.sqs.models import sqs_backends

    backend = sqs_backends[account][region]
    queue = backend.queues.get(name)
    if queue is None or "events.amazonaws.com" not in json.dumps(queue.policy or {}):
        return False
    backend.send_message(name, json.dumps(event))
    return True
