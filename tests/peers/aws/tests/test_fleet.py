"""Fleets of type instant."""

import base64

from .common import EC2, UBUNTU, PeerCase, client, order, tagged


class Fleets(PeerCase):
    def setUp(self):
        super().setUp()
        user_data = base64.b64encode(b"hi").decode()
        tokens = {"HttpTokens": "required"}
        data = {"ImageId": f"resolve:ssm:{UBUNTU}", "UserData": user_data, "MetadataOptions": tokens}
        EC2.create_launch_template(LaunchTemplateName="lab", LaunchTemplateData=data)

    def create(self, count, overrides, lifecycle="spot", options=None, **more):
        config = {"LaunchTemplateSpecification": {"LaunchTemplateName": "lab", "Version": "$Latest"}, "Overrides": overrides}
        target = {"TotalTargetCapacity": count, "DefaultTargetCapacityType": lifecycle}
        named = {"SpotOptions" if lifecycle == "spot" else "OnDemandOptions": options or {}}
        asked = {"LaunchTemplateConfigs": [config], "TargetCapacitySpecification": target}
        return EC2.create_fleet(Type="instant", **asked, **named, **more)

    def launched(self, said):
        return [(each["InstanceType"], each["AvailabilityZone"], len(each["InstanceIds"])) for each in said["Instances"]]

    def limit(self, **free):
        limits = [{"zone": "us-east-1" + letter, "type": "g5.xlarge", "instances": free.get(letter, 0)} for letter in "abcdef"]
        order("capacity", {"limits": limits})

    def price(self, **of):
        series = [{"region": "us-east-1", "zone": "us-east-1" + letter, "type": "g5.xlarge", "changes": [[-60, dollars]]}
                  for letter, dollars in of.items()]
        order("spot-prices", {"series": series})

    G5 = [{"InstanceType": "g5.xlarge", "AvailabilityZone": f"us-east-1{letter}"} for letter in "abc"]

    def test_the_cheapest_pool_first_and_the_next_where_it_ends(self):
        self.limit(a=5, b=2, c=5)
        self.price(a=0.5, b=0.3, c=0.4)
        said = self.create(4, self.G5)
        self.assertEqual(self.launched(said), [("g5.xlarge", "us-east-1b", 2), ("g5.xlarge", "us-east-1c", 2)])
        self.assertEqual(said["Errors"], [])

    def test_price_and_capacity_take_the_cheapest_that_holds_all(self):
        self.limit(a=5, b=2, c=5)
        self.price(a=0.5, b=0.3, c=0.4)
        said = self.create(4, self.G5, options={"AllocationStrategy": "price-capacity-optimized"})
        self.assertEqual(self.launched(said), [("g5.xlarge", "us-east-1c", 4)])

    def test_less_than_wanted_says_which_pools_were_empty(self):
        self.limit(a=1, b=0, c=2)
        said = self.create(5, self.G5)
        self.assertEqual(sum(count for *_, count in self.launched(said)), 3)
        overrides = {each["LaunchTemplateAndOverrides"]["Overrides"]["AvailabilityZone"]: each for each in said["Errors"]}
        self.assertEqual(overrides["us-east-1b"]["ErrorCode"], "InsufficientInstanceCapacity")
        self.assertEqual({each["Lifecycle"] for each in said["Errors"]}, {"spot"})

    def test_all_in_one_zone_or_nothing(self):
        self.limit(a=2, b=3, c=2)
        options = {"SingleAvailabilityZone": True, "MinTargetCapacity": 4}
        said = self.create(4, self.G5, options=options)
        self.assertEqual((said["Instances"], self.instances()), ([], []))
        self.assertEqual({each["ErrorCode"] for each in said["Errors"]}, {"UnfulfillableCapacity"})
        said = self.create(3, self.G5, options=options | {"MinTargetCapacity": 3})
        self.assertEqual(self.launched(said), [("g5.xlarge", "us-east-1b", 3)])

    def test_nothing_at_all_is_an_answer_and_no_error(self):
        self.limit()
        said = self.create(2, self.G5)
        self.assertEqual(said["Instances"], [])
        self.assertEqual({each["ErrorCode"] for each in said["Errors"]}, {"InsufficientInstanceCapacity"})

    def test_one_type_for_all(self):
        order("capacity", {"limits": [{"type": "g5.xlarge", "instances": 2}]})
        order("spot-prices", {"series": [{"region": "us-east-1", "type": "g5.xlarge", "changes": [[-1, 0.01]]}]})
        overrides = [{"InstanceType": "g5.xlarge"}, {"InstanceType": "g5.2xlarge"}]
        said = self.create(3, overrides, options={"SingleInstanceType": True, "MinTargetCapacity": 3})
        self.assertEqual({kind for kind, *_ in self.launched(said)}, {"g5.2xlarge"})

    def test_the_least_needs_one_zone_or_one_type(self):
        self.refused("InvalidParameterCombination", self.create, 2, self.G5, options={"MinTargetCapacity": 2})

    def test_a_full_quota_is_among_the_errors(self):
        order("quotas", {"quotas": [{"code": "L-3819A6DF", "vcpus": 4}]})
        said = self.create(2, self.G5[:1])
        self.assertEqual(sum(count for *_, count in self.launched(said)), 1)
        said = self.create(2, self.G5[:1])
        self.assertEqual([each["ErrorCode"] for each in said["Errors"]], ["MaxSpotInstanceCountExceeded"])
        order("quotas", {"quotas": [{"code": "L-DB2E81BA", "vcpus": 0}]})
        said = self.create(1, self.G5[:1], "on-demand")
        self.assertEqual([each["ErrorCode"] for each in said["Errors"]], ["VcpuLimitExceeded"])

    def test_on_demand_goes_by_price_or_by_priority(self):
        overrides = [{"InstanceType": "g5.2xlarge", "Priority": 1.0}, {"InstanceType": "g4dn.xlarge", "Priority": 2.0}]
        said = self.create(1, overrides, "on-demand")
        self.assertEqual(self.launched(said)[0][0], "g4dn.xlarge")
        said = self.create(1, overrides, "on-demand", {"AllocationStrategy": "prioritized"})
        self.assertEqual(self.launched(said)[0][0], "g5.2xlarge")

    def test_instances_know_their_fleet_and_their_tags(self):
        tags = [tagged("fleet", a="fleet"), tagged("instance", a="instance"), tagged("volume", a="volume")]
        said = self.create(1, self.G5, TagSpecifications=tags)
        [made] = self.instances()
        held = {each["Key"]: each["Value"] for each in made["Tags"]}
        self.assertEqual((held["a"], held["aws:ec2:fleet-id"]), ("instance", said["FleetId"]))
        self.assertEqual((made["InstanceLifecycle"], made["MetadataOptions"]["HttpTokens"]), ("spot", "required"))
        self.assertTrue(made["SpotInstanceRequestId"].startswith("sir-"))
        self.assertEqual(len(EC2.describe_volumes(Filters=[{"Name": "tag:a", "Values": ["volume"]}])["Volumes"]), 1)
        [fleet] = EC2.describe_fleets(FleetIds=[said["FleetId"]])["Fleets"]
        self.assertEqual(fleet["Tags"], [{"Key": "a", "Value": "fleet"}])
        self.assertEqual(EC2.describe_fleets()["Fleets"], [])

    def test_a_fleet_is_deleted_with_its_instances(self):
        said = self.create(2, self.G5)
        answer = EC2.delete_fleets(FleetIds=[said["FleetId"]], TerminateInstances=False)
        self.assertEqual(len(answer["UnsuccessfulFleetDeletions"]), 1)
        EC2.delete_fleets(FleetIds=[said["FleetId"]], TerminateInstances=True)
        self.assertEqual(self.states(), ["terminated", "terminated"])

    def test_a_token_makes_one_fleet(self):
        first, again = (self.create(2, self.G5, ClientToken="t") for _ in range(2))
        self.assertEqual((first["FleetId"], first["Instances"]), (again["FleetId"], again["Instances"]))
        self.assertEqual(len(self.instances()), 2)
        self.refused("IdempotentParameterMismatch", self.create, 3, self.G5, ClientToken="t")

    def test_a_subnet_is_a_zone(self):
        subnets = {each["AvailabilityZone"]: each["SubnetId"] for each in EC2.describe_subnets()["Subnets"]}
        said = self.create(1, [{"InstanceType": "g5.xlarge", "SubnetId": subnets["us-east-1b"]}])
        [made] = self.instances()
        self.assertEqual(made["SubnetId"], subnets["us-east-1b"])
        self.assertEqual(said["Instances"][0]["LaunchTemplateAndOverrides"]["Overrides"]["SubnetId"], subnets["us-east-1b"])

    def test_other_fleets_are_not_here(self):
        config = {"LaunchTemplateSpecification": {"LaunchTemplateName": "lab", "Version": "1"}}
        error = self.refused("InvalidAction", client("ec2").create_fleet, Type="maintain", LaunchTemplateConfigs=[config],
                             TargetCapacitySpecification={"TotalTargetCapacity": 1})
        self.assertEqual(self.status(error), 501)
