"""Which call is answered by what. What is not here, moto answers."""

from typing import Any

from . import catalogue, fleet, images, instances, pages, prices, quotas, spot

ANSWERS: dict[tuple[str, str], Any] = {
    ("ec2", "RunInstances"): instances.run_instances,
    ("ec2", "TerminateInstances"): instances.terminate_instances,
    ("ec2", "DescribeInstances"): instances.describe_instances,
    ("ec2", "DescribeInstanceTypes"): catalogue.describe_instance_types,
    ("ec2", "DescribeInstanceTypeOfferings"): catalogue.describe_instance_type_offerings,
    ("ec2", "DescribeSpotPriceHistory"): spot.describe_price_history,
    ("ec2", "DescribeSpotInstanceRequests"): spot.describe_requests,
    ("ec2", "CancelSpotInstanceRequests"): spot.cancel_requests,
    ("pricing", "GetProducts"): prices.get_products,
    ("servicequotas", "GetServiceQuota"): quotas.get_service_quota,
    ("servicequotas", "GetAWSDefaultServiceQuota"): quotas.get_default,
    ("servicequotas", "ListServiceQuotas"): quotas.list_service_quotas,
    ("servicequotas", "ListAWSDefaultServiceQuotas"): quotas.list_defaults,
    ("ec2", "DescribeRegions"): catalogue.describe_regions,
    ("ec2", "DescribeAvailabilityZones"): catalogue.describe_availability_zones,
    ("ec2", "CreateFleet"): fleet.create_fleet,
    ("ec2", "DescribeFleets"): fleet.describe_fleets,
    ("ec2", "DeleteFleets"): fleet.delete_fleets,
    ("ec2", "CreateTags"): instances.create_tags,
    ("ec2", "DeleteSecurityGroup"): instances.delete_security_group,
    ("ec2", "RequestSpotInstances"): instances.not_here,
    ("ec2", "RequestSpotFleet"): instances.not_here,
    ("ec2", "StartInstances"): instances.not_here,
    ("ec2", "StopInstances"): instances.not_here,
    ("ssm", "GetParameter"): images.get_parameter,
    ("ssm", "GetParameters"): images.get_parameters,
    ("ssm", "GetParametersByPath"): images.get_by_path,
}
ANSWERS |= {("ec2", action): pages.paged for action in pages.LISTS}
ANSWERS["ec2", "DescribeImages"] = images.describe_images
