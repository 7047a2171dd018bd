//! Whether instances get into their network, and from there to the daemon: by what EC2 says of subnets, security groups
//! and routes. Pure. What lies behind a VPN, a peering or a proxy cannot be told from here, and is not held against anyone.

use std::net::{IpAddr, Ipv4Addr};

use aws_sdk_ec2::types::{IpPermission, Route, RouteTable, SecurityGroup, Subnet};
use bursar_model::Region;

use super::{asked::Network, judge::Judged};

/// How the configuration's keys begin: `providers.NAME`.
pub(super) type Keys<'a> = &'a str;

const SUBNETS: &str = "subnets";
const GROUPS: &str = "security groups";
const ADDRESS: &str = "daemon's url";

/// Where agents are to find the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    url: String,
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// The machine itself, whichever asks.
    Itself,
    V4(Ipv4Addr),
    /// A name, or an address of IPv6: where it leads cannot be told.
    Name,
}

impl Address {
    pub(super) fn of(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
            _ => (authority, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let host = match name.parse::<IpAddr>() {
            Ok(ip) if ip.is_loopback() || ip.is_unspecified() => Host::Itself,
            Ok(IpAddr::V4(ip)) => Host::V4(ip),
            Err(_) if name == "localhost" || name.is_empty() => Host::Itself,
            Ok(IpAddr::V6(_)) | Err(_) => Host::Name,
        };
        let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
        Self { url: url.to_owned(), host, port }
    }

    /// What is wrong with it wherever instances are.
    pub(super) fn judged(&self) -> Option<Judged> {
        let detail = format!("{} is the instance itself to whoever asks there", self.url);
        let fix = "name an address that instances reach as `url` in the configuration, such as this machine's private \
                   address in the same network (docs/aws.md), and have the daemon `listen` there";
        (self.host == Host::Itself).then(|| Judged::ill(ADDRESS, None, detail, fix))
    }

    /// Whether it is an address that no public network leads to.
    fn is_private(&self) -> bool {
        match self.host {
            Host::V4(ip) => {
                let is_shared = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
                ip.is_private() || ip.is_link_local() || is_shared
            }
            Host::Itself | Host::Name => false,
        }
    }
}

/// Everything of a region's network.
pub(super) fn judged(
    keys: Keys<'_>,
    region: &Region,
    wanted: &[(&str, &str)],
    groups_wanted: &[String],
    network: &Network,
    address: &Address,
) -> Vec<Judged> {
    let mut judged = Vec::new();
    let Some(subnets) = &network.subnets else { return judged };
    judged.extend(subnets_judged(keys, region, wanted, subnets, network));
    if let Some(groups) = &network.groups {
        judged.extend(groups_judged(keys, region, groups_wanted, groups, subnets, address));
    }
    if let Some(tables) = &network.tables
        && !subnets.is_empty()
        && address.host != Host::Itself
    {
        judged.push(reached(region, subnets, tables, address));
    }
    judged
}

fn subnets_judged(
    keys: Keys<'_>,
    region: &Region,
    wanted: &[(&str, &str)],
    found: &[Subnet],
    network: &Network,
) -> Vec<Judged> {
    let ill = |detail: String, fix: String| Judged::ill(SUBNETS, Some(region), detail, fix);
    let mut judged = Vec::new();
    if wanted.is_empty() && found.is_empty() {
        let fix = format!(
            "`aws ec2 create-default-vpc --region {region}`, or name a subnet for each zone in {keys}.subnets"
        );
        return vec![ill("there is no default network".to_owned(), fix)];
    }
    for (zone, id) in wanted {
        let Some(subnet) = found.iter().find(|subnet| subnet.subnet_id() == Some(id)) else {
            let fix = format!(
                "see which there are: `aws ec2 describe-subnets --region {region} --filters \
                 Name=availability-zone,Values={zone}`, and name one in {keys}.subnets"
            );
            judged.push(ill(format!("{id}, named for {zone}, does not exist"), fix));
            continue;
        };
        let of = subnet.availability_zone().unwrap_or_default();
        if of != *zone {
            let fix = format!("write `{of}: {id}` in {keys}.subnets");
            judged.push(ill(format!("{id}, named for {zone}, is in {of}"), fix));
        }
    }
    for full in found.iter().filter(|subnet| subnet.available_ip_address_count() == Some(0)) {
        let id = full.subnet_id().unwrap_or_default();
        let fix = format!(
            "name a larger one in {keys}.subnets, or end what holds them: `aws ec2 describe-network-interfaces --region {region} --filters Name=subnet-id,Values={id}`"
        );
        judged.push(ill(format!("{id} has no free address"), fix));
    }
    if judged.is_empty() {
        judged.push(Judged::well(SUBNETS, Some(region), described(wanted, found, network)));
    }
    judged
}

/// What can be told of subnets that are well.
fn described(wanted: &[(&str, &str)], found: &[Subnet], network: &Network) -> String {
    let whose = if wanted.is_empty() { "default" } else { "named" };
    let public = found.iter().filter(|subnet| gives_public_addresses(subnet)).count();
    let public = match public {
        0 => "without public addresses".to_owned(),
        all if all == found.len() => "with public addresses".to_owned(),
        some => format!("{some} with public addresses"),
    };
    let tables = network.tables.as_deref().unwrap_or_default();
    let is_out =
        |subnet: &Subnet| table_of(subnet, tables).is_some_and(|table| default_route(table).is_some());
    let out = match found.iter().filter(|subnet| is_out(subnet)).count() {
        all if all == found.len() => "",
        // Images of containers and packages come from there.
        0 => ", no way to the internet",
        _ => ", some without a way to the internet",
    };
    format!("{} {whose}, {public}{out}", found.len())
}

fn groups_judged(
    keys: Keys<'_>,
    region: &Region,
    wanted: &[String],
    found: &[SecurityGroup],
    subnets: &[Subnet],
    address: &Address,
) -> Vec<Judged> {
    let ill = |detail: String, fix: String| Judged::ill(GROUPS, Some(region), detail, fix);
    let mut judged = Vec::new();
    for id in wanted {
        let Some(group) = found.iter().find(|group| group.group_id() == Some(id)) else {
            let fix = format!(
                "see which there are: `aws ec2 describe-security-groups --region {region}`, and name one in \
                 {keys}.security_groups"
            );
            judged.push(ill(format!("{id} does not exist"), fix));
            continue;
        };
        let elsewhere = subnets.iter().find(|subnet| subnet.vpc_id() != group.vpc_id());
        if let Some(subnet) = elsewhere {
            let (vpc, of) = (group.vpc_id().unwrap_or_default(), subnet.vpc_id().unwrap_or_default());
            let fix =
                format!("name one of {of} in {keys}.security_groups, or subnets of {vpc} in {keys}.subnets");
            judged.push(ill(
                format!("{id} is of {vpc}, and {} of {of}", subnet.subnet_id().unwrap_or_default()),
                fix,
            ));
        }
    }
    let Some(first) = found.first().filter(|_| judged.is_empty()) else { return judged };
    // The rules of all groups of an instance add up; those of default networks belong to one each.
    let lets = found.iter().any(|group| lets_out(group, address));
    let names: Vec<&str> = found.iter().filter_map(SecurityGroup::group_id).collect();
    judged.push(if lets {
        let whose = if wanted.is_empty() { "the default group lets" } else { "they let" };
        Judged::well(GROUPS, Some(region), format!("{whose} instances out to port {}", address.port))
    } else {
        let cidr = match address.host {
            Host::V4(ip) => format!("{ip}/32"),
            Host::Itself | Host::Name => "0.0.0.0/0".to_owned(),
        };
        let group = first.group_id().unwrap_or_default();
        let fix = format!(
            "`aws ec2 authorize-security-group-egress --region {region} --group-id {group} --protocol tcp \
             --port {} --cidr {cidr}`",
            address.port
        );
        ill(format!("{} let nothing out to {}", names.join(", "), address.url), fix)
    });
    judged
}

/// Whether agents get through to the daemon's port.
fn lets_out(group: &SecurityGroup, address: &Address) -> bool {
    let has_port = |rule: &IpPermission| match rule.ip_protocol() {
        Some("-1") => true,
        Some("tcp" | "6") => {
            let (from, to) = (rule.from_port().unwrap_or(-1), rule.to_port().unwrap_or(-1));
            from == -1 || (from..=to).contains(&i32::from(address.port))
        }
        _ => false,
    };
    let has_host = |rule: &IpPermission| {
        // What is in another group or a list of prefixes cannot be told.
        let others = !rule.user_id_group_pairs().is_empty() || !rule.prefix_list_ids().is_empty();
        let ranges = || rule.ip_ranges().iter().filter_map(|range| range.cidr_ip());
        others
            || match address.host {
                Host::V4(ip) => ranges().any(|range| is_within(ip, range)),
                Host::Itself | Host::Name => ranges().next().is_some() || !rule.ipv6_ranges().is_empty(),
            }
    };
    group.ip_permissions_egress().iter().any(|rule| has_port(rule) && has_host(rule))
}

/// Whether the routes of the subnets lead to the daemon.
fn reached(region: &Region, subnets: &[Subnet], tables: &[RouteTable], address: &Address) -> Judged {
    let url = &address.url;
    let mut ways: Vec<String> = Vec::new();
    for subnet in subnets {
        let id = subnet.subnet_id().unwrap_or_default();
        let ill = |detail: String, fix: String| Judged::ill(ADDRESS, Some(region), detail, fix);
        let Some(table) = table_of(subnet, tables) else { continue };
        let route = match address.host {
            Host::V4(ip) => best_route(table, ip),
            Host::Itself | Host::Name => default_route(table),
        };
        let target = route.and_then(target);
        let way = match target {
            Some("local") => "in the same network".to_owned(),
            other if address.is_private() && other.is_none_or(|gateway| gateway.starts_with("igw-")) => {
                let fix = "name an address as `url` that instances there reach: run the daemon in their network, or join \
                           the two by a VPN or a peering (docs/aws.md)";
                let detail = format!("{url} is a private address outside the network of {id}");
                return ill(detail, fix.to_owned());
            }
            Some(gateway) if gateway.starts_with("igw-") && !gives_public_addresses(subnet) => {
                let fix = format!(
                    "`aws ec2 modify-subnet-attribute --region {region} --subnet-id {id} --map-public-ip-on-launch`, or \
                     a route through a NAT gateway"
                );
                return ill(format!("{id} leads to the internet, and gives no public addresses"), fix);
            }
            Some(gateway) => format!("by {gateway}"),
            // A name may lead to an address within.
            None if address.host == Host::Name => "if its name leads into the same network".to_owned(),
            None => {
                let id_of = table.route_table_id().unwrap_or_default();
                let fix = format!(
                    "run the daemon in the network of {id}, or give {id_of} a route: `aws ec2 create-route --region \
                     {region} --route-table-id {id_of} --destination-cidr-block 0.0.0.0/0 --gateway-id igw-…`"
                );
                return ill(format!("no route leads from {id} to {url}"), fix);
            }
        };
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    let by = ways.join(", ");
    let tried = "whether it answers shows only from there: `curl URL/v1/health` on an instance";
    Judged::well(ADDRESS, Some(region), format!("{url}, {by}; {tried}"))
}

fn table_of<'a>(subnet: &Subnet, tables: &'a [RouteTable]) -> Option<&'a RouteTable> {
    let is_own = |table: &&RouteTable| {
        table
            .associations()
            .iter()
            .any(|one| one.subnet_id().is_some() && one.subnet_id() == subnet.subnet_id())
    };
    let is_main = |table: &&RouteTable| {
        table.vpc_id() == subnet.vpc_id() && table.associations().iter().any(|one| one.main() == Some(true))
    };
    tables.iter().find(is_own).or_else(|| tables.iter().find(is_main))
}

