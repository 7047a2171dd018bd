//! What a folder says of a market: who sells which machines where, at what price and how many at what time.
//!
//! Files are told apart by what is in them and not by their names. A JSON file with `metadata` and `data` is an
//! availability trace; a CSV with a column `instance_type` is a table whose other columns say what its rows know: what a
//! type has, a price from a moment on, a count from a moment on. So a price history, a catalog and a file that somebody
//! wrote by hand are the same to the reader. Everything else is left out, and it is said why.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use bursar_model::{
    AcceleratorName, CapacityType, ProviderName, Region, Span, Timestamp, TypeName, UsdPerHour, Zone,
};
use serde::Deserialize;

use super::{
    jobs::parse_milli,
    moment::parse_moment,
    table::{Problems, Row, Table, TableError},
};

/// A market has tens of files; what has more is not a folder of market data.
const FILES_MAX: usize = 10_000;

/// Folders in folders in folders.
const DEPTH_MAX: usize = 8;

/// A larger file is not read: traces are hundreds of kilobytes.
const BYTES_MAX: u64 = 1 << 30;

/// A kind of machine of a provider.
pub(super) type Kind = (ProviderName, TypeName);

/// Where something is sold; a region alone where a source knows no zones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) region: Region,
    pub(super) zone: Option<Zone>,
}

/// What a type has, as far as sources say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) gpu: Option<AcceleratorName>,
    pub(super) gpus: Option<u32>,
    pub(super) cpus_milli: Option<u32>,
    pub(super) memory_mib: Option<u64>,
}

/// A price from a moment on; without one it was so before all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PricePoint {
    pub(super) place: Place,
    pub(super) at: Option<Timestamp>,
    pub(super) price: UsdPerHour,
}

/// How many could be had over a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) place: Place,
    /// `None` begins with the replay.
    pub(super) start: Option<Timestamp>,
    /// From the start, in order.
    pub(super) points: Vec<(Span, u32)>,
    /// For how long it was watched; `None` has no end.
    pub(super) length: Option<Span>,
    /// It was asked for one machine, so that 1 says that there are some.
    pub(super) is_yes_or_no: bool,
    pub(super) file: String,
}

/// The counts of a table, which may stand in any order.
type DatedCounts = BTreeMap<(Kind, CapacityType, Place), Vec<(Timestamp, u32)>>;

/// All that was read.
#[derive(Debug, Default)]
pub struct Sources {
    pub(super) facts: BTreeMap<Kind, Facts>,
    pub(super) prices: BTreeMap<(Kind, CapacityType), Vec<PricePoint>>,
    pub(super) counts: BTreeMap<(Kind, CapacityType), Vec<Counts>>,
    /// What was left out and why.
    pub(super) notes: Vec<String>,
}

