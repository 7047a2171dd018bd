"""Spot prices, requests and interruptions."""

import datetime
import json
import urllib.error
import urllib.request

from .common import EC2, SPOT, PeerCase, client, order, show


def at(seconds):
    return datetime.datetime.fromtimestamp(show_now() + seconds, datetime.timezone.utc)


def show_now():
    return order("clock", {})["now"]


class Prices(PeerCase):
    def history(self, **asked):
        pages = EC2.get_paginator("describe_spot_price_history").paginate(
            **({"InstanceTypes": ["g5.xlarge"], "ProductDescriptions": ["Linux/UNIX"]} | asked)
        )
        return [row for page in pages for row in page["SpotPriceHistory"]]

    def set(self, *changes, zone="us-east-1a"):
        series = {"region": "us-east-1", "zone": zone, "type": "g5.xlarge", "changes": changes}
        order("spot-prices", {"series": [series]})

    def test_the_price_in_force_at_the_start_is_part_of_it(self):
        self.set([-7200, 0.5], [-3600, 0.4], [-60, 0.3])
        rows = self.history(StartTime=at(-1800), AvailabilityZone="us-east-1a")
        self.assertEqual([row["SpotPrice"] for row in rows], ["0.300000", "0.400000"])
        rows = self.history(StartTime=at(-1800), EndTime=at(-600), AvailabilityZone="us-east-1a")
        self.assertEqual([row["SpotPrice"] for row in rows], ["0.400000"])
        rows = self.history(StartTime=at(0), AvailabilityZone="us-east-1a")
        self.assertEqual([row["SpotPrice"] for row in rows], ["0.300000"])

    def test_a_change_comes_when_the_clock_gets_there(self):
        now = show_now()
        self.set([-60, 0.3], [now + 100, 0.9])
        self.assertEqual(self.history(StartTime=at(0), AvailabilityZone="us-east-1a")[0]["SpotPrice"], "0.300000")
        order("advance", {"secs": 100})
        self.assertEqual(self.history(StartTime=at(0), AvailabilityZone="us-east-1a")[0]["SpotPrice"], "0.900000")

    def test_the_usual_prices_are_sane_and_always_the_same(self):
        rows = self.history(StartTime=at(-5 * 86400))
        self.assertGreater(len({row["SpotPrice"] for row in rows}), 10)
        self.assertTrue(all(0.2 < float(row["SpotPrice"]) < 0.6 for row in rows))
        self.assertGreater(len({row["AvailabilityZone"] for row in rows}), 2)
        self.assertEqual(rows, self.history(StartTime=at(-5 * 86400)))
        times = [row["Timestamp"] for row in rows]
        self.assertEqual(times, sorted(times, reverse=True))

    def test_pages_end_in_an_empty_token(self):
        asked = {"InstanceTypes": ["g5.xlarge"], "MaxResults": 100}
        first = EC2.describe_spot_price_history(**asked)
        self.assertEqual(len(first["SpotPriceHistory"]), 100)
        self.assertTrue(first["NextToken"])
        now = EC2.describe_spot_price_history(InstanceTypes=["g5.xlarge"], StartTime=at(0))
        self.assertEqual(now["NextToken"], "")
        self.assertEqual(len(self.history()), len(self.history(PaginationConfig={"PageSize": 7})))

    def test_other_systems_cost_more(self):
        rows = self.history(ProductDescriptions=[], StartTime=at(0), AvailabilityZone="us-east-1a")
        self.assertEqual(len(rows), 4)
        linux = [row for row in rows if row["ProductDescription"] == "Linux/UNIX"]
        self.assertEqual(min(float(row["SpotPrice"]) for row in rows), float(linux[0]["SpotPrice"]))


