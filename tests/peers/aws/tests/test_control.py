"""Faults, rates, permissions, the log."""

import time
import urllib.error

from .common import EC2, UBUNTU, PeerCase, client, order, show, tagged


class Faults(PeerCase):
    def test_a_fault_hits_as_often_as_it_says_and_what_it_names(self):
        code = "InsufficientInstanceCapacity"
        match = {"InstanceType": "g5.xlarge"}
        order("faults", {"action": "RunInstances", "times": 2, "after": 1, "code": code, "match": match})
        self.run_instances()
        self.run_instances(kind="t3.micro")
        for _ in range(2):
            error = self.refused("InsufficientInstanceCapacity", self.run_instances)
            self.assertEqual(self.status(error), 500)
        self.run_instances()
        self.assertEqual(show("faults")["faults"][0]["hits"], 2)

    def test_a_fault_may_name_a_region_or_what_is_nested(self):
        order("faults", [
            {"action": "DescribeInstances", "code": "Unavailable", "match": {"region": ["eu-west-1", "eu-west-2"]}},
            {"action": "RunInstances", "code": "InternalError", "match": {"Placement.AvailabilityZone": "us-east-1b"}},
            {"action": "RunInstances", "code": "RequestLimitExceeded", "match": {"TagSpecifications.Tags.Key": "bad"}},
        ])
        EC2.describe_instances()
        self.refused("Unavailable", client("ec2", "eu-west-1").describe_instances)
        self.refused("InternalError", self.run_instances, Placement={"AvailabilityZone": "us-east-1b"})
        error = self.refused("RequestLimitExceeded", self.run_instances, TagSpecifications=[tagged("instance", bad="x")])
        self.assertEqual(self.status(error), 503)
        order("faults", method="DELETE")
        client("ec2", "eu-west-1").describe_instances()

    def test_faults_of_other_services_are_in_their_own_form(self):
        order("faults", {"service": "pricing", "code": "ThrottlingException", "message": "Rate exceeded"})
        self.refused("ThrottlingException", client("pricing").get_products, ServiceCode="AmazonEC2")
        order("faults", {"service": "sts", "code": "ExpiredToken"})
        self.refused("ExpiredToken", client("sts").get_caller_identity)

    def test_a_slow_call_is_slow(self):
        order("faults", {"action": "DescribeInstances", "times": 1, "delay_ms": 200})
        began = time.monotonic()
        EC2.describe_instances()
        self.assertGreater(time.monotonic() - began, 0.2)

    def test_the_sdk_tries_again_what_was_throttled(self):
        order("faults", {"action": "DescribeInstances", "times": 2, "code": "RequestLimitExceeded"})
        client("ec2", attempts=3).describe_instances()
        codes = [call["code"] for call in show("log?action=DescribeInstances")["calls"]]
        self.assertEqual(codes, ["RequestLimitExceeded", "RequestLimitExceeded", None])

    def test_a_fault_that_says_nonsense_is_refused(self):
        for wrong in ({"actoin": "RunInstances"}, {"drop": "sometimes"}):
            with self.assertRaises(urllib.error.HTTPError) as caught:
                order("faults", wrong)
            caught.exception.close()


class Rates(PeerCase):
    def test_an_empty_bucket_refuses_until_it_is_refilled(self):
        order("throttle", {"rules": [{"action": "DescribeInstances", "capacity": 2, "refill_per_sec": 1}]})
        for _ in range(2):
            EC2.describe_instances()
        self.assertEqual(self.status(self.refused("RequestLimitExceeded", EC2.describe_instances)), 503)
        client("ec2", "us-west-2").describe_instances()
        order("advance", {"secs": 1})
        EC2.describe_instances()
        self.refused("RequestLimitExceeded", EC2.describe_instances)

    def test_launches_have_a_bucket_of_instances(self):
        order("throttle", {"rules": [{"action": "RunInstances", "capacity": 5, "refill_per_sec": 2, "per": "instance"}]})
        self.run_instances(4)
        self.refused("RequestLimitExceeded", self.run_instances, 2)
        order("advance", {"secs": 0.5})
        self.run_instances(2)


    def test_the_usual_rates_are_those_of_every_account(self):
        order("throttle", {"rules": "usual"})
        for _ in range(5):
            self.run_instances(kind="t3.micro")
        self.refused("RequestLimitExceeded", self.run_instances, kind="t3.micro")


