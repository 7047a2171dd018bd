"""Pages of the lists that moto gives in one piece.

| rule | from |
|---|---|
| a page has MaxResults items at most, and a token where there is more | https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html#api-pagination |
| what MaxResults may be | the page of each action, MaxResults: "Valid Range" |
"""

import io
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from . import filters, wire

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

# The list in the answer, and what MaxResults may be.
LISTS = {
    "DescribeVolumes": ("volumeSet", 1, 1000),
    "DescribeSnapshots": ("snapshotSet", 5, 1000),
    "DescribeImages": ("imagesSet", 1, 1000),
    "DescribeSubnets": ("subnetSet", 5, 1000),
    "DescribeVpcs": ("vpcSet", 5, 1000),
    "DescribeSecurityGroups": ("securityGroupInfo", 5, 1000),
    "DescribeSecurityGroupRules": ("securityGroupRuleSet", 5, 1000),
    "DescribeNetworkInterfaces": ("networkInterfaceSet", 5, 1000),
    "DescribeTags": ("tagSet", 5, 1000),
    "DescribeLaunchTemplates": ("launchTemplates", 1, 200),
    "DescribeLaunchTemplateVersions": ("launchTemplateVersionSet", 1, 200),
}


def paged(peer: Any, call: Any) -> wire.Answer:
    """What moto answers, cut."""
    name, least, most = LISTS[call.action]
    if call["MaxResults"] is None and call["NextToken"] is None:
        return peer.ask_moto(call)
    form = {key: value for key, value in call.form.items() if key not in ("MaxResults", "NextToken")}
    call.environ["wsgi.input"] = io.BytesIO(urlencode(form).encode())
    call.environ["CONTENT_LENGTH"] = str(len(call.environ["wsgi.input"].getvalue()))
    answer = peer.ask_moto(call)
    if answer.status >= 300:
        return answer
    ElementTree.register_namespace("", NAMESPACE)
    root = ElementTree.fromstring(answer.body)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    held = root.find(f"{space}{name}")
    items = list(held) if held is not None else []
    shown, token = filters.page(call, items, least, most)
    for item in items:
        if item not in shown:
            held.remove(item)
    for old in root.findall(f"{space}nextToken"):
        root.remove(old)
    if token is not None:
        ElementTree.SubElement(root, f"{space}nextToken").text = token
    return wire.Answer(answer.status, answer.headers, ElementTree.tostring(root, "utf-8", xml_declaration=True))