class Interruptions(PeerCase):
    def queue(self, policy=True):
        sqs, events = client("sqs"), client("events")
        who = {"Service": "events.amazonaws.com"}
        allow = {"Effect": "Allow", "Principal": who, "Action": "sqs:SendMessage", "Resource": "*"}
        attributes = {"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allow]})} if policy else {}
        url = sqs.create_queue(QueueName="events", Attributes=attributes)["QueueUrl"]
        events.put_rule(Name="spot", EventPattern=json.dumps({"source": ["aws.ec2"]}))
        events.put_targets(Rule="spot", Targets=[{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:events"}])

        def receive():
            said = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            return [json.loads(message["Body"]) for message in said.get("Messages", [])]

        return receive

    def test_a_warned_instance_is_taken_back_after_the_notice(self):
        receive = self.queue()
        [made] = self.run_instances(**SPOT)
        self.assertEqual(self.states(), ["running"])
        receive()
        order("interrupt", {"instance": made["InstanceId"], "notice_secs": 120})
        [event] = receive()
        self.assertEqual(event["detail-type"], "EC2 Spot Instance Interruption Warning")
        self.assertEqual(event["detail"], {"instance-id": made["InstanceId"], "instance-action": "terminate"})
        zone = made["Placement"]["AvailabilityZone"]
        self.assertEqual(event["resources"], [f"arn:aws:ec2:{zone}:instance/{made['InstanceId']}"])
        order("advance", {"secs": 119})
        self.assertEqual(self.states(), ["running"])
        order("advance", {"secs": 1})
        [ended] = self.instances()
        self.assertEqual(ended["State"]["Name"], "terminated")
        self.assertEqual(ended["StateReason"]["Code"], "Server.SpotInstanceTermination")
        [request] = EC2.describe_spot_instance_requests()["SpotInstanceRequests"]
        self.assertEqual((request["State"], request["Status"]["Code"]), ("closed", "instance-terminated-no-capacity"))
        self.assertEqual([each["detail"]["state"] for each in receive()], ["shutting-down", "terminated"])

    def test_without_a_policy_of_the_queue_nothing_arrives(self):
        receive = self.queue(policy=False)
        [made] = self.run_instances(**SPOT)
        said = order("interrupt", {"instance": made["InstanceId"]})
        self.assertEqual((said["delivered"], len(said["refused"])), ([], 1))
        self.assertEqual(receive(), [])

    def test_ended_by_us_before_the_notice_is_over_it_was_us(self):
        [made] = self.run_instances(**SPOT)
        order("interrupt", {"instance": made["InstanceId"], "status": "instance-terminated-by-price"})
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        order("advance", {"secs": 200})
        [ended] = self.instances()
        self.assertEqual(ended["StateReason"]["Code"], "Client.UserInitiatedShutdown")
        [request] = EC2.describe_spot_instance_requests()["SpotInstanceRequests"]
        self.assertEqual(request["Status"]["Code"], "instance-terminated-by-user")

    def test_a_cancelled_request_leaves_its_instance(self):
        [made] = self.run_instances(**SPOT)
        EC2.cancel_spot_instance_requests(SpotInstanceRequestIds=[made["SpotInstanceRequestId"]])
        self.assertEqual(self.states(), ["running"])
        cancelled = [{"Name": "state", "Values": ["cancelled"]}]
        [request] = EC2.describe_spot_instance_requests(Filters=cancelled)["SpotInstanceRequests"]
        self.assertEqual(request["Status"]["Code"], "request-canceled-and-instance-running")


class Metadata(PeerCase):
    def ask(self, endpoint, path, token=None, method="GET", **headers):
        if token:
            headers["X-aws-ec2-metadata-token"] = token
        request = urllib.request.Request(endpoint + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    def test_an_instance_finds_its_notice(self):
        [made] = self.run_instances(UserData="#!/bin/sh\n", MetadataOptions={"HttpTokens": "required"}, **SPOT)
        endpoint = order("metadata", {"instance": made["InstanceId"]})["endpoint"]
        self.assertEqual(self.ask(endpoint, "/latest/meta-data/instance-id")[0], 401)
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        status, token = self.ask(endpoint, "/latest/api/token", method="PUT", **lifetime)
        self.assertEqual(status, 200)
        self.assertEqual(self.ask(endpoint, "/latest/meta-data/instance-id", token), (200, made["InstanceId"]))
        self.assertEqual(self.ask(endpoint, "/latest/user-data", token), (200, "#!/bin/sh\n"))
        notice = "/latest/meta-data/spot/instance-action"
        self.assertEqual(self.ask(endpoint, notice, token)[0], 404)
        order("interrupt", {"instance": made["InstanceId"], "notice_secs": 120})
        status, text = self.ask(endpoint, notice, token)
        ends = datetime.datetime.fromisoformat(json.loads(text)["time"])
        self.assertEqual((status, json.loads(text)["action"]), (200, "terminate"))
        self.assertLess(abs(ends.timestamp() - show_now() - 120), 1.5)
