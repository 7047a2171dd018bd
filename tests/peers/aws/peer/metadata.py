"""What an instance finds out about itself, for agents that tests start outside of any cloud.

| rule | from |
|---|---|
| version 2: a token by PUT, then the token with every question | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html |
| no notice: 404; a notice: what is done, and when | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html: "{"action": "terminate", "time": "2017-09-18T08:22:00Z"}" |
| rebalance recommendations | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html: "{"noticeTime": …}" |
| where tokens are required, questions without one get 401 | the first page: "401 Unauthorized" |
"""

import base64
import json
from typing import Any

from .clock import moment
from .wire import Answer

TOKEN = "AQAEAtoken-of-this-peer=="


def answer(machine: Any, method: str, path: str, headers: Any) -> Answer:
    """What the service at 169.254.169.254 would say on this machine."""
    if path == "/latest/api/token":
        seconds = headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        if method != "PUT" or not seconds:
            return said(400, "Bad Request")
        return Answer(200, {"Content-Type": "text/plain", "X-aws-ec2-metadata-token-ttl-seconds": seconds}, TOKEN.encode())
    token = headers.get("X-aws-ec2-metadata-token")
    if token != TOKEN and (token is not None or machine.inst.metadata_options.http_tokens == "required"):
        return said(401, "Unauthorized")
    if machine.state not in ("pending", "running", "shutting-down"):
        return said(503, "the machine is off")
    value = known(machine).get(path.rstrip("/"))
    return said(404, "Not Found") if value is None else said(200, value)


def known(machine: Any) -> dict[str, str | None]:
    meta = "/latest/meta-data"
    ends = machine.interrupted_at and moment(machine.interrupted_at).strftime("%Y-%m-%dT%H:%M:%SZ")
    user_data = machine.spec.get("UserData")
    document = {
        "accountId": machine.inst.owner_id, "architecture": machine.inst.architecture, "availabilityZone": machine.zone,
        "imageId": machine.inst.image_id, "instanceId": machine.id, "instanceType": machine.type,
        "pendingTime": moment(machine.launched).strftime("%Y-%m-%dT%H:%M:%SZ"), "privateIp": machine.address,
        "region": machine.region, "version": "2017-09-30",
    }
    return {
        f"{meta}/instance-id": machine.id,
        f"{meta}/instance-type": machine.type,
        f"{meta}/ami-id": machine.inst.image_id,
        f"{meta}/ami-launch-index": str(machine.inst.ami_launch_index),
        f"{meta}/instance-life-cycle": machine.lifecycle,
        f"{meta}/reservation-id": machine.reservation,
        f"{meta}/local-ipv4": machine.address,
        f"{meta}/public-ipv4": machine.public_address,
        f"{meta}/placement/availability-zone": machine.zone,
        f"{meta}/placement/region": machine.region,
        f"{meta}/spot/instance-action": json.dumps({"action": "terminate", "time": ends}) if ends else None,
        f"{meta}/spot/termination-time": ends or None,
        f"{meta}/events/recommendations/rebalance": machine.recommended and json.dumps({"noticeTime": machine.recommended}),
        "/latest/user-data": base64.b64decode(user_data).decode("utf-8", "surrogateescape") if user_data else None,
        "/latest/dynamic/instance-identity/document": json.dumps(document),
    }


def said(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/plain"}, text.encode("utf-8", "surrogateescape"))
