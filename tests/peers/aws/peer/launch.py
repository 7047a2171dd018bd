"""What a launch asks for, whether it is right, where it can be had, and how it is shown."""

import base64
import copy
from typing import Any

from . import catalogue, images
from .clock import moment
from .wire import Refused

USER_DATA_BYTES_MAX = 16384


def spec(peer: Any, call: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The request over its launch template, checked, with every default that the launch depends on."""
    full = dict(asked)
    named = asked.get("LaunchTemplate")
    if named:
        version, data = template(peer, call, named)
        full = {**data, **asked}
        full["TagSpecifications"] = merged_tags(data.get("TagSpecifications"), asked.get("TagSpecifications"))
        full["LaunchTemplateUsed"] = (version.template.id, str(version.number))
    if not full.get("ImageId"):
        raise Refused("MissingParameter", "The request must contain the parameter ImageId")
    full["ImageId"] = images.resolve(peer, call, full["ImageId"])
    if full["ImageId"] not in peer.backend(call).amis:
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{full['ImageId']}]' does not exist")
    full["InstanceType"] = full.get("InstanceType") or "m1.small"
    if not catalogue.known(peer, full["InstanceType"]):
        raise Refused("InvalidParameterValue", f"Invalid value '{full['InstanceType']}' for InstanceType.")
    check_user_data(full)
    images.too_small(peer, call, full)
    check_architecture(peer, call, full)
    check_tags(full.get("TagSpecifications") or [])
    key = full.get("KeyName")
    if key and key not in peer.backend(call).key_pairs:
        raise Refused("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
    if full.get("IamInstanceProfile"):
        profile(call, full)
    if full.get("NetworkInterfaces") and (full.get("SubnetId") or full.get("SecurityGroupIds")):
        raise Refused(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request",
        )
    for group in groups_asked(full):
        if peer.backend(call).get_security_group_from_id(group) is None:
            raise Refused("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    return full


def template(peer: Any, call: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A version of a launch template, and what it asks for in the shape of RunInstances."""
    backend = peer.backend(call)
    arg = {name: value for name, value in named.items() if value is not None}
    name, number = arg.get("LaunchTemplateName"), arg.get("LaunchTemplateId")
    if number is not None and number not in backend.launch_templates:
        raise Refused("InvalidLaunchTemplateId.NotFound", f"The launch template ID '{number}' does not exist.")
    if number is None and name not in backend.launch_template_name_to_ids:
        raise Refused(
            "InvalidLaunchTemplateName.NotFoundException",
            f"At least one of the launch templates specified in the request does not exist: {name}",
        )
    version = backend._get_template_from_args(arg)
    data = copy.deepcopy(version.data)
    # moto puts the tags of the template itself among those of what is launched from it.
    specifications = data.get("TagSpecifications") or []
    data["TagSpecifications"] = [each for each in specifications if each["ResourceType"] != "launch-template"]
    if data.get("UserData") is not None:
        data["UserData"] = str(data["UserData"])
    return version, data


def merged_tags(below: list[Any] | None, above: list[Any] | None) -> list[dict[str, Any]]:
    tags: dict[str, dict[str, str]] = {}
    for specification in (below or []) + (above or []):
        held = tags.setdefault(specification["ResourceType"], {})
        held.update({tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags", [])})
    return [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in held.items()]}
        for kind, held in tags.items()
    ]


def check_user_data(full: dict[str, Any]) -> None:
    text = full.get("UserData")
    if not text:
        return
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Refused("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from error
    if len(raw) > USER_DATA_BYTES_MAX:
        raise Refused("InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES_MAX} bytes")


def check_architecture(peer: Any, call: Any, full: dict[str, Any]) -> None:
    image = peer.backend(call).amis[full["ImageId"]].architecture
    machines = peer.catalogue.all[full["InstanceType"]]["ProcessorInfo"]["SupportedArchitectures"]
    if image and image not in machines:
        raise Refused(
            "InvalidParameterValue",
            f"The architecture '{','.join(machines)}' of the specified instance type does not match the architecture "
            f"'{image}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and "
            "try again.",
        )


def check_max_price(peer: Any, call: Any, full: dict[str, Any], candidates: list[str]) -> None:
    """A spot price above what one is ready to pay is a refusal."""
    most = ((full.get("InstanceMarketOptions") or {}).get("SpotOptions") or {}).get("MaxPrice")
    prices = [price for zone in candidates if (price := peer.spot.now(call.region, zone, full["InstanceType"])) is not None]
    if most and prices and float(most) < min(prices):
        raise Refused(
            "SpotMaxPriceTooLow",
            f"Your Spot request price of {most} is lower than the minimum required Spot request fulfillment price of "
            f"{min(prices)}.",
        )


def check_tags(specifications: list[dict[str, Any]]) -> None:
    allowed = ("instance", "volume", "spot-instances-request", "network-interface")
    for specification in specifications:
        kind = specification.get("ResourceType", "")
        if kind not in allowed:
            raise Refused("InvalidParameterValue", f"'{kind}' is not a valid taggable resource type for this operation.")
        check_tag_keys(specification.get("Tags", []))


def check_tag_keys(tags: list[dict[str, Any]]) -> None:
    if len(tags) > 50:
        raise Refused("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
    seen = set()
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if key.lower().startswith("aws:"):
            raise Refused(
                "InvalidParameterValue",
                "Tag keys starting with 'aws:' are reserved for internal use",
            )
        if not key or len(key) > 128:
            raise Refused("InvalidParameterValue", f"Tag key '{key}' must be between 1 and 128 characters long.")
        if len(value) > 256:
            raise Refused("InvalidParameterValue", f"Tag value of '{key}' exceeds the maximum length of 256 characters")
        if key in seen:
            raise Refused("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        seen.add(key)


def groups_asked(full: dict[str, Any]) -> list[str]:
    nics = full.get("NetworkInterfaces") or []
    return [group for nic in nics for group in nic.get("Groups") or []] + (full.get("SecurityGroupIds") or [])


def zones(peer: Any, call: Any, full: dict[str, Any]) -> list[str]:
    """Where it may start: the zone that was named, or those that have the type."""
    kind = full["InstanceType"]
    offered = catalogue.zones_of(peer, call.region, kind)
    nics = full.get("NetworkInterfaces") or [{}]
    subnet = full.get("SubnetId") or nics[0].get("SubnetId")
    placed = full.get("Placement") or {}
    named = placed.get("AvailabilityZone")
    if subnet:
        zone = peer.backend(call).get_subnet(subnet).availability_zone
        if named and named != zone:
            raise Refused(
                "InvalidParameterValue",
                f"The specified subnet '{subnet}' is in availability zone {zone}, not in {named}",
            )
        named = zone
    elif named and named not in catalogue.zones(peer, call):
        raise Refused("InvalidParameterValue", f"Invalid availability zone: [{named}]")
    if not named and offered:
        return offered
    if named in offered:
        return [named]
    if named and offered:
        raise Refused(
            "Unsupported",
            f"Your requested instance type ({kind}) is not supported in your requested Availability Zone ({named}). "
            f"Please retry your request by not specifying an Availability Zone or choosing {', '.join(offered)}.",
        )
    raise Refused(
        "Unsupported",
        "The requested configuration is currently not supported. Please check the documentation for supported configurations.",
    )


def place(
    peer: Any, call: Any, kind: str, candidates: list[str], least: int, most: int, spot: bool
) -> tuple[str, int]:
    """The zone that has the most of it, the first of several, and how many."""
    free = {zone: min(most, peer.capacity.free(call.region, zone, kind, spot)) for zone in candidates}
    zone = max(candidates, key=lambda zone: free[zone])
    if free[zone] >= least:
        return zone, free[zone]
    raise no_capacity(peer, call, kind, candidates, spot)


def no_capacity(peer: Any, call: Any, kind: str, candidates: list[str], spot: bool) -> Refused:
    code = "InsufficientInstanceCapacity"
    if spot:
        return Refused(code, "There is no Spot capacity available that matches your request.", 500)
    if len(candidates) > 1:
        return Refused(
            code,
            f"We currently do not have sufficient {kind} capacity in zones with support for 'gp3' volumes. Our system will be "
            "working on provisioning additional capacity.",
            500,
        )
    zone = candidates[0]
    others = [
        other
        for other in catalogue.zones_of(peer, call.region, kind)
        if other != zone and peer.capacity.free(call.region, other, kind, spot) > 0
    ]
    hint = f" or choosing {', '.join(others)}" if others else ""
    return Refused(
        code,
        f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). Our system "
        f"will be working on provisioning additional capacity. You can currently get {kind} capacity by not specifying an "
        f"Availability Zone in your request{hint}.",
        500,
    )


def at_moto(peer: Any, call: Any, full: dict[str, Any], zone: str, count: int) -> Any:
    """Has moto make them, in the zone, with everything that they were asked to have."""
    backend = peer.backend(call)
    nics = copy.deepcopy(full.get("NetworkInterfaces") or [])
    subnet = full.get("SubnetId") or (nics[0].get("SubnetId") if nics else None)
    if not subnet:
        default = backend.get_default_subnets().get(zone)
        if default is None:
            raise Refused("MissingInput", f"No subnets found for the default VPC in '{zone}'. Please specify a subnet.")
        subnet = default.id
    groups = groups_asked(full)
    public = None
    if nics:
        nics[0].setdefault("DeviceIndex", 0)
        nics[0]["SubnetId"] = subnet
        public = nics[0].get("AssociatePublicIpAddress")
    if not groups and not full.get("SecurityGroups"):
        groups = [backend.get_security_group_from_name("default", backend.get_subnet(subnet).vpc_id).id]
    tags = {each["ResourceType"]: {tag["Key"]: tag.get("Value", "") for tag in each.get("Tags", [])}
            for each in full.get("TagSpecifications") or []}
    if full.get("LaunchTemplateUsed"):
        name, number = full["LaunchTemplateUsed"]
        own = {"aws:ec2launchtemplate:id": name, "aws:ec2launchtemplate:version": number}
        tags["instance"] = {**own, **tags.get("instance", {})}
    devices = mappings(backend.amis[full["ImageId"]], full)
    user_data = full.get("UserData")
    from moto.core.types import Base64EncodedString

    reservation = backend.run_instances(
        full["ImageId"],
        count,
        Base64EncodedString(user_data) if user_data else None,
        full.get("SecurityGroups") or [],
        instance_type=full["InstanceType"],
        is_instance_type_default=True,
        region_name=call.region,
        subnet_id=None if nics else subnet,
        nics=nics,
        security_group_ids=[] if nics and full.get("NetworkInterfaces")[0].get("Groups") else groups,
        associate_public_ip=public,
        key_name=full.get("KeyName"),
        private_ip=full.get("PrivateIpAddress"),
        tags=tags,
        ebs_optimized=full.get("EbsOptimized") or False,
        instance_initiated_shutdown_behavior=full.get("InstanceInitiatedShutdownBehavior"),
        disable_api_termination=full.get("DisableApiTermination") or False,
        metadata_options=full.get("MetadataOptions") or {},
        monitoring_state="enabled" if (full.get("Monitoring") or {}).get("Enabled") else "disabled",
        client_token=full.get("ClientToken"),
        block_device_mappings=devices,
    )
    finish(backend, reservation, full, tags, devices)
    return reservation


def mappings(image: Any, full: dict[str, Any]) -> list[dict[str, Any]]:
    """The image's own root, as the request changes it, and what the request adds: under another name, another volume."""
    root = {"VolumeSize": getattr(image, "size", 8), "VolumeType": "gp3"}
    devices: dict[str, dict[str, Any]] = {image.root_device_name: {"DeviceName": image.root_device_name, "Ebs": root}}
    for device in full.get("BlockDeviceMappings") or []:
        name, ebs = device.get("DeviceName"), device.get("Ebs") or {}
        base = root if name == image.root_device_name else {"VolumeSize": 8}
        devices[name] = {"DeviceName": name, "NoDevice": device.get("NoDevice"), "Ebs": {**base, **ebs}}
    for device in devices.values():
        # What is there from the start goes with the instance, unless the request says otherwise.
        device["Ebs"].setdefault("DeleteOnTermination", True)
    return list(devices.values())


def finish(
    backend: Any, reservation: Any, full: dict[str, Any], tags: dict[str, dict[str, str]], devices: list[dict[str, Any]]
) -> None:
    """What moto leaves out: the tags and the end of interfaces, and what a volume can do."""
    nics = full.get("NetworkInterfaces") or [{}]
    asked = {device["DeviceName"]: device["Ebs"] for device in devices}
    for inst in reservation.instances:
        for nic in inst.nics.values():
            nic.add_tags(tags.get("network-interface", {}))
            # One that was made for an instance goes with it.
            nic.delete_on_termination = nics[0].get("DeleteOnTermination") is not False
        for device, block in inst.get_block_device_mapping:
            volume = backend.volumes.get(block.volume_id)
            ebs = asked.get(device, {})
            if volume is not None:
                volume.volume_type = ebs.get("VolumeType") or "gp3"
                volume.iops = ebs.get("Iops") or (3000 if volume.volume_type == "gp3" else None)
                volume.throughput = ebs.get("Throughput") or (125 if volume.volume_type == "gp3" else None)


def profile(call: Any, full: dict[str, Any]) -> dict[str, str] | None:
    """The instance profile: it has to be there."""
    asked = full.get("IamInstanceProfile") or {}
    if not asked:
        return None
    from moto.iam.models import iam_backends

    for held in iam_backends[call.account]["aws"].instance_profiles.values():
        if asked.get("Arn") == held.arn or asked.get("Name") == held.name:
            return {"Arn": held.arn, "Id": held.id}
    which = "arn" if asked.get("Arn") else "name"
    said = asked.get("Arn") or asked.get("Name")
    raise Refused(
        "InvalidParameterValue",
        f"Value ({said}) for parameter iamInstanceProfile.{which} is invalid. Invalid IAM Instance Profile {which}",
    )


def networks(inst: Any) -> list[dict[str, Any]]:
    seen = []
    for index, nic in inst.nics.items():
        seen.append(
            {
                "NetworkInterfaceId": nic.id,
                "SubnetId": nic.subnet.id,
                "VpcId": nic.subnet.vpc_id,
                "PrivateIpAddress": nic.private_ip_address,
                "Status": "in-use",
                "Groups": [{"GroupId": group.id, "GroupName": group.name} for group in nic.group_set],
                "Attachment": {"DeviceIndex": int(index), "Status": "attached", "AttachmentId": nic.attachment_id,
                               "DeleteOnTermination": True},
            }
        )
    return seen


def view(machine: Any, state: tuple[float, str, tuple[str, str] | None]) -> dict[str, Any]:
    """An instance as DescribeInstances shows it."""
    from .instances import CODES

    inst = machine.inst
    since, name, reason = state
    gone = name == "terminated"
    first = machine.networks[0] if machine.networks else {}
    shown: dict[str, Any] = {
        "AmiLaunchIndex": inst.ami_launch_index,
        "ImageId": inst.image_id,
        "InstanceId": machine.id,
        "InstanceType": machine.type,
        "LaunchTime": moment(machine.launched),
        "Monitoring": {"State": inst.monitoring_state},
        "Placement": {"AvailabilityZone": machine.zone, "GroupName": "", "Tenancy": "default"},
        "State": {"Code": CODES[name], "Name": name},
        "StateTransitionReason": inst._reason if reason else "",
        "Architecture": inst.architecture,
        "BlockDeviceMappings": [],
        "ClientToken": machine.token or "",
        "EbsOptimized": bool(inst.ebs_optimized),
        "EnaSupport": True,
        "Hypervisor": "xen",
        "NetworkInterfaces": [],
        "RootDeviceName": inst.root_device_name,
        "RootDeviceType": "ebs",
        "SecurityGroups": [] if gone else first.get("Groups", []),
        "Tags": [{"Key": key, "Value": value} for key, value in list(machine.tags.items())],
        "VirtualizationType": "hvm",
        "MetadataOptions": {
            "State": "applied",
            "HttpTokens": inst.metadata_options.http_tokens,
            "HttpPutResponseHopLimit": inst.metadata_options.http_put_response_hop_limit,
            "HttpEndpoint": inst.metadata_options.http_endpoint,
            "InstanceMetadataTags": inst.metadata_options.instance_metadata_tags,
        },
    }
    if inst.key_name:
        shown["KeyName"] = inst.key_name
    if machine.lifecycle == "spot":
        shown["InstanceLifecycle"] = "spot"
        shown["SpotInstanceRequestId"] = machine.spot_request
    # What is terminated is shown without its profile, groups and network.
    if machine.profile and not gone:
        shown["IamInstanceProfile"] = machine.profile
    if reason:
        shown["StateReason"] = {"Code": reason[0], "Message": reason[1]}
    elif name == "pending":
        shown["StateReason"] = {"Code": "pending", "Message": "pending"}
    if not gone:
        dashed = (machine.address or "").replace(".", "-")
        domain = "ec2.internal" if machine.region == "us-east-1" else f"{machine.region}.compute.internal"
        shown |= {
            "PrivateIpAddress": machine.address,
            "PrivateDnsName": f"ip-{dashed}.{domain}",
            "SubnetId": first.get("SubnetId"),
            "VpcId": first.get("VpcId"),
            "NetworkInterfaces": machine.networks,
        }
        # The public address comes while it starts.
        if machine.public_address and name != "pending":
            shown["PublicIpAddress"] = machine.public_address
    if name in ("running", "shutting-down"):
        shown["BlockDeviceMappings"] = [
            {
                "DeviceName": device,
                "Ebs": {"VolumeId": block.volume_id, "Status": "attached", "AttachTime": moment(machine.launched),
                        "DeleteOnTermination": bool(block.delete_on_termination)},
            }
            for device, block in inst.get_block_device_mapping
        ]
    return shown

