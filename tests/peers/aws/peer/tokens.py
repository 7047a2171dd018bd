"""Client tokens: the same request asked again does nothing again.

| rule | from https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html |
|---|---|
| the same token and parameters: the same result, and no further effect | "any subsequent retries complete successfully without performing any further actions. However, the result might contain updated information" |
| the same token, other parameters: IdempotentParameterMismatch | "If you retry a successful request using the same client token, but one or more of the parameters are different, other than the Region or Availability Zone, the retry fails with an IdempotentParameterMismatch error" |
| only what succeeded counts | "a request that completed successfully" |
| tokens are of a region | "the exact same request, with the same client token, can be used to launch instances in a different Region" |
| RunInstances that names a zone, or a subnet: of that zone | "the same client token can be used to launch instances in other Availability Zones in the Region" |
| 64 ASCII characters at most | "a unique, case-sensitive string of up to 64 ASCII characters" |
| once its instances are terminated: the same, or IdempotentInstanceTerminated | "any subsequent retries complete successfully"; but https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html has "uses the same client token as a previous request for which the instance has been terminated". Both are reported: https://github.com/boto/boto3/issues/4406 of 2025 the second, https://github.com/harbor-framework/harbor/pull/2346 of 2026 the first |
| valid until 24 h after the end; here: for ever | 2016 edition of the page: "valid for at least 24 hours after the termination of the instance" |
"""

from typing import Any

from .wire import Refused

WITH_TOKEN = ("RunInstances", "CreateFleet", "CreateLaunchTemplate", "CreateLaunchTemplateVersion", "CreateVolume")


# What a token answers once its instances are terminated: the same; or a refusal, if any is, if all are, or once they are not
# even shown any more. What AWS does, and when, its pages do not say: tests of a client want all of these.
AFTER_END = ("same", "refused-if-any", "refused-if-all", "refused-if-forgotten")


class Tokens:
    def __init__(self) -> None:
        self.after_end = AFTER_END[0]
        self.kept: dict[tuple[str, ...], tuple[tuple[tuple[str, str], ...], Any]] = {}

    def scope(self, peer: Any, call: Any) -> tuple[str, ...] | None:
        """Under what a token is remembered; nothing where the call has none."""
        token = call.params.get("ClientToken")
        if not token or call.service != "ec2" or call.action not in WITH_TOKEN or call.params.get("DryRun"):
            return None
        if len(token) > 64 or not token.isascii():
            raise Refused("InvalidParameterValue", "Client token is too long")
        zone = zone_of(peer, call) if call.action == "RunInstances" else ""
        return (call.account, call.region, zone, call.action, token)

    def replay(self, scope: tuple[str, ...], call: Any) -> Any:
        """The answer that was given before, or nothing."""
        kept = self.kept.get(scope)
        if kept is None:
            return None
        if kept[0] != asked(call):
            raise Refused(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        self.check_end(getattr(kept[1], "machines", []))
        return kept[1]

    def check_end(self, machines: list[Any]) -> None:
        ended = [machine for machine in machines if machine.state == "terminated"]
        forgotten = [machine for machine in machines if machine.forgotten]
        refused = {
            "same": False,
            "refused-if-any": bool(ended),
            "refused-if-all": len(ended) == len(machines) > 0,
            "refused-if-forgotten": len(forgotten) == len(machines) > 0,
        }
        if not refused[self.after_end]:
            return
        raise Refused(
            "IdempotentInstanceTerminated",
            "The client token you have provided is associated with a terminated instance. Please use a different client "
            "token.",
        )

    def keep(self, scope: tuple[str, ...], call: Any, result: Any) -> None:
        self.kept[scope] = (asked(call), result)


def asked(call: Any) -> tuple[tuple[str, str], ...]:
    """All that was asked for, without what may differ."""
    return tuple(sorted((name, value) for name, value in call.form.items() if name not in ("ClientToken", "Version")))


def zone_of(peer: Any, call: Any) -> str:
    placed = call.params.get("Placement", {})
    if placed.get("AvailabilityZone") or placed.get("AvailabilityZoneId"):
        return placed.get("AvailabilityZone") or placed["AvailabilityZoneId"]
    nics = call.params.get("NetworkInterfaces") or [{}]
    subnet = call.params.get("SubnetId") or nics[0].get("SubnetId")
    return peer.zone_of_subnet(call, subnet) if subnet else ""
