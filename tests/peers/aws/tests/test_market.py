"""Types, zones, prices, quotas, images."""

import json

from .common import EC2, GPUS, SPOT, UBUNTU, PeerCase, client, order

PRICING, QUOTAS, SSM = client("pricing"), client("service-quotas"), client("ssm")


def terms(**wanted):
    return [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]


USUAL = {
    "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


class Catalogue(PeerCase):
    def test_types_come_in_pages_of_a_hundred(self):
        order("types", {"types": []})
        first = EC2.describe_instance_types()
        self.assertEqual(len(first["InstanceTypes"]), 100)
        self.refused("InvalidParameterValue", EC2.describe_instance_types, MaxResults=101)
        order("types", {"types": GPUS.split(",")})
        pages = list(EC2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 5}))
        names = [each["InstanceType"] for page in pages for each in page["InstanceTypes"]]
        self.assertEqual((len(pages), sorted(names)), (2, sorted(GPUS.split(","))))

    def test_gpus_are_those_of_aws(self):
        [kind] = EC2.describe_instance_types(InstanceTypes=["p5.48xlarge"])["InstanceTypes"]
        [gpu] = kind["GpuInfo"]["Gpus"]
        self.assertEqual((gpu["Name"], gpu["Count"], kind["VCpuInfo"]["DefaultVCpus"]), ("H100", 8, 192))
        self.refused("InvalidInstanceType", EC2.describe_instance_types, InstanceTypes=["x9.huge"])

    def test_zones_say_that_they_need_no_opting_in(self):
        zones = EC2.describe_availability_zones()["AvailabilityZones"]
        self.assertEqual({each["OptInStatus"] for each in zones}, {"opt-in-not-required"})

    def test_only_enabled_regions_are_listed(self):
        order("access", {"disabled_regions": ["eu-south-1"]})
        names = {each["RegionName"] for each in EC2.describe_regions()["Regions"]}
        self.assertFalse("eu-south-1" in names)
        every = {each["RegionName"]: each["OptInStatus"] for each in EC2.describe_regions(AllRegions=True)["Regions"]}
        self.assertEqual(every["eu-south-1"], "not-opted-in")
        self.refused("AuthFailure", client("ec2", "eu-south-1").describe_instances)


class Prices(PeerCase):
    def products(self, service="AmazonEC2", **wanted):
        pages = PRICING.get_paginator("get_products").paginate(ServiceCode=service, Filters=terms(**wanted))
        return [json.loads(text) for page in pages for text in page["PriceList"]]

    def dollars(self, product):
        [term] = product["terms"]["OnDemand"].values()
        [dimension] = term["priceDimensions"].values()
        return dimension["pricePerUnit"]["USD"], dimension["unit"]

    def test_one_row_says_what_a_type_costs(self):
        [row] = self.products(regionCode="us-east-1", instanceType="g5.xlarge", **USUAL)
        self.assertEqual(self.dollars(row), ("1.0060000000", "Hrs"))
        self.assertEqual(row["product"]["attributes"]["usagetype"], "BoxUsage:g5.xlarge")
        [row] = self.products(location="EU (Ireland)", instanceType="g5.xlarge", **USUAL)
        self.assertEqual(row["product"]["attributes"]["usagetype"], "EU-BoxUsage:g5.xlarge")

    def test_without_filters_some_rows_cost_nothing(self):
        rows = self.products(regionCode="us-east-1", instanceType="p5.48xlarge")
        self.assertEqual(sum(float(self.dollars(row)[0]) == 0 for row in rows), 2)

    def test_pages_have_every_row_once(self):
        order("types", {"types": []})
        rows = self.products(regionCode="us-west-2", **USUAL)
        self.assertGreater(len(rows), 800)
        self.assertEqual(len({row["product"]["sku"] for row in rows}), len(rows))

    def test_disks_and_addresses_cost_too(self):
        [row] = self.products(regionCode="us-east-1", volumeApiName="gp3")
        self.assertEqual(self.dollars(row), ("0.0800000000", "GB-Mo"))
        [row] = self.products("AmazonVPC", regionCode="us-east-1", group="VPCPublicIPv4Address")
        self.assertEqual(self.dollars(row), ("0.0050000000", "Hrs"))

    def test_a_test_sets_prices_and_takes_them_away(self):
        gone = {"region": "us-east-1", "type": "g5.2xlarge", "usd": None}
        order("prices", {"prices": [{"type": "g5.xlarge", "usd": 9}, gone]})
        [row] = self.products(regionCode="us-east-1", instanceType="g5.xlarge", **USUAL)
        self.assertEqual(self.dollars(row)[0], "9.0000000000")
        self.assertEqual(self.products(regionCode="us-east-1", instanceType="g5.2xlarge"), [])

    def test_the_api_is_not_in_every_region(self):
        self.refused("InvalidSignatureException", client("pricing", "us-west-2").get_products, ServiceCode="AmazonEC2")
        self.refused("NotFoundException", PRICING.get_products, ServiceCode="AmazonNothing")


