"""Launching, listing and ending."""

import base64
import time

from .common import EC2, SPOT, UBUNTU, PeerCase, client, order, tagged


def filtered(**wanted):
    return [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in wanted.items()]


class Launching(PeerCase):
    def test_as_many_as_can_be_had_between_the_least_and_the_most(self):
        order("capacity", {"limits": [{"type": "g5.xlarge", "zone": "us-east-1a", "instances": 3}]})
        zone = {"Placement": {"AvailabilityZone": "us-east-1a"}}
        made = self.run_instances(MinCount=2, MaxCount=5, **zone)
        self.assertEqual([each["AmiLaunchIndex"] for each in made], [0, 1, 2])
        error = self.refused("InsufficientInstanceCapacity", self.run_instances, **zone)
        self.assertEqual(self.status(error), 500)
        self.assertIn("us-east-1b", str(error))
        EC2.terminate_instances(InstanceIds=[made[0]["InstanceId"]])
        self.assertEqual(len(self.run_instances(MinCount=1, MaxCount=5, **zone)), 1)

    def test_without_a_zone_the_one_that_has_the_most_is_taken(self):
        limits = [{"type": "g5.xlarge", "zone": zone, "instances": 1} for zone in ("us-east-1a", "us-east-1b")]
        order("capacity", {"limits": limits})
        zones = {each["Placement"]["AvailabilityZone"] for each in self.run_instances(4)}
        self.assertEqual(len(zones), 1)
        self.assertFalse(zones & {"us-east-1a", "us-east-1b"})

    def test_capacity_of_spot_is_not_that_of_on_demand(self):
        order("capacity", {"limits": [{"lifecycle": "spot", "instances": 0}]})
        self.run_instances()
        self.refused("InsufficientInstanceCapacity", self.run_instances, **SPOT)

    def test_a_zone_without_the_type_is_unsupported(self):
        places = EC2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=filtered(instance_type="p4d.24xlarge")
        )["InstanceTypeOfferings"]
        zones = {each["ZoneName"] for each in EC2.describe_availability_zones()["AvailabilityZones"]}
        without = sorted(zones - {each["Location"] for each in places})[0]
        self.refused("Unsupported", self.run_instances, kind="p4d.24xlarge", Placement={"AvailabilityZone": without})

    def test_user_data_is_16384_bytes_at_most(self):
        [made] = self.run_instances(UserData="x" * 16384)
        said = EC2.describe_instance_attribute(InstanceId=made["InstanceId"], Attribute="userData")
        self.assertEqual(base64.b64decode(said["UserData"]["Value"]), b"x" * 16384)
        self.refused("InvalidParameterValue", self.run_instances, UserData="x" * 16385)

    def test_tags_of_every_kind_are_there_at_once(self):
        kinds = ("instance", "volume", "network-interface", "spot-instances-request")
        [made] = self.run_instances(TagSpecifications=[tagged(kind, a="b") for kind in kinds], **SPOT)
        self.assertEqual(made["Tags"], [{"Key": "a", "Value": "b"}])
        self.assertEqual(len(EC2.describe_volumes(Filters=[{"Name": "tag:a", "Values": ["b"]}])["Volumes"]), 1)
        nics = EC2.describe_network_interfaces(Filters=[{"Name": "tag:a", "Values": ["b"]}])["NetworkInterfaces"]
        self.assertEqual(len(nics), 1)
        [request] = EC2.describe_spot_instance_requests(Filters=[{"Name": "tag:a", "Values": ["b"]}])["SpotInstanceRequests"]
        self.assertEqual(request["SpotInstanceRequestId"], made["SpotInstanceRequestId"])

    def test_tags_of_aws_are_refused(self):
        self.refused("InvalidParameterValue", self.run_instances, TagSpecifications=[tagged("instance", **{"aws:x": "y"})])
        [made] = self.run_instances()
        tags = [{"Key": "AWS:x", "Value": ""}]
        self.refused("InvalidParameterValue", EC2.create_tags, Resources=[made["InstanceId"]], Tags=tags)

    def test_what_is_not_there_is_named(self):
        self.refused("InvalidAMIID.NotFound", self.run_instances, ImageId="ami-12345678")
        self.refused("InvalidAMIID.NotFound", self.run_instances, ImageId="resolve:ssm:/no/such")
        self.refused("InvalidParameterValue", self.run_instances, kind="x9.huge")
        self.refused("InvalidSubnetID.NotFound", self.run_instances, SubnetId="subnet-12345678")
        self.refused("InvalidGroup.NotFound", self.run_instances, SecurityGroupIds=["sg-12345678"])
        self.refused("InvalidParameterValue", self.run_instances, IamInstanceProfile={"Name": "none"})
        self.refused("InvalidKeyPair.NotFound", self.run_instances, KeyName="none")
        named = {"LaunchTemplateName": "none"}
        self.refused("InvalidLaunchTemplateName.NotFoundException", self.run_instances, LaunchTemplate=named)

    def test_a_profile_is_shown(self):
        iam = client("iam")
        iam.create_instance_profile(InstanceProfileName="lab")
        made = self.run_instances(2, IamInstanceProfile={"Name": "lab"})
        self.assertTrue(all(each["IamInstanceProfile"]["Arn"].endswith("instance-profile/lab") for each in made))

    def test_a_launch_template_is_what_the_request_does_not_say(self):
        data = {
            "ImageId": f"resolve:ssm:{UBUNTU}", "InstanceType": "g5.2xlarge", "UserData": base64.b64encode(b"hi").decode(),
            "TagSpecifications": [tagged("instance", a="template", b="template")],
            "MetadataOptions": {"HttpTokens": "required"},
        }
        EC2.create_launch_template(LaunchTemplateName="lab", LaunchTemplateData=data)
        [made] = EC2.run_instances(
            MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateName": "lab"}, InstanceType="g5.xlarge",
            TagSpecifications=[tagged("instance", b="request")],
        )["Instances"]
        self.assertEqual((made["InstanceType"], made["MetadataOptions"]["HttpTokens"]), ("g5.xlarge", "required"))
        tags = {each["Key"]: each["Value"] for each in made["Tags"]}
        self.assertEqual((tags["a"], tags["b"], tags["aws:ec2launchtemplate:version"]), ("template", "request", "1"))
        said = EC2.describe_instance_attribute(InstanceId=made["InstanceId"], Attribute="userData")
        self.assertEqual(base64.b64decode(said["UserData"]["Value"]), b"hi")

    def test_a_root_volume_is_what_was_asked_for(self):
        disk = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 120, "VolumeType": "gp3", "Encrypted": True}}]
        [made] = self.run_instances(BlockDeviceMappings=disk)
        [volume] = EC2.describe_volumes()["Volumes"]
        self.assertEqual((volume["Size"], volume["VolumeType"], volume["Encrypted"]), (120, "gp3", True))
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        self.assertEqual(EC2.describe_volumes()["Volumes"], [])

    def test_a_root_under_the_wrong_name_is_a_second_volume(self):
        name = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
        disk = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 200}}]
        self.run_instances(ImageId=f"resolve:ssm:{name}", BlockDeviceMappings=disk)
        [made] = self.instances()
        self.assertEqual(made["RootDeviceName"], "/dev/xvda")
        self.assertEqual(sorted(each["DeviceName"] for each in made["BlockDeviceMappings"]), ["/dev/sda1", "/dev/xvda"])
        self.assertEqual(sorted(each["Size"] for each in EC2.describe_volumes()["Volumes"]), [75, 200])

    def test_a_root_volume_smaller_than_its_image_is_refused(self):
        disk = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 4}}]
        self.refused("InvalidBlockDeviceMapping", self.run_instances, BlockDeviceMappings=disk)

    def test_a_volume_that_was_to_stay_stays(self):
        disk = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 20, "DeleteOnTermination": False}}]
        [made] = self.run_instances(BlockDeviceMappings=disk)
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        self.assertEqual([each["State"] for each in EC2.describe_volumes()["Volumes"]], ["available"])


    def test_tags_of_a_template_are_not_those_of_what_it_launches(self):
        data = {"ImageId": f"resolve:ssm:{UBUNTU}", "InstanceType": "g5.xlarge"}
        EC2.create_launch_template(
            LaunchTemplateName="lab", LaunchTemplateData=data, TagSpecifications=[tagged("launch-template", a="b")]
        )
        [template] = EC2.describe_launch_templates(Filters=[{"Name": "tag:a", "Values": ["b"]}])["LaunchTemplates"]
        [made] = EC2.run_instances(
            MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"]}
        )["Instances"]
        self.assertNotIn("a", [each["Key"] for each in made["Tags"]])

    def test_an_image_has_to_fit_the_machine(self):
        arm = UBUNTU.replace("amd64", "arm64")
        self.refused("InvalidParameterValue", self.run_instances, ImageId=f"resolve:ssm:{arm}")

    def test_a_price_that_is_too_low_is_refused(self):
        order("spot-prices", {"series": [{"region": "us-east-1", "type": "g5.xlarge", "changes": [[-1, 0.5]]}]})
        market = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.4"}}
        self.refused("SpotMaxPriceTooLow", self.run_instances, InstanceMarketOptions=market)
        market["SpotOptions"]["MaxPrice"] = "0.5"
        self.run_instances(InstanceMarketOptions=market)


