"""Who may do what: denied actions, policies, credentials, regions, and clocks that differ.

| rule | from |
|---|---|
| every call of EC2 can be tried dry: DryRunOperation or UnauthorizedOperation | API_RunInstances, DryRun: "If you have the required permissions, the error response is DryRunOperation. Otherwise, it is UnauthorizedOperation" |
| EC2 says why in an encoded message | https://docs.aws.amazon.com/STS/latest/APIReference/API_DecodeAuthorizationMessage.html |
| tags at creation need ec2:CreateTags, a profile iam:PassRole, resolve:ssm: ssm:GetParameters, fleets ec2:RunInstances | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html, troubleshooting-launch, finding-an-ami, ec2-fleet-prerequisites |
| a batch of messages needs what one needs | https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_AddPermission.html: "Specifying SendMessage, DeleteMessage, or ChangeMessageVisibility … also grants permissions for the corresponding batch versions" |
| GetCallerIdentity needs no permission | API_GetCallerIdentity: "No permissions are required to perform this operation" |
| Allow and no Deny; `*` and `?` in names | https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_action.html |
| a signature more than five minutes off is refused | https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html |
| regions that are not enabled refuse credentials | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, AuthFailure |
"""

import base64
import calendar
import fnmatch
import os
import time
from typing import Any

from . import wire
from .wire import Refused

USER = "arn:aws:iam::123456789012:user/moto"

IAM_NAMES = {"s3": "s3", "monitoring": "cloudwatch"}


class Access:
    def __init__(self, peer: Any):
        self.peer = peer
        self.denied: list[str] = []
        self.policy: list[dict[str, Any]] | None = None
        # By access key: expired or invalid.
        self.keys: dict[str, str] = {}
        self.disabled_regions: set[str] = set()

    def check(self, call: Any, entry: dict[str, Any]) -> None:
        """Refuses a call that may not be made. What it needs goes into the log."""
        self.check_credentials(call)
        needed = needs(self.peer, call)
        entry["needs"] = needed
        for action in needed:
            if not self.may(action):
                raise not_authorized(call, action)

    def may(self, action: str) -> bool:
        if action == "sts:GetCallerIdentity":
            return True
        if any(named(action, [pattern if ":" in pattern else f"*:{pattern}"]) for pattern in self.denied):
            return False
        if self.policy is None:
            return True
        effects = [each["Effect"] for each in self.policy if named(action, listed(each.get("Action", [])))]
        return "Allow" in effects and "Deny" not in effects

    def check_credentials(self, call: Any) -> None:
        signed = call.environ.get("HTTP_AUTHORIZATION", "")
        key = signed.split("Credential=")[-1].split("/")[0]
        state = self.keys.get(key)
        if state == "expired":
            raise by_service(call, ("RequestExpired", 400), ("ExpiredToken", 403), ("ExpiredTokenException", 400),
                             "The security token included in the request is expired")
        if state == "invalid" or call.region in self.disabled_regions:
            if call.service == "ec2":
                raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
            raise by_service(call, ("AuthFailure", 401), ("InvalidClientTokenId", 403), ("UnrecognizedClientException", 400),
                             "The security token included in the request is invalid.")
        self.check_clock(call)

    def check_clock(self, call: Any) -> None:
        stamp = call.environ.get("HTTP_X_AMZ_DATE", "")
        if not self.peer.skew_seconds or not stamp:
            return
        signed = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
        if abs(signed - time.time() - self.peer.skew_seconds) > 300:
            raise by_service(call, ("RequestExpired", 400), ("SignatureDoesNotMatch", 403), ("InvalidSignatureException", 400),
                             "Request has expired.")


def by_service(call: Any, ec2: tuple[str, int], query: tuple[str, int], json: tuple[str, int], message: str) -> Refused:
    """The same refusal has another name at every service."""
    protocol = wire.protocol_of(call.service)
    code, status = {"ec2": ec2, "json": json}.get(protocol, query)
    return Refused(code, message, status)


def dry(call: Any) -> bool:
    """Whether it ends here as tried dry. Launches look at what they are asked for first."""
    asked = call.service == "ec2" and call.params.get("DryRun")
    return bool(asked) and call.action not in ("RunInstances", "CreateFleet")


def dry_run() -> Refused:
    return Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


def not_authorized(call: Any, action: str) -> Refused:
    because = f"because no identity-based policy allows the {action} action"
    if call.service == "ec2":
        encoded = base64.urlsafe_b64encode(os.urandom(240)).decode()
        return Refused(
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. User: {USER} is not authorized to perform: {action} on "
            f"resource: arn:aws:ec2:{call.region}:{call.account}:* {because}. Encoded authorization failure message: {encoded}",
            403,
        )
    return by_service(call, ("UnauthorizedOperation", 403), ("AccessDenied", 403), ("AccessDeniedException", 400),
                      f"User: {USER} is not authorized to perform: {action} {because}")


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def named(action: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def needs(peer: Any, call: Any) -> list[str]:
    """The IAM actions that a call needs, itself first. Of services that name them by path, S3 among them, none."""
    if wire.protocol_of(call.service) == "rest":
        return []
    action = call.action.removesuffix("Batch") if call.service == "sqs" else call.action
    needed = [f"{IAM_NAMES.get(call.service, call.service)}:{action}"]
    if call.service != "ec2":
        return needed
    params = call.params
    if params.get("TagSpecifications") and call.action != "CreateTags":
        needed.append("ec2:CreateTags")
    specs = [params]
    if call.action == "CreateFleet":
        needed.append("ec2:RunInstances")
        configs = params.get("LaunchTemplateConfigs") or []
        specs = [{"LaunchTemplate": config.get("LaunchTemplateSpecification")} for config in configs]
    if call.action in ("RunInstances", "CreateFleet"):
        for spec in specs:
            for each in (spec, template_data(peer, call, spec.get("LaunchTemplate"))):
                if each.get("IamInstanceProfile"):
                    needed.append("iam:PassRole")
                if str(each.get("ImageId", "")).startswith("resolve:ssm:"):
                    needed.append("ssm:GetParameters")
                if each.get("TagSpecifications"):
                    needed.append("ec2:CreateTags")
    return list(dict.fromkeys(needed))


def template_data(peer: Any, call: Any, named_template: dict[str, Any] | None) -> dict[str, Any]:
    from . import launch

    if not named_template:
        return {}
    try:
        return launch.template(peer, call, named_template)[1]
    except Exception:
        # Whether it exists is for the call to say.
        return {}