class Quotas(PeerCase):
    def test_what_is_applied_and_what_is_the_default(self):
        order("quotas", {"quotas": [{"region": "us-east-1", "code": "L-417A185B", "vcpus": 192}]})
        quota = QUOTAS.get_service_quota(ServiceCode="ec2", QuotaCode="L-417A185B")["Quota"]
        self.assertEqual((quota["QuotaName"], quota["Value"]), ("Running On-Demand P instances", 192.0))
        default = QUOTAS.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode="L-417A185B")["Quota"]
        self.assertEqual(default["Value"], 0.0)
        self.refused("NoSuchResourceException", QUOTAS.get_service_quota, ServiceCode="ec2", QuotaCode="L-00000000")
        pages = QUOTAS.get_paginator("list_service_quotas").paginate(ServiceCode="ec2", PaginationConfig={"PageSize": 5})
        names = {each["QuotaCode"]: each["Value"] for page in pages for each in page["Quotas"]}
        self.assertEqual((len(names), names["L-417A185B"]), (19, 192.0))

    def test_without_an_applied_value_the_default_holds(self):
        order("quotas", {"quotas": [{"code": "L-DB2E81BA", "vcpus": None}]})
        self.refused("NoSuchResourceException", QUOTAS.get_service_quota, ServiceCode="ec2", QuotaCode="L-DB2E81BA")
        self.refused("VcpuLimitExceeded", self.run_instances)

    def test_a_full_quota_refuses_the_whole_launch(self):
        order("quotas", {"quotas": [{"code": "L-DB2E81BA", "vcpus": 10}]})
        self.run_instances(2)
        error = self.refused("VcpuLimitExceeded", self.run_instances, 1)
        self.assertEqual(self.status(error), 400)
        self.assertIn("current vCPU limit of 10", str(error))
        self.refused("VcpuLimitExceeded", self.run_instances, MinCount=1, MaxCount=2)
        self.run_instances(kind="t3.micro")
        EC2.terminate_instances(InstanceIds=[self.instances()[0]["InstanceId"]])
        self.run_instances(1)

    def test_what_ended_may_count_for_a_while(self):
        order("quotas", {"quotas": [{"code": "L-DB2E81BA", "vcpus": 4}]})
        order("lag", {"quota_secs": 60})
        [made] = self.run_instances()
        EC2.terminate_instances(InstanceIds=[made["InstanceId"]])
        self.refused("VcpuLimitExceeded", self.run_instances)
        order("advance", {"secs": 60})
        self.run_instances()

    def test_spot_has_its_own_and_p5_another(self):
        codes = [{"code": "L-7212CCBC", "vcpus": 96}, {"code": "L-C4BD4855", "vcpus": 0}]
        order("quotas", {"quotas": codes})
        self.run_instances(kind="p4d.24xlarge", **SPOT)
        self.refused("MaxSpotInstanceCountExceeded", self.run_instances, kind="p4d.24xlarge", **SPOT)
        self.refused("MaxSpotInstanceCountExceeded", self.run_instances, kind="p5.48xlarge", **SPOT)
        self.run_instances(kind="p5.48xlarge")


class Images(PeerCase):
    def test_names_that_users_give(self):
        deep = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
        names = [UBUNTU, deep, "/no/such"]
        said = SSM.get_parameters(Names=names)
        self.assertEqual(said["InvalidParameters"], ["/no/such"])
        ids = {each["Name"]: each["Value"] for each in said["Parameters"]}
        images = EC2.describe_images(ImageIds=sorted(ids.values()))["Images"]
        self.assertEqual(sorted(each["OwnerId"] for each in images), ["099720109477", "898082745236"])
        west = client("ssm", "us-west-2").get_parameter(Name=deep)["Parameter"]["Value"]
        self.assertNotEqual(west, ids[deep])

    def test_images_of_amazon_linux_are_motos(self):
        name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
        value = SSM.get_parameter(Name=name)["Parameter"]["Value"]
        self.assertEqual(self.run_instances(ImageId=f"resolve:ssm:{name}")[0]["ImageId"], value)

    def test_paths_list_them(self):
        path = "/aws/service/canonical/ubuntu/server"
        pages = SSM.get_paginator("get_parameters_by_path").paginate(Path=path, Recursive=True)
        self.assertIn(UBUNTU, [each["Name"] for page in pages for each in page["Parameters"]])