impl Sources {
    /// Reads all that is in a folder, or one file.
    ///
    /// # Errors
    /// When it cannot be read. A file in it that is not understood is left out and noted.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        let mut sources = Self::default();
        let unreadable = |source| TableError::Unreadable { file: path.display().to_string(), source };
        std::fs::metadata(path).map_err(unreadable)?;
        let files = files_below(path).map_err(unreadable)?;
        if files.is_empty() {
            sources.notes.push(format!("{} has no files", path.display()));
        }
        for file in files {
            let name = file.strip_prefix(path).ok().filter(|rest| !rest.as_os_str().is_empty());
            let name = name.unwrap_or(&file).display().to_string();
            if let Err(why) = sources.take_in(&name, &file) {
                sources.notes.push(format!("{name} is left out: {why}"));
            }
        }
        Ok(sources)
    }

    fn take_in(&mut self, name: &str, path: &Path) -> Result<(), String> {
        let mut file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
        let head = io::BufRead::fill_buf(&mut file).map_err(|error| error.to_string())?;
        let input: Box<dyn Read> = if head.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::bufread::MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut text = String::new();
        input.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
        self.take_in_text(name, &text)
    }

    /// One file.
    pub(super) fn take_in_text(&mut self, name: &str, text: &str) -> Result<(), String> {
        match text.trim_start().chars().next() {
            Some('{') => self.trace(name, text),
            Some(_) => self.table(name, text),
            None => Err("it is empty".to_owned()),
        }
    }

    fn trace(&mut self, name: &str, text: &str) -> Result<(), String> {
        let Trace { metadata, data, price_usd_per_hour: prices } =
            serde_json::from_str(text).map_err(|error| format!("it is no availability trace: {error}"))?;
        let gap = (metadata.gap_seconds > 0.0)
            .then(|| span_of_seconds(metadata.gap_seconds))
            .ok_or("its `gap_seconds` is not above 0")?;
        let start = match metadata.start_utc.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => {
                Some(parse_moment(text).ok_or_else(|| format!("its `start_utc` `{text}` is no moment"))?)
            }
            None => None,
        };
        let kind = (ProviderName::new(&metadata.cloud), TypeName::new(&metadata.instance_type));
        let region = metadata.region.as_deref().map_or_else(|| region_of(&metadata.zone), Region::new);
        let place = Place { region, zone: Some(Zone::new(&metadata.zone)) };
        let facts = Facts {
            gpu: metadata.gpu.as_deref().filter(|_| metadata.gpus_per_instance > 0).map(AcceleratorName::new),
            gpus: Some(metadata.gpus_per_instance),
            ..Facts::default()
        };
        self.learn(&kind, facts);
        let tick = |number: usize| gap.times(number as i64);
        for (capacity_type, listed) in [
            (CapacityType::OnDemand, metadata.od_usd_per_hour),
            (CapacityType::Spot, metadata.spot_usd_per_hour),
        ] {
            if let Some(price) = listed.and_then(price_of) {
                self.price(&kind, capacity_type, PricePoint { place: place.clone(), at: start, price });
            }
        }
        for (number, price) in prices.iter().enumerate() {
            if let (Some(price), Some(start)) = (price.and_then(price_of), start) {
                let at = Some(start + tick(number));
                self.price(&kind, CapacityType::Spot, PricePoint { place: place.clone(), at, price });
            }
        }
        if prices.iter().any(Option::is_some) && start.is_none() {
            self.notes.push(format!("{name}: its prices are left out, because nobody knows when it began"));
        }
        // Where a tick is missing, the one before stands on.
        let known = data.iter().enumerate().filter_map(|(number, count)| Some((tick(number), (*count)?)));
        let points: Vec<(Span, u32)> = known.map(|(at, count)| (at, count.max(0.0) as u32)).collect();
        if points.is_empty() {
            return Err("its `data` is empty".to_owned());
        }
        let missing = data.len() - points.len();
        if missing > 0 {
            self.notes.push(format!("{name}: {missing} ticks are missing; the ones before stand on"));
        }
        let most = points.iter().map(|(_, count)| *count).max().unwrap_or_default();
        let counts = Counts {
            place,
            start,
            points,
            length: Some(tick(data.len())),
            is_yes_or_no: metadata.max_nodes.unwrap_or(most) <= 1,
            file: name.to_owned(),
        };
        self.counts.entry((kind, CapacityType::Spot)).or_default().push(counts);
        Ok(())
    }

    fn table(&mut self, name: &str, text: &str) -> Result<(), String> {
        let mut table = Table::open(name, text.as_bytes()).map_err(|error| error.to_string())?;
        if !table.has("instance_type") {
            return Err("it has no column `instance_type`".to_owned());
        }
        let priced: Vec<(String, CapacityType, Option<Timestamp>)> =
            table.columns().filter_map(price_column).collect();
        let mut problems = Problems::new(name);
        let mut dated = DatedCounts::new();
        let mut unknown_prices = 0_usize;
        while let Some(row) = table.next_row(&mut problems) {
            let taken = self.row(&row, &priced, name, &mut dated, &mut unknown_prices);
            if let Err(problem) = taken {
                problems.add(row.line, problem);
            }
        }
        for ((kind, capacity_type, place), mut points) in dated {
            points.sort_by_key(|(at, _)| *at);
            let start = points.first().map(|(at, _)| *at);
            let since = |at: Timestamp| at.since(start.unwrap_or(at));
            let points = points.into_iter().map(|(at, count)| (since(at), count)).collect();
            let file = name.to_owned();
            let counts = Counts { place, start, points, length: None, is_yes_or_no: false, file };
            self.counts.entry((kind, capacity_type)).or_default().push(counts);
        }
        if unknown_prices > 0 {
            self.notes.push(format!("{name}: {unknown_prices} prices are 0 or empty, which means unknown"));
        }
        self.notes.extend(problems.into_notes());
        Ok(())
    }

    fn row(
        &mut self,
        row: &Row<'_>,
        priced: &[(String, CapacityType, Option<Timestamp>)],
        file: &str,
        dated: &mut DatedCounts,
        unknown_prices: &mut usize,
    ) -> Result<(), String> {
        let instance_type = row.text("instance_type").ok_or("instance_type is empty")?;
        let provider = row.text("provider").or_else(|| row.text("cloud")).unwrap_or("cloud");
        let kind = (ProviderName::new(provider), TypeName::new(instance_type));
        let zone = row.text("zone").map(Zone::new);
        let region = match (row.text("region"), &zone) {
            (Some(region), _) => Region::new(region),
            (None, Some(zone)) => region_of(zone.as_str()),
            (None, None) => return Err("it names neither zone nor region".to_owned()),
        };
        let place = Place { region, zone };
        let first = |names: &[&'static str]| names.iter().copied().find(|name| row.text(name).is_some());
        let whole = |names: &[&'static str]| match first(names) {
            Some(name) => row.parsed(name, "a whole number", |text| text.parse::<u32>().ok()),
            None => Ok(None),
        };
        let milli = |names: &[&'static str]| match first(names) {
            Some(name) => row.parsed(name, "an amount", parse_milli),
            None => Ok(None),
        };
        let facts = Facts {
            gpu: row.text("gpu").map(AcceleratorName::new),
            gpus: whole(&["gpus", "gpu_count", "gpus_per_instance"])?,
            cpus_milli: milli(&["cpus", "vcpu", "vcpus"])?,
            memory_mib: milli(&["memory_gib"])?.map(|milli| u64::from(milli) * 1024 / 1000),
        };
        self.learn(&kind, facts);
        let at = match first(&["time", "time_utc", "timestamp", "date", "as_of"]) {
            Some(name) => row.parsed(name, "a moment, such as 2026-11-22T10:00:00Z", parse_moment)?,
            None => None,
        };
        let told = row.parsed("capacity_type", "`spot` or `on-demand`", parse_capacity_type)?;
        for (column, capacity_type, column_at) in priced {
            // What an own table lists is on-demand unless it says otherwise; a history of spot prices says so by its name.
            let capacity_type =
                if column == "price_usd_per_hour" { told.unwrap_or(*capacity_type) } else { *capacity_type };
            let price = row.parsed(column, "US dollars an hour", |text| {
                text.parse::<f64>().ok().filter(|price| *price >= 0.0)
            })?;
            match price.and_then(price_of) {
                Some(price) => {
                    let at = column_at.or(at);
                    self.price(&kind, capacity_type, PricePoint { place: place.clone(), at, price });
                }
                None => *unknown_prices += 1,
            }
        }
        if let Some(count) = whole(&["count", "capacity"])? {
            let capacity_type = told.unwrap_or(CapacityType::Spot);
            match at {
                Some(at) => dated.entry((kind, capacity_type, place)).or_default().push((at, count)),
                None => {
                    let points = vec![(Span::ZERO, count)];
                    let (start, length, file) = (None, None, file.to_owned());
                    let counts = Counts { place, start, points, length, is_yes_or_no: false, file };
                    self.counts.entry((kind, capacity_type)).or_default().push(counts);
                }
            }
        }
        Ok(())
    }

    fn learn(&mut self, kind: &Kind, facts: Facts) {
        let known = self.facts.entry(kind.clone()).or_default();
        let Facts { gpu, gpus, cpus_milli, memory_mib } = facts;
        // The first source that says something counts.
        known.gpu = known.gpu.take().or(gpu);
        known.gpus = known.gpus.or(gpus);
        known.cpus_milli = known.cpus_milli.or(cpus_milli);
        known.memory_mib = known.memory_mib.or(memory_mib);
    }

    fn price(&mut self, kind: &Kind, capacity_type: CapacityType, point: PricePoint) {
        self.prices.entry((kind.clone(), capacity_type)).or_default().push(point);
    }
}