class Listing(PeerCase):
    def test_filters_that_moto_has_not(self):
        [spot] = self.run_instances(ClientToken="t", **SPOT)
        [other] = self.run_instances(kind="t3.micro", TagSpecifications=[tagged("instance", lab="x")])

        def found(**wanted):
            return [each["InstanceId"] for each in self.instances(Filters=filtered(**wanted))]

        self.assertEqual(found(instance_lifecycle="spot"), [spot["InstanceId"]])
        self.assertEqual(found(spot_instance_request_id=spot["SpotInstanceRequestId"]), [spot["InstanceId"]])
        self.assertEqual(found(instance_state_code="16", instance_type="t3*"), [other["InstanceId"]])
        self.assertEqual(found(**{"tag:lab": "x"}), [other["InstanceId"]])
        self.assertEqual(found(tag_key="lab"), [other["InstanceId"]])
        self.assertEqual(found(**{"tag:lab": "y"}), [])
        self.refused("InvalidParameterValue", EC2.describe_instances, Filters=filtered(no_such="x"))

    def test_pages_have_every_instance_once(self):
        for _ in range(12):
            self.run_instances()
        pages = list(EC2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
        self.assertEqual([sum(len(each["Instances"]) for each in page["Reservations"]) for page in pages], [5, 5, 2])
        self.assertEqual(len({each["InstanceId"] for each in self.instances(PaginationConfig={"PageSize": 5})}), 12)

    def test_other_lists_have_pages_too(self):
        self.run_instances(12)
        for name, member in (("describe_volumes", "Volumes"), ("describe_network_interfaces", "NetworkInterfaces")):
            pages = list(EC2.get_paginator(name).paginate(PaginationConfig={"PageSize": 5}))
            self.assertEqual([len(page[member]) for page in pages], [5, 5, 2])
        for number in range(3):
            data = {"InstanceType": "g5.xlarge"}
            EC2.create_launch_template(LaunchTemplateName=f"lab{number}", LaunchTemplateData=data)
        pages = list(EC2.get_paginator("describe_launch_templates").paginate(PaginationConfig={"PageSize": 2}))
        self.assertEqual([len(page["LaunchTemplates"]) for page in pages], [2, 1])

    def test_ids_and_pages_do_not_go_together(self):
        [made] = self.run_instances()
        self.refused("InvalidParameterCombination", EC2.describe_instances, InstanceIds=[made["InstanceId"]], MaxResults=5)

    def test_unknown_and_malformed_ids(self):
        error = self.refused("InvalidInstanceID.NotFound", EC2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
        self.assertIn("The instance ID 'i-0123456789abcdef0' does not exist", str(error))
        self.refused("InvalidInstanceID.Malformed", EC2.describe_instances, InstanceIds=["x"])

    def test_a_listing_may_be_late(self):
        order("lag", {"listing_secs": 30})
        [made] = self.run_instances()
        self.assertEqual(self.instances(), [])
        # By its id it is there at once: the two lags are not one.
        self.assertEqual(len(self.instances(InstanceIds=[made["InstanceId"]])), 1)
        order("advance", {"secs": 30})
        self.assertEqual(len(self.instances()), 1)
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        self.assertEqual(self.states(), ["running"])
        order("advance", {"secs": 30})
        self.assertEqual(self.states(), ["terminated"])

    def test_an_id_may_be_too_new(self):
        order("lag", {"id_secs": 5})
        [made] = self.run_instances()
        for call in (EC2.describe_instances, EC2.terminate_instances):
            self.refused("InvalidInstanceID.NotFound", call, InstanceIds=[made["InstanceId"]])
        order("advance", {"secs": 5})
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])

    def test_a_thousand_instances_take_less_than_a_second(self):
        for _ in range(2):
            self.run_instances(500, "t3.micro", TagSpecifications=[tagged("instance", a="b", c="d", e="f")])
        began = time.monotonic()
        EC2.describe_instances()
        [*_, call] = order("log", method="GET")["calls"]
        self.assertLess(call["took_ms"], 1000)
        self.assertLess(time.monotonic() - began, 3)

    def test_regions_do_not_see_each_other(self):
        self.run_instances()
        self.assertEqual(self.instances(client("ec2", "eu-west-1")), [])


