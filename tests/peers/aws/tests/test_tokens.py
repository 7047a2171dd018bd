"""Client tokens."""

from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from .common import EC2, UBUNTU, PeerCase, client, order, show


class Tokens(PeerCase):
    def ids(self, **asked):
        return [each["InstanceId"] for each in self.run_instances(**asked)]

    def test_a_token_asked_again_launches_nothing_and_answers_the_same(self):
        asked = {"ImageId": f"resolve:ssm:{UBUNTU}", "MinCount": 2, "MaxCount": 2, "InstanceType": "g5.xlarge"}
        first, again = (EC2.run_instances(ClientToken="t", **asked) for _ in range(2))
        self.assertEqual(first["ReservationId"], again["ReservationId"])
        self.assertEqual([i["InstanceId"] for i in first["Instances"]], [i["InstanceId"] for i in again["Instances"]])
        self.assertEqual(len(self.instances()), 2)

    def test_a_token_answers_the_same_after_the_end_and_for_days(self):
        before = self.ids(ClientToken="t")
        EC2.terminate_instances(InstanceIds=before)
        self.assertEqual(self.ids(ClientToken="t"), before)
        order("advance", {"secs": 3 * 86400})
        self.assertEqual(self.ids(ClientToken="t"), before)
        self.assertEqual(self.instances(), [])

    def test_a_token_of_what_is_terminated_may_be_refused(self):
        before = self.ids(count=2, ClientToken="t")

        def answers():
            said = {}
            for mode in ("same", "refused-if-any", "refused-if-all", "refused-if-forgotten"):
                order("tokens", {"after_end": mode})
                try:
                    said[mode] = self.ids(count=2, ClientToken="t") == before
                except ClientError as error:
                    said[mode] = error.response["Error"]["Code"]
            return list(said.values())

        refused = "IdempotentInstanceTerminated"
        self.assertEqual(answers(), [True, True, True, True])
        EC2.terminate_instances(InstanceIds=before[:1])
        self.assertEqual(answers(), [True, refused, True, True])
        EC2.terminate_instances(InstanceIds=before)
        self.assertEqual(answers(), [True, refused, refused, True])
        order("advance", {"secs": 3600})
        self.assertEqual(answers(), [True, refused, refused, refused])
        self.assertEqual(self.instances(), [])

    def test_other_parameters_with_the_same_token_are_refused(self):
        self.ids(ClientToken="t")
        error = self.refused("IdempotentParameterMismatch", self.run_instances, kind="g5.2xlarge", ClientToken="t")
        self.assertEqual(self.status(error), 400)
        self.assertEqual(len(self.instances()), 1)

    def test_a_token_is_of_its_region(self):
        west = client("ec2", "us-west-2")
        self.assertNotEqual(self.ids(ClientToken="t"), self.ids(ClientToken="t", ec2=west))

    def test_a_token_is_of_its_zone_where_a_zone_is_named(self):
        in_a = self.ids(ClientToken="t", Placement={"AvailabilityZone": "us-east-1a"})
        in_b = self.ids(ClientToken="t", Placement={"AvailabilityZone": "us-east-1b"})
        self.assertNotEqual(in_a, in_b)
        self.assertEqual(in_a, self.ids(ClientToken="t", Placement={"AvailabilityZone": "us-east-1a"}))

    def test_a_subnet_names_its_zone(self):
        subnets = EC2.describe_subnets()["Subnets"]
        of = {each["AvailabilityZone"]: each["SubnetId"] for each in subnets}
        in_a = self.ids(ClientToken="t", SubnetId=of["us-east-1a"])
        self.assertNotEqual(in_a, self.ids(ClientToken="t", SubnetId=of["us-east-1b"]))
        self.assertEqual(in_a, self.ids(ClientToken="t", SubnetId=of["us-east-1a"]))

    def test_a_refused_launch_leaves_its_token_free(self):
        order("capacity", {"limits": [{"instances": 0}]})
        self.refused("InsufficientInstanceCapacity", self.run_instances, ClientToken="t")
        order("capacity", {"limits": []})
        self.assertEqual(len(self.ids(ClientToken="t")), 1)

    def test_tokens_are_64_ascii_characters_at_most(self):
        self.refused("InvalidParameterValue", self.run_instances, ClientToken="t" * 65)

    def test_an_answer_lost_after_the_effect_is_found_by_the_token(self):
        order("faults", {"action": "RunInstances", "times": 1, "drop": "after"})
        with self.assertRaises((EndpointConnectionError, HTTPClientError, OSError)):
            self.run_instances(ClientToken="t")
        [made] = show("instances")["instances"]
        self.assertEqual(self.ids(ClientToken="t"), [made["id"]])

    def test_a_call_lost_before_the_effect_left_nothing(self):
        order("faults", {"action": "RunInstances", "times": 1, "drop": "before"})
        with self.assertRaises((EndpointConnectionError, HTTPClientError, OSError)):
            self.run_instances(ClientToken="t")
        self.assertEqual(show("instances")["instances"], [])

    def test_a_call_may_take_effect_after_its_sender_gave_up(self):
        order("faults", {"action": "RunInstances", "times": 1, "drop": "later", "later_secs": 30})
        with self.assertRaises((EndpointConnectionError, HTTPClientError, OSError)):
            self.run_instances(ClientToken="t")
        self.assertEqual(self.instances(), [])
        order("advance", {"secs": 30})
        [made] = self.instances()
        self.assertEqual(self.ids(ClientToken="t"), [made["InstanceId"]])

    def test_a_late_call_finds_that_its_token_was_used(self):
        order("faults", {"action": "RunInstances", "times": 1, "drop": "later", "later_secs": 30})
        with self.assertRaises((EndpointConnectionError, HTTPClientError, OSError)):
            self.run_instances(ClientToken="t")
        self.ids(ClientToken="t")
        order("advance", {"secs": 30})
        self.assertEqual(len(self.instances()), 1)

    def test_an_error_may_hide_that_it_was_done(self):
        order("faults", {"action": "RunInstances", "times": 1, "code": "InternalError", "after_effect": True})
        self.assertEqual(self.status(self.refused("InternalError", self.run_instances, ClientToken="t")), 500)
        [made] = self.instances()
        self.assertEqual(self.ids(ClientToken="t"), [made["InstanceId"]])

    def test_what_is_under_way_can_be_asked_for_by_token(self):
        [made] = self.ids(ClientToken="t")
        self.ids(ClientToken="u")
        found = self.instances(Filters=[{"Name": "client-token", "Values": ["t"]}])
        self.assertEqual([(each["InstanceId"], each["ClientToken"]) for each in found], [(made, "t")])
