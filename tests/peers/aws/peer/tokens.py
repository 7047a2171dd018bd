"""Client tokens: the same request asked again does nothing again.

| rule | from https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html |
|---|---|
| the same token and parameters: the same result, and no further effect | "any subsequent retries complete successfully without performing any further actions. However, the result might contain updated information" |
| the same token, other parameters: IdempotentParameterMismatch | "If you retry a successful request using the same client token, but one or more of the parameters are different, other than the Region or Availability Zone, the retry fails with an IdempotentParameterMismatch error" |
| only what succeeded counts | "a request that completed successfully" |
| tokens are of a region | "the exact same request, with the same client token, can be used to launch instances in a different Region" |
| RunInstances that names a zone, or a subnet: of that zone | "the same client token can be used to launch instances in other Availability Zones in the Region" |
| 64 ASCII characters at most | "a unique, case-sensitive string of up to 64 ASCII characters" |
| valid until 24 h after the end; here: for ever | 2016 edition of the page: "valid for at least 24 hours after the termination of the instance" |
"""

from typing import Any

from .wire import Refused

WITH_TOKEN = ("RunInstances", "CreateFleet", "CreateLaunchTemplate", "CreateLaunchTemplateVersion", "CreateVolume")


class Tokens:
    def __init__(self) -> None:
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
        return kept[1]

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