class Ending(PeerCase):
    def test_states_take_their_time(self):
        order("lag", {"pending_secs": 20, "shutting_down_secs": 40})
        [made] = self.run_instances()
        self.assertEqual(self.states(), ["pending"])
        order("advance", {"secs": 20})
        self.assertEqual(self.states(), ["running"])
        [change] = EC2.terminate_instances(InstanceIds=[made["InstanceId"]])["TerminatingInstances"]
        self.assertEqual((change["PreviousState"]["Name"], change["CurrentState"]["Name"]), ("running", "shutting-down"))
        order("advance", {"secs": 39})
        self.assertEqual(self.states(), ["shutting-down"])
        order("advance", {"secs": 1})
        [ended] = self.instances()
        self.assertEqual(ended["State"]["Name"], "terminated")
        self.assertEqual(ended["StateReason"]["Code"], "Client.UserInitiatedShutdown")
        self.assertNotIn("PrivateIpAddress", ended)
        order("advance", {"secs": 3600})
        self.assertEqual(self.instances(), [])
        self.refused("InvalidInstanceID.NotFound", EC2.terminate_instances, InstanceIds=[made["InstanceId"]])

    def test_ended_while_pending_it_never_runs(self):
        order("lag", {"pending_secs": 20})
        [made] = self.run_instances()
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        order("advance", {"secs": 60})
        self.assertEqual(self.states(), ["terminated"])

    def test_ending_twice_is_ending_once(self):
        [made] = self.run_instances()
        for _ in range(2):
            EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        self.assertEqual(self.states(), ["terminated"])

    def test_one_unknown_id_and_none_is_ended(self):
        [made] = self.run_instances()
        ids = [made["InstanceId"], "i-0123456789abcdef0"]
        self.refused("InvalidInstanceID.NotFound", EC2.terminate_instances, InstanceIds=ids)
        self.assertEqual(self.states(), ["running"])

    def test_protected_it_is_not_ended(self):
        [made] = self.run_instances(DisableApiTermination=True)
        self.refused("OperationNotPermitted", EC2.terminate_instances, InstanceIds=[made["InstanceId"]])

    def test_a_machine_ends_itself(self):
        [made] = self.run_instances(InstanceInitiatedShutdownBehavior="terminate")
        order("shutdown", {"instance": made["InstanceId"]})
        [ended] = self.instances()
        self.assertEqual(
            (ended["State"]["Name"], ended["StateReason"]["Code"]), ("terminated", "Client.InstanceInitiatedShutdown")
        )
        [made] = self.run_instances()
        self.states()
        order("shutdown", {"instance": made["InstanceId"]})
        self.assertEqual(self.states(InstanceIds=[made["InstanceId"]]), ["stopped"])

    def test_a_machine_that_fails_at_its_start(self):
        order("lag", {"pending_secs": 30})
        [made] = self.run_instances()
        order("end", {"instance": made["InstanceId"], "code": "Server.InternalError"})
        [ended] = self.instances()
        self.assertEqual((ended["State"]["Name"], ended["StateReason"]["Code"]), ("terminated", "Server.InternalError"))

    def test_a_security_group_goes_after_its_instances(self):
        vpc = EC2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = EC2.create_security_group(GroupName="lab", Description="lab", VpcId=vpc)["GroupId"]
        [made] = self.run_instances(SecurityGroupIds=[group])
        self.assertEqual([each["GroupId"] for each in made["SecurityGroups"]], [group])
        self.refused("DependencyViolation", EC2.delete_security_group, GroupId=group)
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        EC2.delete_security_group(GroupId=group)
        self.assertEqual(EC2.describe_network_interfaces()["NetworkInterfaces"], [])

    def test_time_goes_on_by_itself_unless_it_is_frozen(self):
        order("clock", {"frozen": False})
        order("lag", {"pending_secs": 0.2})
        self.run_instances()
        until = time.monotonic() + 10
        while self.states() != ["running"]:
            self.assertLess(time.monotonic(), until)