#[derive(Deserialize)]
struct Trace {
    metadata: TraceMetadata,
    data: Vec<Option<f64>>,
    #[serde(default)]
    price_usd_per_hour: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct TraceMetadata {
    cloud: String,
    zone: String,
    region: Option<String>,
    instance_type: String,
    gpu: Option<String>,
    #[serde(default)]
    gpus_per_instance: u32,
    gap_seconds: f64,
    start_utc: Option<String>,
    max_nodes: Option<u32>,
    od_usd_per_hour: Option<f64>,
    spot_usd_per_hour: Option<f64>,
}

fn files_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![(path.to_owned(), 0)];
    // Each folder is looked at once; the depth bounds what links could make endless.
    while let Some((folder, depth)) = folders.pop() {
        if !folder.is_dir() {
            files.push(folder);
            continue;
        }
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !is_hidden && depth < DEPTH_MAX && files.len() + folders.len() < FILES_MAX {
                folders.push((path, depth + 1));
            }
        }
    }
    // The order of a folder differs from disk to disk.
    files.sort();
    Ok(files)
}

/// A column of prices: its name, what for, and the date in its name where it has one (`od_usd_per_hour_2026-07`).
fn price_column(column: &str) -> Option<(String, CapacityType, Option<Timestamp>)> {
    let known = [
        ("price_usd_per_hour", CapacityType::OnDemand),
        ("od_usd_per_hour", CapacityType::OnDemand),
        ("on_demand_usd_per_hour", CapacityType::OnDemand),
        ("spot_usd_per_hour", CapacityType::Spot),
    ];
    known.into_iter().find_map(|(name, capacity_type)| {
        let rest = column.strip_prefix(name)?;
        let at = rest.strip_prefix('_').map(parse_moment);
        match at {
            None if rest.is_empty() => Some((column.to_owned(), capacity_type, None)),
            Some(Some(at)) => Some((column.to_owned(), capacity_type, Some(at))),
            None | Some(None) => None,
        }
    })
}

