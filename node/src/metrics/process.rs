//! What the kernel knows about this process, read at each scrape, under the names every Prometheus client uses.
//!
//! Invariants: a number that cannot be read is left out, never invented; reading takes no lock of ours.

use procfs::process::LimitValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self`.
#[derive(Debug)]
pub(super) struct Process;

/// One reading.
struct Reading {
    cpu_seconds: f64,
    start_time_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: i64,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

fn read() -> procfs::ProcResult<Reading> {
    let process = procfs::process::Process::myself()?;
    let stat = process.stat()?;
    let seconds = |ticks: u64| float(ticks) / float(procfs::ticks_per_second());
    let max_fds = process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(limit) => Some(limit),
        LimitValue::Unlimited => None,
    });
    Ok(Reading {
        cpu_seconds: seconds(stat.utime + stat.stime),
        start_time_seconds: float(procfs::boot_time_secs()?) + seconds(stat.starttime),
        resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        virtual_bytes: stat.vsize,
        threads: stat.num_threads,
        open_fds: process.fd_count().ok().and_then(|count| u64::try_from(count).ok()),
        max_fds,
    })
}

#[expect(clippy::cast_precision_loss, reason = "clock ticks and seconds since 1970 stay far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(reading) = read() else { return Ok(()) };
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        put("process_cpu_seconds", "CPU time used", &ConstCounter::new(reading.cpu_seconds))?;
        let start = ConstGauge::new(reading.start_time_seconds);
        put("process_start_time_seconds", "Start of the process, Unix time", &start)?;
        put("process_resident_memory_bytes", "Resident memory", &ConstGauge::new(reading.resident_bytes))?;
        put("process_virtual_memory_bytes", "Virtual memory", &ConstGauge::new(reading.virtual_bytes))?;
        put("process_threads", "Threads", &ConstGauge::new(reading.threads))?;
        if let Some(open) = reading.open_fds {
            put("process_open_fds", "Open file descriptors", &ConstGauge::new(open))?;
        }
        if let Some(max) = reading.max_fds {
            put("process_max_fds", "Limit of open file descriptors", &ConstGauge::new(max))?;
        }
        Ok(())
    }
}
