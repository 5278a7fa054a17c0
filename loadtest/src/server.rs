//! What the servers under test cost: processor time and memory from `/proc`, counters from their `/metrics`.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use procfs::process::Process;
use serde::Serialize;

/// How long one `/metrics` may take in each direction.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(2);
/// More metrics than this are not read.
const SCRAPE_BYTES_MAX: u64 = 8 << 20;

/// Totals over all watched processes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// Processor time since their start.
    pub(crate) cpu_seconds: f64,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// The most resident memory they ever had.
    pub(crate) rss_peak_bytes: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// The servers, as far as they can be looked into.
#[derive(Debug)]
pub(crate) struct Servers {
    pids: Vec<i32>,
    admins: Vec<SocketAddr>,
}

/// Why a server cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// No such process, or it ended.
    #[error("cannot read the figures of process {pid}: {error}")]
    Process {
        /// The process.
        pid: i32,
        /// What the kernel said.
        error: procfs::ProcError,
    },
    /// The admin port does not answer.
    #[error("cannot read http://{address}/metrics: {error}")]
    Metrics {
        /// The admin port.
        address: SocketAddr,
        /// What happened.
        error: io::Error,
    },
}

/// Values by the name and labels they have in the exposition; several servers are added up.
pub(crate) type Metrics = BTreeMap<String, f64>;

impl Servers {
    /// Watches processes and admin ports; both may be empty.
    pub(crate) fn new(pids: Vec<i32>, admins: Vec<SocketAddr>) -> Servers {
        Servers { pids, admins }
    }

    /// What the processes have used so far; `None` when none is watched.
    ///
    /// # Errors
    /// A process cannot be read; without it the sum would be a lie.
    pub(crate) fn usage(&self) -> Result<Option<Usage>, ServerError> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        let mut total = Usage::default();
        for pid in &self.pids {
            let usage = usage_of(*pid).map_err(|error| ServerError::Process { pid: *pid, error })?;
            total.cpu_seconds += usage.cpu_seconds;
            total.rss_bytes += usage.rss_bytes;
            total.rss_peak_bytes += usage.rss_peak_bytes;
            total.threads += usage.threads;
        }
        Ok(Some(total))
    }

    /// The metrics of all admin ports, added up.
    ///
    /// # Errors
    /// One of them does not answer.
    pub(crate) fn metrics(&self) -> Result<Metrics, ServerError> {
        let mut total = Metrics::new();
        for address in &self.admins {
            let text = scrape(*address).map_err(|error| ServerError::Metrics { address: *address, error })?;
            for (name, value) in parse(&text) {
                *total.entry(name.to_owned()).or_default() += value;
            }
        }
        Ok(total)
    }
}

/// What changed: counters by how much they rose, everything else as it is now.
pub(crate) fn change(before: &Metrics, after: &Metrics) -> Metrics {
    let is_counter = |name: &str| name.split('{').next().is_some_and(|name| name.ends_with("_total"));
    let changed = after.iter().map(|(name, now)| {
        let then = before.get(name).copied().filter(|_| is_counter(name)).unwrap_or(0.0);
        (name.clone(), now - then)
    });
    changed.collect()
}

fn usage_of(pid: i32) -> procfs::ProcResult<Usage> {
    let process = Process::new(pid)?;
    let (stat, status) = (process.stat()?, process.status()?);
    Ok(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        rss_bytes: status.vmrss.unwrap_or(0) * 1024,
        rss_peak_bytes: status.vmhwm.unwrap_or(0) * 1024,
        threads: status.threads,
    })
}

fn scrape(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, SCRAPE_PATIENCE)?;
    stream.set_read_timeout(Some(SCRAPE_PATIENCE))?;
    stream.set_write_timeout(Some(SCRAPE_PATIENCE))?;
    // HTTP/1.0 makes the server end the answer by closing, so that there is no chunking to undo.
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(SCRAPE_BYTES_MAX).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split_whitespace().nth(1) == Some("200") => Ok(body.to_owned()),
        Some((head, _)) => Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Name (with labels) and value of every sample; anything else is skipped.
fn parse(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        // A label value may hold spaces, so the name ends behind its labels.
        let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
        let value = line[end..].split_whitespace().next()?.parse().ok()?;
        Some((&line[..end], value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels_and_comments_are_not() {
        let text =
            "# HELP a b\n# TYPE a counter\na_total 3\nb{x=\"1 2\",y=\"}\"} 4.5 1700000000\nc NaN\nbroken\n# EOF\n";
        let samples: Vec<_> = parse(text).filter(|(_, value)| !value.is_nan()).collect();
        assert_eq!(samples, [("a_total", 3.0), ("b{x=\"1 2\",y=\"}\"}", 4.5)]);
    }

    #[test]
    fn counters_report_their_rise_and_gauges_their_value() {
        let metrics = |samples: [(&str, f64); 2]| samples.map(|(name, value)| (name.to_owned(), value)).into();
        let before = metrics([("sent_total{a=\"b\"}", 10.0), ("connections", 5.0)]);
        let after = metrics([("sent_total{a=\"b\"}", 12.0), ("connections", 7.0)]);
        assert_eq!(change(&before, &after), metrics([("sent_total{a=\"b\"}", 2.0), ("connections", 7.0)]));
    }

    #[test]
    fn this_process_uses_memory_and_a_missing_one_is_an_error() {
        let own = i32::try_from(std::process::id()).unwrap();
        let usage = Servers::new(vec![own], Vec::new()).usage().unwrap().unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_peak_bytes >= usage.rss_bytes && usage.threads > 0);
        assert!(Servers::new(vec![own, -1], Vec::new()).usage().is_err());
        assert_eq!(Servers::new(Vec::new(), Vec::new()).usage().unwrap(), None);
    }
}
