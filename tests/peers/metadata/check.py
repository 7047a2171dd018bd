"""Asks a metadata service with clients of others what they make of it: check.py HOST:PORT

Prints JSON: what ec2-metadata says of the notice of EC2, and what google-auth says of Compute Engine.
"""

import json
import os
import sys

host = sys.argv[1]
# google-auth reads this when it is imported.
os.environ["GCE_METADATA_HOST"] = os.environ["GCE_METADATA_IP"] = host

import ec2_metadata
import google.auth.transport.requests
from google.auth.compute_engine import _metadata

ec2 = ec2_metadata.EC2Metadata()
ec2.service_url = f"http://{host}/latest/"
ec2.metadata_url = f"{ec2.service_url}meta-data/"
action = ec2.spot_instance_action

request = google.auth.transport.requests.Request()
print(
    json.dumps(
        {
            "instance_id": ec2.instance_id,
            "action": action and action.action,
            "time": action and action.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "on_gce": _metadata.ping(request),
            "preempted": _metadata.get(request, "instance/preempted"),
            "maintenance": _metadata.get(request, "instance/maintenance-event"),
            "project": _metadata.get_project_id(request),
        }
    )
)
