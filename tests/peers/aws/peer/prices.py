"""On-demand prices, and the Price List API that shows them.

| rule | from |
|---|---|
| products as strings of JSON, with attributes and nested terms | https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html, and the example of API_pricing_GetProducts |
| many rows for one type: systems, tenancies, capacity reservations at $0 | https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html; that some cost nothing is what makes a filter necessary |
| filters: TERM_MATCH, EQUALS, CONTAINS, ANY_OF, NONE_OF | API_pricing_Filter, Type |
| at most 100 rows a page | API_pricing_GetProducts, MaxResults: 1 to 100 |
| the API is in us-east-1, eu-central-1 and ap-south-1 | the same guide: the endpoints of the Price List Query API |
| public IPv4 addresses cost by the hour | https://aws.amazon.com/vpc/pricing/ |
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from .catalogue import offerings
from .wire import Refused

TABLE = json.loads((pathlib.Path(__file__).parent / "prices.json").read_text())

ENDPOINTS = ("us-east-1", "eu-central-1", "ap-south-1")

# System, tenancy, capacity, software, operation, and what it costs by the price of Linux.
ROWS = [
    ("Linux", "Shared", "Used", "NA", "RunInstances", 1.0, "BoxUsage"),
    ("Linux", "Shared", "AllocatedCapacityReservation", "NA", "RunInstances", 0.0, "Reservation"),
    ("Linux", "Shared", "UnusedCapacityReservation", "NA", "RunInstances", 1.0, "UnusedBox"),
    ("Linux", "Dedicated", "Used", "NA", "RunInstances", 1.06, "DedicatedUsage"),
    ("Linux", "Shared", "Used", "SQL Web", "RunInstances:0200", 1.3, "BoxUsage"),
    ("Windows", "Shared", "Used", "NA", "RunInstances:0002", 1.8, "BoxUsage"),
    ("RHEL", "Shared", "Used", "NA", "RunInstances:0010", 1.1, "BoxUsage"),
]


class Row(NamedTuple):
    """A product before it is written."""

    sku: str
    family: str
    attributes: dict[str, str]
    service: str
    unit: str
    dollars: float
    said: str


# Every region at once, a few times over.
LISTS_MAX = 64


class Prices:
    """What things cost: the table, or what a test set."""

    def __init__(self, peer: Any):
        self.peer = peer
        # By region (or "*") and type; nothing says that it is not listed.
        self.chosen: dict[tuple[str, str], float | None] = {}
        # Lists that are being paged through.
        self.lists: dict[str, list[Row]] = {}

    def set(self, region: str, kind: str, dollars: float | None) -> None:
        self.chosen[(region, kind)] = dollars

    def on_demand(self, region: str, kind: str) -> float | None:
        for key in ((region, kind), ("*", kind)):
            if key in self.chosen:
                return self.chosen[key]
        base = TABLE["on_demand"].get(kind)
        if base is None:
            about = self.peer.catalogue.all[kind]
            sort = "gpu" if "GpuInfo" in about else "other"
            if "arm64" in about["ProcessorInfo"]["SupportedArchitectures"]:
                sort = "graviton"
            base = about["VCpuInfo"]["DefaultVCpus"] * TABLE["by_vcpu"][sort]
        return base * TABLE["regions"].get(region, 1.3)


def sku(*parts: str) -> str:
    """Letters and digits that are always the same for the same product."""
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16].upper()


def products(peer: Any, service: str, regions: list[str], kinds: list[str] | None) -> Iterator[Row]:
    for region in regions:
        if region not in TABLE["regions"]:
            continue
        if service == "AmazonEC2":
            here = {row["InstanceType"] for row in offerings("region", region)}
            for kind in peer.catalogue.all:
                if kind in here and peer.catalogue.has(kind) and (kinds is None or kind in kinds):
                    yield from of_type(peer, region, kind)
            if kinds is None:
                yield storage(region)
        elif service == "AmazonVPC" and kinds is None:
            yield address(region)


def of_type(peer: Any, region: str, kind: str) -> Iterator[Row]:
    price = peer.prices.on_demand(region, kind)
    if price is None:
        return
    about = peer.catalogue.all[kind]
    prefix = TABLE["usage_prefixes"].get(region, region.upper() + "-")
    rows = [(*row, "OnDemand") for row in ROWS]
    if kind.startswith(("p4", "p5", "p6")):
        rows.append(("Linux", "Shared", "Used", "NA", "RunInstances:CB", 0.0, "BoxUsage", "CapacityBlock"))
    for system, tenancy, capacity, software, operation, factor, usage, market in rows:
        attributes = {
            "servicecode": "AmazonEC2",
            "servicename": "Amazon Elastic Compute Cloud",
            "location": TABLE["locations"].get(region, region),
            "locationType": "AWS Region",
            "regionCode": region,
            "instanceType": kind,
            "instanceFamily": "GPU instance" if "GpuInfo" in about else "General purpose",
            "currentGeneration": "Yes" if about["CurrentGeneration"] else "No",
            "vcpu": str(about["VCpuInfo"]["DefaultVCpus"]),
            "memory": f"{about['MemoryInfo']['SizeInMiB'] / 1024:g} GiB",
            "storage": "EBS only",
            "tenancy": tenancy,
            "operatingSystem": system,
            "licenseModel": "No License required",
            "usagetype": f"{prefix}{usage}:{kind}",
            "operation": operation,
            "capacitystatus": capacity,
            "preInstalledSw": software,
            "marketoption": market,
        }
        if "GpuInfo" in about:
            attributes["gpu"] = str(sum(gpu["Count"] for gpu in about["GpuInfo"]["Gpus"]))
        said = f"per On Demand {system} {kind} Instance Hour"
        name = sku(region, kind, system, tenancy, capacity, software, market)
        yield Row(name, "Compute Instance", attributes, "AmazonEC2", "Hrs", price * factor, said)


def storage(region: str) -> Row:
    prefix = TABLE["usage_prefixes"].get(region, region.upper() + "-")
    attributes = {
        "servicecode": "AmazonEC2",
        "servicename": "Amazon Elastic Compute Cloud",
        "location": TABLE["locations"].get(region, region),
        "locationType": "AWS Region",
        "regionCode": region,
        "storageMedia": "SSD-backed",
        "volumeType": "General Purpose",
        "volumeApiName": "gp3",
        "usagetype": f"{prefix}EBS:VolumeUsage.gp3",
        "operation": "",
    }
    price = TABLE["storage_gp3_month"] * TABLE["regions"].get(region, 1.3)
    said = "per GB-month of General Purpose (gp3) provisioned storage"
    return Row(sku(region, "gp3"), "Storage", attributes, "AmazonEC2", "GB-Mo", price, said)


def address(region: str) -> Row:
    prefix = TABLE["usage_prefixes"].get(region, region.upper() + "-")
    attributes = {
        "servicecode": "AmazonVPC",
        "servicename": "Amazon Virtual Private Cloud",
        "location": TABLE["locations"].get(region, region),
        "locationType": "AWS Region",
        "regionCode": region,
        "group": "VPCPublicIPv4Address",
        "groupDescription": "Hourly charge for In-use Public IPv4 Addresses",
        "usagetype": f"{prefix}PublicIPv4:InUseAddress",
        "operation": "",
    }
    said = "per In-use public IPv4 address per hour"
    return Row(sku(region, "ipv4"), "VpcIpAddress", attributes, "AmazonVPC", "Hrs", TABLE["public_ipv4"], said)


def product(row: Row) -> dict[str, Any]:
    name, family, attributes, service, unit, dollars, said = row
    term, rate = f"{name}.JRTCKXETXF", f"{name}.JRTCKXETXF.6YS6EN2CT7"
    dimension = {
        "unit": unit,
        "endRange": "Inf",
        "description": f"${dollars:g} {said}",
        "appliesTo": [],
        "rateCode": rate,
        "beginRange": "0",
        "pricePerUnit": {"USD": f"{dollars:.10f}"},
    }
    terms = {
        "priceDimensions": {rate: dimension},
        "sku": name,
        "effectiveDate": "2026-11-01T00:00:00Z",
        "offerTermCode": "JRTCKXETXF",
        "termAttributes": {},
    }
    return {
        "product": {"productFamily": family, "attributes": attributes, "sku": name},
        "serviceCode": service,
        "terms": {"OnDemand": {term: terms}},
        "version": "20261120000000",
        "publicationDate": "2026-11-20T00:00:00Z",
    }


def get_products(peer: Any, call: Any) -> dict[str, Any]:
    if call.region not in ENDPOINTS:
        raise Refused("InvalidSignatureException", f"Credential should be scoped to a valid region, not '{call.region}'.")
    service = call["ServiceCode"]
    if service not in ("AmazonEC2", "AmazonVPC"):
        raise Refused("NotFoundException", f"The service {service} was not found")
    if call["FormatVersion"] not in (None, "aws_v1"):
        raise Refused("InvalidParameterException", f"Invalid FormatVersion: {call['FormatVersion']}")
    filters = call["Filters"] or []
    size = call["MaxResults"] or 100
    if not 1 <= size <= 100:
        raise Refused("InvalidParameterException", "MaxResults has to be between 1 and 100")
    try:
        start = int(call["NextToken"] or 0)
    except ValueError as error:
        raise Refused("InvalidNextTokenException", "The pagination token is invalid.") from error
    key = f"{service} {filters}"
    lists = peer.prices.lists
    if not call["NextToken"] or key not in lists:
        while len(lists) >= LISTS_MAX:
            lists.pop(next(iter(lists)))
        regions = exact(filters, "regionCode") or named_by_location(filters) or sorted(TABLE["regions"])
        every = products(peer, service, regions, exact(filters, "instanceType"))
        lists[key] = [row for row in every if all(matches(row, one) for one in filters)]
    found = lists[key]
    shown: dict[str, Any] = {"FormatVersion": "aws_v1"}
    shown["PriceList"] = [json.dumps(product(row)) for row in found[start : start + size]]
    if len(found) > start + size:
        shown["NextToken"] = str(start + size)
    return shown


def exact(filters: list[dict[str, Any]], field: str) -> list[str] | None:
    """The values that a field may have, where a filter names them: what else there is need not be made."""
    for each in filters:
        if each["Field"] == field and each["Type"] in ("TERM_MATCH", "EQUALS"):
            return [each["Value"]]
        if each["Field"] == field and each["Type"] == "ANY_OF":
            return each["Value"].split(",")
    return None


def named_by_location(filters: list[dict[str, Any]]) -> list[str] | None:
    places = exact(filters, "location")
    return places and [region for region, place in TABLE["locations"].items() if place in places]


def matches(row: Row, one: dict[str, Any]) -> bool:
    field, kind, value = one["Field"], one["Type"], one["Value"]
    held = {"productFamily": row.family, "ServiceCode": row.service}.get(field) or row.attributes.get(field)
    if kind == "NONE_OF":
        return held not in value.split(",")
    if held is None:
        return False
    if kind == "ANY_OF":
        return held in value.split(",")
    if kind == "CONTAINS":
        return value in held
    if kind in ("TERM_MATCH", "EQUALS"):
        return held == value
    raise Refused("InvalidParameterException", f"Invalid filter type: {kind}")
