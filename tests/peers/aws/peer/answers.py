"""Which call is answered by what. What is not here, moto answers."""

from . import catalogue, instances

ANSWERS = {
    ("ec2", "RunInstances"): instances.run_instances,
    ("ec2", "TerminateInstances"): instances.terminate_instances,
    ("ec2", "DescribeInstances"): instances.describe_instances,
    ("ec2", "DescribeInstanceTypes"): catalogue.describe_instance_types,
    ("ec2", "DescribeInstanceTypeOfferings"): catalogue.describe_instance_type_offerings,
}
