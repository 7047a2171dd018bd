"""A peer for all tests, clients of it, and what most tests launch."""

import atexit
import json
import pathlib
import subprocess
import unittest
import urllib.request
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

HERE = pathlib.Path(__file__).parent.parent

UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"

GPUS = "g5.xlarge,g5.2xlarge,g4dn.xlarge,g6.xlarge,p4d.24xlarge,p5.48xlarge,t3.micro,m5.large,c5.xlarge"


def start() -> str:
    server = subprocess.Popen([HERE / "serve", "--types", GPUS], stdout=subprocess.PIPE, text=True)
    atexit.register(end, server)
    assert server.stdout is not None
    return f"http://127.0.0.1:{server.stdout.readline().strip()}"


def end(server: Any) -> None:
    server.kill()
    server.wait()
    server.stdout.close()


URL = start()


def client(service: str, region: str = "us-east-1", key: str = "AKIDEXAMPLE", attempts: int = 1) -> Any:
    return boto3.client(
        service, region_name=region, endpoint_url=URL, aws_access_key_id=key, aws_secret_access_key="y",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


EC2 = client("ec2")


def order(path: str, body: Any = None, method: str = "POST") -> Any:
    """Asks the control API."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/_peer/{path}", data, method=method)) as answer:
        return json.load(answer)


def show(path: str) -> Any:
    return order(path, method="GET")


class PeerCase(unittest.TestCase):
    maxDiff = None

    def setUp(self) -> None:
        order("reset", {})
        # Nothing happens unless a test says so.
        order("clock", {"frozen": True})

    def run_instances(self, count: int = 1, kind: str = "g5.xlarge", ec2: Any = EC2, **more: Any) -> list[dict[str, Any]]:
        asked = {"ImageId": f"resolve:ssm:{UBUNTU}", "MinCount": count, "MaxCount": count, "InstanceType": kind}
        return ec2.run_instances(**(asked | more))["Instances"]

    def instances(self, ec2: Any = EC2, **asked: Any) -> list[dict[str, Any]]:
        pages = ec2.get_paginator("describe_instances").paginate(**asked)
        return [each for page in pages for held in page["Reservations"] for each in held["Instances"]]

    def states(self, **asked: Any) -> list[str]:
        return [each["State"]["Name"] for each in self.instances(**asked)]

    def refused(self, code: str, call: Any, *args: Any, **asked: Any) -> ClientError:
        with self.assertRaises(ClientError) as caught:
            call(*args, **asked)
        self.assertEqual(caught.exception.response["Error"]["Code"], code, str(caught.exception))
        return caught.exception

    def status(self, error: ClientError) -> int:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}


def tagged(kind: str, **tags: str) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
