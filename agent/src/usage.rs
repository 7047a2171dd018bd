//! What attempts use of the machine: CPU and memory by their processes, GPUs by what `nvidia-smi` says.
//!
//! All of it is looked at away from the agent's loop, one look at a time: `/proc` and above all a GPU's driver may keep
//! whoever asks waiting. A look that never ends means that there are no more looks, and nothing else.
//!
//! `nvidia-smi` shows the counters of NVIDIA's library (NVML), which the agent could read itself were it not a static
//! program: such a program cannot load a library.

use std::{collections::BTreeMap, fs::File, io::Read, time::Duration};

use bursar_model::AttemptId;
use rustix::{param::clock_ticks_per_second, process::Pid};
use tokio::time::Instant;

use crate::{
    helpers::Helpers,
    processes::{self, Mark, Which},
    shim,
};

/// How often is looked. The shortest span over which a GPU's counters mean anything is about a second.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// How long after an attempt came it is looked at first.
pub(crate) const FIRST_SAMPLE: Duration = Duration::from_secs(1);

/// A driver that was just loaded may take some seconds.
const GPU_PATIENCE: Duration = Duration::from_secs(10);

/// More than any of the files that are read here holds.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What our own probes carry in their environment, so that nobody waits for one as if it were left of an attempt.
const PROBE: (&str, &str) = ("BURSAR_AGENT_PROBE", "gpu");

const GIB: f64 = (1_u64 << 30) as f64;

/// Whom to look at.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) attempt: AttemptId,
    /// What its processes are known by.
    pub(crate) mark: Mark,
    /// Its GPUs, by number.
    pub(crate) devices: Vec<u32>,
}

/// What an attempt uses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// CPUs kept busy since the last look.
    pub(crate) cpu_cores: f64,
    /// Memory in GiB. What processes share counts once.
    pub(crate) memory_gib: f64,
    /// Its GPUs; none where that is not known of each.
    pub(crate) gpus: Option<BTreeMap<u32, Gpu>>,
}

/// What is used of a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gpu {
    /// For which part of the last second or less something ran on it, in percent.
    pub(crate) percent: f64,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
}

/// Since when GPUs have been idle without a break, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdleGpus(BTreeMap<u32, Instant>);

impl IdleGpus {
    /// Takes in a look at all of them, of which those used for less than `least` percent are idle.
    pub(crate) fn note(&mut self, gpus: &BTreeMap<u32, Gpu>, least: f64, now: Instant) {
        self.0.retain(|number, _| gpus.get(number).is_some_and(|gpu| gpu.percent < least));
        for (number, _) in gpus.iter().filter(|(_, gpu)| gpu.percent < least) {
            self.0.entry(*number).or_insert(now);
        }
    }

    /// For how long one has been idle, the longest.
    pub(crate) fn longest(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|since| now.saturating_duration_since(*since)).max()
    }
}

/// Looks, and remembers what it takes to tell what was used since.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// The CPU time of each attempt's processes at the last look, and when that was.
    before: BTreeMap<AttemptId, (u64, Instant)>,
    /// It was said that GPUs cannot be looked at.
    complained: bool,
}

impl Sample {
    /// As metrics, by the names that people see.
    #[expect(clippy::float_arithmetic, reason = "a mean for people")]
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let Self { cpu_cores, memory_gib, gpus } = self;
        let mut metrics =
            BTreeMap::from([("cpu.cores".to_owned(), *cpu_cores), ("memory.gib".to_owned(), *memory_gib)]);
        if let Some(gpus) = gpus.as_ref().filter(|gpus| !gpus.is_empty()) {
            let percent = gpus.values().map(|gpu| gpu.percent).sum::<f64>() / gpus.len() as f64;
            let memory = gpus.values().map(|gpu| gpu.memory_gib).sum();
            metrics.insert("gpu.utilization".to_owned(), percent);
            metrics.insert("gpu.memory_gib".to_owned(), memory);
        }
        metrics
    }
}

impl Sampler {
    /// Looks at all of them, with what is known of the GPUs. May take long.
    pub(crate) fn look(
        &mut self,
        subjects: &[Subject],
        gpus: Result<BTreeMap<u32, Gpu>, String>,
    ) -> BTreeMap<AttemptId, Sample> {
        let gpus = gpus.unwrap_or_else(|error| {
            if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(error, "what is used of the GPUs is not known: nvidia-smi cannot be asked");
            }
            BTreeMap::new()
        });
        self.before.retain(|attempt, _| subjects.iter().any(|subject| subject.attempt == *attempt));
        let looked = subjects.iter().map(|subject| {
            let (cpu_cores, memory_gib) = self.processes_of(subject);
            let own = subject.devices.iter().map(|device| Some((*device, *gpus.get(device)?)));
            let gpus = own.collect::<Option<BTreeMap<_, _>>>().filter(|gpus| !gpus.is_empty());
            (subject.attempt, Sample { cpu_cores, memory_gib, gpus })
        });
        looked.collect()
    }

    #[expect(clippy::float_arithmetic, reason = "a rate for people")]
    fn processes_of(&mut self, subject: &Subject) -> (f64, f64) {
        let now = Instant::now();
        let (mut ticks, mut kib) = (0, 0);
        for process in processes::find(Which::Marked(&subject.mark)) {
            ticks += ticks_of(process.pid()).unwrap_or_default();
            kib += memory_kib_of(process.pid()).unwrap_or_default();
        }
        let before = self.before.insert(subject.attempt, (ticks, now));
        let cores = before.map_or(0.0, |(before, then)| {
            // Time of what has ended since and was waited for by nobody of the attempt is lost to us.
            let spent = ticks.saturating_sub(before) as f64 / clock_ticks_per_second() as f64;
            spent / now.saturating_duration_since(then).as_secs_f64().max(0.001)
        });
        (cores, kib as f64 * 1024.0 / GIB)
    }
}

