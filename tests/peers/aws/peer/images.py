"""Images by the names that users give them: public parameters of SSM, and `resolve:ssm:` in place of an id.

| rule | from |
|---|---|
| an image may be named by a parameter | https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/finding-an-ami.html, "resolve:ssm:parameter-name", with :version or :label |
| Deep Learning AMIs | https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html: /aws/service/deeplearning/ami/{x86_64,arm64}/…/latest/ami-id |
| Ubuntu by Canonical | https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/: /aws/service/canonical/ubuntu/server/{release}/stable/current/{amd64,arm64}/hvm/{ebs-gp2,ebs-gp3}/ami-id |
| a volume is not smaller than its snapshot | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EbsBlockDevice.html, VolumeSize: "equal to or larger than the snapshot size" |

moto has the images of Amazon Linux and their parameters itself. Ids and sizes here are made up; names and shapes are not.
"""

import functools
import hashlib
from datetime import datetime, timezone
from typing import Any

from botocore.utils import parse_timestamp

from . import pages
from .catalogue import load
from .wire import Refused

DLAMI, CANONICAL = "898082745236", "099720109477"


def table() -> dict[str, tuple[str, str, str, str, int]]:
    """Parameter: name of the image, owner, architecture, root device, its size in GiB."""
    known = {}
    for machine in ("x86_64", "arm64"):
        arm = "ARM64 " if machine == "arm64" else ""
        systems = {
            "ubuntu-22.04": ("Ubuntu 22.04", "/dev/sda1"),
            "ubuntu-24.04": ("Ubuntu 24.04", "/dev/sda1"),
            "amazon-linux-2023": ("Amazon Linux 2023", "/dev/xvda"),
        }
        for system, (title, root) in systems.items():
            base = f"/aws/service/deeplearning/ami/{machine}/"
            name = f"Deep Learning {arm}Base OSS Nvidia Driver GPU AMI ({title}) 20261106"
            known[f"{base}base-oss-nvidia-driver-gpu-{system}/latest/ami-id"] = (name, DLAMI, machine, root, 75)
            for torch in ("2.7", "2.8", "2.9"):
                name = f"Deep Learning {arm}OSS Nvidia Driver AMI GPU PyTorch {torch} ({title}) 20261106"
                parameter = f"{base}oss-nvidia-driver-gpu-pytorch-{torch}-{system}/latest/ami-id"
                known[parameter] = (name, DLAMI, machine, root, 75)
    ubuntus = {"20.04": ("focal", "gp2"), "22.04": ("jammy", "gp2"), "24.04": ("noble", "gp3"), "26.04": ("resolute", "gp3")}
    for release, (codename, disk) in ubuntus.items():
        for short, machine in (("amd64", "x86_64"), ("arm64", "arm64")):
            family = "hvm-ssd" if disk == "gp2" else "hvm-ssd-gp3"
            name = f"ubuntu/images/{family}/ubuntu-{codename}-{release}-{short}-server-20261101"
            parameter = f"/aws/service/canonical/ubuntu/server/{release}/stable/current/{short}/hvm/ebs-{disk}/ami-id"
            known[parameter] = (name, CANONICAL, machine, "/dev/sda1", 8)
    return known


TABLE = table()


def id_of(region: str, parameter: str) -> str:
    """Every region has ids of its own."""
    return "ami-" + hashlib.sha256(f"{region}{parameter}".encode()).hexdigest()[:17]


def ensure(backend: Any, ids: list[str] | None) -> None:
    """Puts images among moto's: those with these ids, or all. Each costs moto milliseconds."""
    if ids is not None and all(name in backend.amis for name in ids):
        return
    from moto.ec2.models.amis import Ami

    wanted = {id_of(backend.region_name, parameter): parameter for parameter in TABLE}
    for name, parameter in wanted.items():
        if name not in backend.amis and (ids is None or name in ids):
            backend.amis[name] = image(backend, name, parameter)
    for name, about in of_moto(backend.region_name).items():
        if name not in backend.amis and (ids is None or name in ids):
            backend.amis[name] = Ami(backend, **about)


@functools.cache
def of_moto(region: str) -> dict[str, dict[str, Any]]:
    """The images that moto would have made, by id."""
    images = load("ec2/resources/amis.json")
    for path in ("latest_amis", "ecs/optimized_amis"):
        try:
            images = images + load(f"ec2/resources/{path}/{region}.json")
        except FileNotFoundError:
            pass
    for each in images:
        each["owner_alias"] = "amazon"
        if isinstance(each.get("creation_date"), str):
            each["creation_date"] = parse_timestamp(each["creation_date"]).replace(tzinfo=None)
    return {each["ami_id"]: each for each in images}