fn default_route(table: &RouteTable) -> Option<&Route> {
    table.routes().iter().find(|route| route.destination_cidr_block() == Some("0.0.0.0/0"))
}

/// The route of the longest prefix that leads there.
fn best_route(table: &RouteTable, ip: Ipv4Addr) -> Option<&Route> {
    let fits = |route: &&Route| route.destination_cidr_block().is_some_and(|cidr| is_within(ip, cidr));
    table.routes().iter().filter(fits).max_by_key(|route| route.destination_cidr_block().map(prefix))
}

fn target(route: &Route) -> Option<&str> {
    let by = [
        route.gateway_id(),
        route.nat_gateway_id(),
        route.transit_gateway_id(),
        route.vpc_peering_connection_id(),
        route.network_interface_id(),
        route.local_gateway_id(),
        route.carrier_gateway_id(),
        route.core_network_arn(),
    ];
    by.into_iter().flatten().next()
}

fn gives_public_addresses(subnet: &Subnet) -> bool {
    subnet.map_public_ip_on_launch() == Some(true)
}

fn prefix(cidr: &str) -> u32 {
    cidr.split_once('/').and_then(|(_, bits)| bits.parse().ok()).unwrap_or(32)
}

fn is_within(ip: Ipv4Addr, cidr: &str) -> bool {
    let Some(network) = cidr.split('/').next().and_then(|text| text.parse::<Ipv4Addr>().ok()) else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32 - prefix(cidr).min(32)).unwrap_or(0);
    u32::from(ip) & mask == u32::from(network) & mask
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{IpRange, RouteTableAssociation};

    use super::*;

    #[test]
    fn an_address_is_within_what_its_prefix_says() {
        let ip = Ipv4Addr::new(172, 31, 5, 9);
        for (cidr, expected) in [
            ("172.31.0.0/16", true),
            ("0.0.0.0/0", true),
            ("172.31.5.9/32", true),
            ("172.30.0.0/16", false),
            ("2001:db8::/32", false),
        ] {
            assert_eq!(is_within(ip, cidr), expected, "{cidr}");
        }
    }

    #[test]
    fn loopback_is_nowhere_to_an_instance() {
        for url in
            ["http://127.0.0.1:7733", "http://localhost:7733/", "http://0.0.0.0:7733", "http://[::1]:7733"]
        {
            assert!(Address::of(url).judged().is_some(), "{url}");
        }
        for url in ["http://10.0.0.5:7733", "https://bursar.example.com", "http://[2001:db8::1]:7733"] {
            assert!(Address::of(url).judged().is_none(), "{url}");
        }
        assert_eq!(Address::of("https://bursar.example.com/").port, 443);
    }

    fn table(routes: &[(&str, &str)]) -> RouteTable {
        let routes = routes
            .iter()
            .map(|(to, by)| Route::builder().destination_cidr_block(*to).gateway_id(*by).build());
        let main = RouteTableAssociation::builder().main(true).build();
        RouteTable::builder().vpc_id("vpc-1").associations(main).set_routes(Some(routes.collect())).build()
    }

    fn is_reached(url: &str, public: bool, routes: &[(&str, &str)]) -> bool {
        let subnet =
            Subnet::builder().subnet_id("subnet-1").vpc_id("vpc-1").map_public_ip_on_launch(public).build();
        let region = Region::new("us-east-1");
        reached(&region, &[subnet], &[table(routes)], &Address::of(url)).fix.is_none()
    }

    #[test]
    fn a_daemon_is_reached_where_a_route_leads_to_it() {
        let local = ("172.31.0.0/16", "local");
        let out = ("0.0.0.0/0", "igw-1");
        assert!(is_reached("http://172.31.9.9:7733", false, &[local]));
        // A private address is not of the internet, but may be behind a VPN.
        assert!(!is_reached("http://10.0.0.5:7733", true, &[local, out]));
        assert!(is_reached("http://10.0.0.5:7733", true, &[local, out, ("10.0.0.0/8", "vgw-1")]));
        assert!(is_reached("http://203.0.113.7:7733", true, &[local, out]));
        assert!(!is_reached("http://203.0.113.7:7733", false, &[local, out]));
        assert!(!is_reached("http://203.0.113.7:7733", true, &[local]));
        assert!(is_reached("http://bursar.internal:7733", false, &[local]));
    }

    #[test]
    fn a_group_lets_out_what_one_of_its_rules_names() {
        let group = |protocol: &str, from: i32, to: i32, cidr: &str| {
            let range = IpRange::builder().cidr_ip(cidr).build();
            let rule = IpPermission::builder().ip_protocol(protocol).ip_ranges(range);
            let rule = if protocol == "-1" { rule } else { rule.from_port(from).to_port(to) };
            SecurityGroup::builder().ip_permissions_egress(rule.build()).build()
        };
        let address = Address::of("http://10.0.0.5:7733");
        assert!(lets_out(&group("-1", 0, 0, "0.0.0.0/0"), &address));
        assert!(lets_out(&group("tcp", 7000, 8000, "10.0.0.0/8"), &address));
        assert!(!lets_out(&group("tcp", 443, 443, "0.0.0.0/0"), &address));
        assert!(!lets_out(&group("tcp", 7733, 7733, "10.1.0.0/16"), &address));
        assert!(!lets_out(&group("udp", 7733, 7733, "10.0.0.0/8"), &address));
        assert!(!lets_out(&SecurityGroup::builder().build(), &address));
    }
}