/// What is used of the machine's GPUs, where one of these has any.
pub(crate) async fn gpus(helpers: &Helpers, subjects: &[Subject]) -> Result<BTreeMap<u32, Gpu>, String> {
    if subjects.iter().all(|subject| subject.devices.is_empty()) {
        return Ok(BTreeMap::new());
    }
    let mut command = shim::tied_to_this_thread("nvidia-smi".as_ref());
    command.args(["--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]);
    command.env(PROBE.0, PROBE.1);
    helpers.run(command, None, GPU_PATIENCE).await.map(|answer| parse(&answer))
}

/// The mark of our own probes.
pub(crate) fn probe_mark() -> Mark {
    Mark { variable: format!("{}={}", PROBE.0, PROBE.1), session: None, container: None }
}

/// Lines such as `0, 87, 40536`: number, percent, MiB. A value that a GPU does not have, `[N/A]`, leaves it out.
#[expect(clippy::float_arithmetic, reason = "GiB for people")]
fn parse(answer: &str) -> BTreeMap<u32, Gpu> {
    let line = |line: &str| {
        let mut fields = line.split(',').map(str::trim);
        let index = fields.next()?.parse().ok()?;
        let percent = fields.next()?.parse().ok()?;
        let mib: f64 = fields.next()?.parse().ok()?;
        Some((index, Gpu { percent, memory_gib: mib / 1024.0 }))
    };
    answer.lines().filter_map(line).collect()
}

/// CPU time of a process and of those of its children that it waited for, in ticks.
fn ticks_of(pid: Pid) -> Option<u64> {
    let text = read(pid, "stat")?;
    // As in `processes`: the name in brackets may hold anything.
    let fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    // From the 14th field of the line on: utime, stime, cutime, cstime.
    Some(fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// The memory of a process with its part of what it shares; where the kernel does not tell, with all that it shares.
fn memory_kib_of(pid: Pid) -> Option<u64> {
    field_kib(&read(pid, "smaps_rollup").unwrap_or_default(), "Pss:")
        .or_else(|| field_kib(&read(pid, "status")?, "VmRSS:"))
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A process that is gone is read as nothing.
fn read(pid: Pid, name: &str) -> Option<String> {
    let file = File::open(format!("/proc/{}/{name}", pid.as_raw_pid())).ok()?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).ok()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nvidia_smi_says_is_read_and_what_it_does_not_know_is_left_out() {
        let gpus = parse("0, 87, 40536\n1, 0, 512\n2, [N/A], 3\n3, 12, [Not Supported]\nnonsense\n\n");
        let numbers: Vec<_> = gpus.keys().copied().collect();
        assert_eq!(numbers, [0, 1]);
        assert_eq!(gpus[&1], Gpu { percent: 0.0, memory_gib: 0.5 });
    }

    #[test]
    fn a_sample_is_the_mean_of_all_gpus_and_the_sum_of_their_memory() {
        let gpu = |percent, memory_gib| Gpu { percent, memory_gib };
        let gpus = BTreeMap::from([(0, gpu(90.0, 10.0)), (3, gpu(10.0, 2.0))]);
        let sample = Sample { cpu_cores: 1.5, memory_gib: 0.25, gpus: Some(gpus) };
        let metrics = sample.metrics();
        assert_eq!((metrics["gpu.utilization"], metrics["gpu.memory_gib"]), (50.0, 12.0));
        assert_eq!(Sample { gpus: None, ..sample }.metrics().len(), 2);
    }

    #[test]
    fn a_gpu_is_idle_until_it_is_used_whatever_the_others_do() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let look = |percents: [f64; 2]| {
            percents
                .map(|percent| Gpu { percent, memory_gib: 1.0 })
                .into_iter()
                .zip(0..)
                .map(|(gpu, number)| (number, gpu))
                .collect()
        };
        let mut idle = IdleGpus::default();
        idle.note(&look([90.0, 10.0]), 10.0, at(0));
        assert_eq!(idle.longest(at(5)), None);
        idle.note(&look([90.0, 9.0]), 10.0, at(5));
        idle.note(&look([0.0, 0.0]), 10.0, at(10));
        assert_eq!(idle.longest(at(15)), Some(Duration::from_secs(10)));
        idle.note(&look([0.0, 50.0]), 10.0, at(15));
        assert_eq!(idle.longest(at(15)), Some(Duration::from_secs(5)));
        idle.note(&look([50.0, 50.0]), 10.0, at(20));
        assert_eq!(idle.longest(at(20)), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = rustix::process::getpid();
        assert!(ticks_of(own).is_some());
        assert!(memory_kib_of(own).unwrap() > 100);
    }
}