fn parse_capacity_type(text: &str) -> Option<CapacityType> {
    match text {
        "spot" => Some(CapacityType::Spot),
        "on-demand" | "ondemand" | "od" => Some(CapacityType::OnDemand),
        _ => None,
    }
}

/// `us-east-1a` is in `us-east-1`, `us-central1-a` in `us-central1`; what is neither is a region of its own.
fn region_of(zone: &str) -> Region {
    let stem = zone.strip_suffix(|last: char| last.is_ascii_lowercase()).unwrap_or(zone);
    let is_region = |text: &str| text.ends_with(|last: char| last.is_ascii_digit());
    let stem = stem.strip_suffix('-').unwrap_or(stem);
    Region::new(if is_region(stem) { stem } else { zone })
}

/// A price of a source; 0 is unknown.
fn price_of(dollars: f64) -> Option<UsdPerHour> {
    let price: UsdPerHour = format!("{dollars:.9}").parse().ok()?;
    (price > UsdPerHour::ZERO).then_some(price)
}

#[expect(clippy::float_arithmetic, reason = "seconds of a file become whole milliseconds here")]
fn span_of_seconds(seconds: f64) -> Span {
    Span::from_millis((seconds * 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Sources {
        let mut sources = Sources::default();
        for (name, text) in files {
            sources.take_in_text(name, text).unwrap();
        }
        sources
    }

    fn kind(provider: &str, name: &str) -> Kind {
        (provider.into(), name.into())
    }

    fn dollars(text: &str) -> UsdPerHour {
        text.parse().unwrap()
    }

    #[test]
    fn a_trace_tells_counts_and_prices_and_a_start_that_nobody_knows_is_none() {
        let trace = |start: &str| {
            format!(
                r#"{{"metadata":{{"cloud":"aws","instance_type":"p3.2xlarge","gpu":"V100","gpus_per_instance":1,
                "od_usd_per_hour":3.06,"zone":"us-east-1f","region":"us-east-1","kind":"availability","max_nodes":4,
                "gap_seconds":300,"start_utc":{start}}},"data":[4,null,1],"price_usd_per_hour":[0.9,null,0]}}"#
            )
        };
        let sources = read(&[("a", &trace("\"2023-08-03T10:00\"")), ("b", &trace("null"))]);
        let v100 = kind("aws", "p3.2xlarge");
        let counts = &sources.counts[&(v100.clone(), CapacityType::Spot)];
        assert_eq!(counts[0].start, Some("2023-08-03T10:00:00Z".parse().unwrap()));
        assert_eq!(counts[0].points, [(Span::ZERO, 4), (Span::from_secs(600), 1)]);
        assert_eq!((counts[0].length, counts[0].is_yes_or_no), (Some(Span::from_secs(900)), false));
        assert_eq!(counts[1].start, None);
        let spot = &sources.prices[&(v100.clone(), CapacityType::Spot)];
        assert_eq!(spot.len(), 1, "an unknown price is none: {spot:?}");
        assert_eq!(sources.prices[&(v100, CapacityType::OnDemand)][0].price, dollars("3.06"));
        assert_eq!(sources.notes.len(), 3, "{:?}", sources.notes);
    }

    #[test]
    fn histories_catalogs_and_own_tables_are_told_apart_by_their_columns() {
        let sources = read(&[
            (
                "history",
                "time_utc,cloud,region,zone,instance_type,spot_usd_per_hour\n2021-03-02T05:47:29Z,aws,us-east-1,us-east-1a,g,0.2\n",
            ),
            (
                "catalog",
                "cloud,region,instance_type,gpu,gpu_count,vcpu,memory_gib,od_usd_per_hour_2023-08,spot_usd_per_hour_2023-08\naws,us-east-1,g,T4,4,48,192.5,3.9,0\n",
            ),
            (
                "own",
                "provider,region,zone,instance_type,gpu,gpus,cpus,memory_gib,capacity_type,price_usd_per_hour,capacity\nlab,r,r1,h8,H100,8,96,768,on-demand,12.5,3\n",
            ),
            (
                "own counts",
                "time,provider,zone,instance_type,capacity_type,count\n2026-01-02,lab,r1,h8,spot,2\n2026-01-01,lab,r1,h8,spot,7\n",
            ),
        ]);
        let g = kind("aws", "g");
        let Facts { gpu, gpus, cpus_milli, memory_mib } = sources.facts[&g].clone();
        assert_eq!((gpu, gpus, cpus_milli), (Some("T4".into()), Some(4), Some(48_000)));
        assert_eq!(memory_mib, Some(197_120));
        assert_eq!(sources.prices[&(g.clone(), CapacityType::Spot)].len(), 1);
        let listed = &sources.prices[&(g, CapacityType::OnDemand)][0];
        assert_eq!((listed.at, listed.place.zone.clone()), (parse_moment("2023-08"), None));
        let h8 = kind("lab", "h8");
        assert_eq!(sources.counts[&(h8.clone(), CapacityType::OnDemand)][0].points, [(Span::ZERO, 3)]);
        let spot = &sources.counts[&(h8, CapacityType::Spot)][0];
        assert_eq!(spot.points, [(Span::ZERO, 7), (Span::from_hours(24), 2)]);
        assert_eq!(sources.notes, ["catalog: 1 prices are 0 or empty, which means unknown"]);
    }

    #[test]
    fn what_is_not_understood_is_left_out_and_said() {
        let mut sources = Sources::default();
        let egress = "from_region,to_region,price_usd_per_gb\na,b,0.1\n";
        assert_eq!(sources.take_in_text("e", egress), Err("it has no column `instance_type`".to_owned()));
        assert!(sources.take_in_text("j", "{}").unwrap_err().starts_with("it is no availability trace"));
        assert_eq!(sources.take_in_text("n", " \n"), Err("it is empty".to_owned()));
        sources.take_in_text("t", "zone,instance_type,price_usd_per_hour,time\na,,1,\na,x,1,soon\n").unwrap();
        assert_eq!(
            sources.notes,
            [
                "t line 2: instance_type is empty: left out",
                "t line 3: time `soon` is not a moment, such as 2026-11-22T10:00:00Z: left out"
            ]
        );
    }

    #[test]
    fn a_zone_tells_its_region() {
        for (zone, region) in
            [("us-east-1a", "us-east-1"), ("us-central1-a", "us-central1"), ("rack", "rack")]
        {
            assert_eq!(region_of(zone).as_str(), region);
        }
    }
}