class Access(PeerCase):
    def test_a_dry_call_says_that_it_would_have_been_done(self):
        for call, asked in (
            (EC2.describe_instances, {}), (EC2.describe_spot_price_history, {}), (EC2.describe_volumes, {}),
            (EC2.terminate_instances, {"InstanceIds": ["i-0123456789abcdef0"]}),
            (EC2.create_tags, {"Resources": ["i-0123456789abcdef0"], "Tags": [{"Key": "a", "Value": "b"}]}),
            (self.run_instances, {}),
        ):
            self.assertEqual(self.status(self.refused("DryRunOperation", call, DryRun=True, **asked)), 412)
        self.assertEqual(self.instances(), [])

    def test_what_is_denied_is_denied_dry_and_in_earnest(self):
        order("deny", {"actions": ["ec2:RunInstances", "DescribeVolumes", "pricing:*", "ssm:GetParameter"]})
        for more in ({"DryRun": True}, {}):
            error = self.refused("UnauthorizedOperation", self.run_instances, **more)
            self.assertEqual(self.status(error), 403)
            self.assertIn("Encoded authorization failure message: ", str(error))
        self.refused("UnauthorizedOperation", EC2.describe_volumes)
        self.refused("AccessDeniedException", client("pricing").get_products, ServiceCode="AmazonEC2")
        self.refused("AccessDeniedException", client("ssm").get_parameter, Name=UBUNTU)
        client("sts").get_caller_identity()

    def test_a_launch_needs_more_than_its_own_action(self):
        client("iam").create_instance_profile(InstanceProfileName="lab")
        asked = {"TagSpecifications": [tagged("instance", a="b")], "IamInstanceProfile": {"Name": "lab"}}
        for action in ("ec2:CreateTags", "iam:PassRole", "ssm:GetParameters"):
            order("deny", {"actions": [action]})
            self.assertIn(action, str(self.refused("UnauthorizedOperation", self.run_instances, **asked)))
        order("deny", {"actions": []})
        self.run_instances(**asked)
        needed = show("actions")["actions"]
        self.assertTrue({"ec2:RunInstances", "ec2:CreateTags", "iam:PassRole", "ssm:GetParameters"} <= set(needed))

    def test_a_policy_allows_what_it_names_and_nothing_else(self):
        allow = {"Effect": "Allow", "Action": ["ec2:Describe*", "sqs:ReceiveMessage"], "Resource": "*"}
        deny = {"Effect": "Deny", "Action": "ec2:DescribeVolumes", "Resource": "*"}
        order("policy", {"policy": {"Version": "2012-10-17", "Statement": [allow, deny]}})
        EC2.describe_instances()
        self.refused("UnauthorizedOperation", EC2.describe_volumes)
        self.refused("UnauthorizedOperation", self.run_instances)
        order("policy", {"policy": None})
        self.run_instances()

    def test_keys_that_are_wrong_or_over(self):
        order("access", {"keys": {"AKIDOLD": "expired", "AKIDBAD": "invalid"}})
        self.refused("RequestExpired", client("ec2", key="AKIDOLD").describe_instances)
        self.refused("ExpiredToken", client("sts", key="AKIDOLD").get_caller_identity)
        self.assertEqual(self.status(self.refused("AuthFailure", client("ec2", key="AKIDBAD").describe_instances)), 401)
        self.refused("InvalidClientTokenId", client("sts", key="AKIDBAD").get_caller_identity)
        self.refused("UnrecognizedClientException", client("pricing", key="AKIDBAD").get_products, ServiceCode="AmazonEC2")
        EC2.describe_instances()

    def test_a_clock_that_is_off_is_refused(self):
        order("clock", {"skew_secs": 900})
        error = self.refused("RequestExpired", EC2.describe_instances)
        self.assertIn("date", error.response["ResponseMetadata"]["HTTPHeaders"])
        order("clock", {"skew_secs": 200})
        EC2.describe_instances()


class Log(PeerCase):
    def test_each_call_is_there_with_what_it_asked_and_how_long_it_took(self):
        order("log", method="DELETE")
        self.run_instances(ClientToken="t")
        self.run_instances(ClientToken="t")
        first, again = show("log")["calls"]
        self.assertEqual((first["action"], first["region"], first["status"]), ("RunInstances", "us-east-1", 200))
        self.assertEqual(first["params"]["InstanceType"], "g5.xlarge")
        self.assertTrue(0 < first["took_ms"] < 5000)
        self.assertTrue(again["replayed"])

    def test_what_there_really_is_can_be_seen_past_every_lag(self):
        order("lag", {"listing_secs": 60})
        [made] = self.run_instances(UserData="hello")
        self.assertEqual(self.instances(), [])
        [held] = show("instances?alive=1")["instances"]
        self.assertEqual((held["id"], held["user_data"]), (made["InstanceId"], "aGVsbG8="))

    def test_a_reset_forgets_everything(self):
        self.run_instances(ClientToken="t")
        client("sqs").create_queue(QueueName="q")
        order("reset", {})
        self.assertEqual(self.instances(), [])
        self.assertEqual(client("sqs").list_queues().get("QueueUrls", []), [])

    def test_an_unknown_call_is_never_a_made_up_success(self):
        self.refused("InvalidAction", EC2.start_instances, InstanceIds=["i-0123456789abcdef0"])
        self.refused("InvalidAction", EC2.get_spot_placement_scores, TargetCapacity=1)

    def test_unknown_orders_say_which_there_are(self):
        with self.assertRaises(urllib.error.HTTPError) as caught:
            order("no-such", {})
        self.assertIn("POST advance", caught.exception.read().decode())
        caught.exception.close()