def image(backend: Any, name: str, parameter: str) -> Any:
    from moto.ec2.models.amis import Ami

    class Image(Ami):
        size = 8

        @property
        def block_device_mappings(self) -> list[dict[str, Any]]:
            [mapping] = super().block_device_mappings
            mapping["Ebs"] |= {"VolumeSize": self.size, "DeleteOnTermination": True, "VolumeType": "gp3"}
            return [mapping]

    title, owner, machine, root, size = TABLE[parameter]
    made = Image(
        backend, name, name=title, description=title, owner_id=owner, public=True,
        owner_alias="amazon" if owner == DLAMI else None, virtualization_type="hvm", architecture=machine,
        hypervisor="xen", root_device_type="ebs", root_device_name=root, region_name=backend.region_name + "a",
        image_location=f"{owner}/{title}", creation_date=datetime(2026, 11, 6),
    )
    made.size = size
    return made


def describe_images(peer: Any, call: Any) -> Any:
    ensure(peer.backend(call), call["ImageIds"])
    return pages.paged(peer, call)


def resolve(peer: Any, call: Any, name: str) -> str:
    """The id that is meant."""
    if not name.startswith("resolve:ssm:"):
        ensure(peer.backend(call), [name])
        return name
    parameter = name.removeprefix("resolve:ssm:").split(":")[0]
    value = value_of(peer, call, parameter)
    if value is None:
        raise Refused(
            "InvalidAMIID.NotFound", f"The SSM parameter '{parameter}' that the image ID refers to was not found"
        )
    ensure(peer.backend(call), [value])
    return value


def value_of(peer: Any, call: Any, parameter: str) -> str | None:
    if parameter in TABLE:
        return id_of(call.region, parameter)
    from moto.ssm.models import ssm_backends

    held = ssm_backends[call.account][call.region].get_parameters([parameter])
    for found in held.values():
        return found.value
    return None


def too_small(peer: Any, call: Any, full: dict[str, Any]) -> None:
    """Whether the root volume that is asked for holds the image."""
    image = peer.backend(call).amis[full["ImageId"]]
    size = getattr(image, "size", None)
    for device in full.get("BlockDeviceMappings") or []:
        asked = (device.get("Ebs") or {}).get("VolumeSize")
        if size and asked and device.get("DeviceName") == image.root_device_name and asked < size:
            raise Refused(
                "InvalidBlockDeviceMapping",
                f"Volume of size {asked}GB is smaller than snapshot '{image.ebs_snapshot.id}', expect size >= {size}GB",
            )


def shown(call: Any, parameter: str) -> dict[str, Any]:
    return {
        "Name": parameter,
        "Type": "String",
        "Value": id_of(call.region, parameter),
        "Version": 7,
        "LastModifiedDate": datetime(2026, 11, 6, tzinfo=timezone.utc),
        "ARN": f"arn:aws:ssm:{call.region}::parameter{parameter}",
        "DataType": "aws:ec2:image",
    }


def get_parameter(peer: Any, call: Any) -> Any:
    name = call["Name"].split(":")[0]
    return {"Parameter": shown(call, name)} if name in TABLE else peer.ask_moto(call)


def get_parameters(peer: Any, call: Any) -> Any:
    ours = [name for name in call["Names"] if name in TABLE]
    if not ours:
        return peer.ask_moto(call)
    from moto.ssm.models import ssm_backends

    others = [name for name in call["Names"] if name not in TABLE]
    held = ssm_backends[call.account][call.region].get_parameters(others) if others else {}
    found = [parameter.response_object(False, call.region) for parameter in held.values()]
    missing = [name for name in others if name not in {each["Name"] for each in found}]
    return {"Parameters": [shown(call, name) for name in ours] + found, "InvalidParameters": missing}


def get_by_path(peer: Any, call: Any) -> Any:
    path = (call["Path"] or "").rstrip("/") + "/"
    if not path.startswith(("/aws/service/deeplearning/", "/aws/service/canonical/")):
        return peer.ask_moto(call)
    names = sorted(name for name in TABLE if name.startswith(path))
    if not call["Recursive"]:
        names = [name for name in names if "/" not in name.removeprefix(path)]
    size, start = call["MaxResults"] or 10, int(call["NextToken"] or 0)
    if not 1 <= size <= 10:
        raise Refused("ValidationException", "MaxResults has to be between 1 and 10")
    said: dict[str, Any] = {"Parameters": [shown(call, name) for name in names[start : start + size]]}
    if start + size < len(names):
        said["NextToken"] = str(start + size)
    return said
