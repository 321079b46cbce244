//! The numbers of the process that every Prometheus client has: CPU, memory, files, start.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

use super::page::Page;
use crate::descriptors;
use crate::wall_clock::since_epoch;

/// Reads the numbers of this process.
#[derive(Debug)]
pub(super) struct ProcessNumbers {
    /// The Unix time at which the process started.
    started: Option<Duration>,
}

/// What `/proc/self/stat` says of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProcessStat {
    /// CPU time, in clock ticks.
    cpu: u64,
    threads: u64,
    /// Clock ticks from the start of the machine to that of the process.
    started: u64,
    virtual_bytes: u64,
    /// Memory in use, in pages.
    resident: u64,
}

impl ProcessStat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Parses the line; the name of the program in it may contain blanks and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // proc(5) counts from 1, and the name is the second field.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident: field(24)?,
        })
    }
}

impl ProcessNumbers {
    /// Notes when the process started: later the wall clock may be set.
    pub(super) fn new() -> Self {
        let awake = clock_gettime(ClockId::Boottime);
        let awake = Duration::from_secs(u64::try_from(awake.tv_sec).unwrap_or_default());
        let started = ProcessStat::read().map(|stat| {
            let age = awake.saturating_sub(Duration::from_secs_f64(seconds(stat.started)));
            since_epoch().saturating_sub(age)
        });
        Self { started }
    }

    pub(super) fn measure(&self, page: &mut Page<'_>) {
        if let Some(started) = self.started {
            let help = "The Unix time at which the process started";
            page.gauge("process_start_time_seconds", help, started.as_secs());
        }
        if let Some(stat) = ProcessStat::read() {
            let help = "CPU time of the process";
            page.counter("process_cpu_seconds", help, seconds(stat.cpu));
            let help = "Memory of the process in use";
            let resident = stat.resident.saturating_mul(page_bytes());
            page.gauge("process_resident_memory_bytes", help, resident);
            let help = "Address space of the process";
            page.gauge("process_virtual_memory_bytes", help, stat.virtual_bytes);
            page.gauge("process_threads", "Threads of the process", stat.threads);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            page.gauge("process_open_fds", "Open file descriptors", open.count());
        }
        page.gauge("process_max_fds", "The most open file descriptors", descriptors::limit());
    }
}

fn page_bytes() -> u64 {
    u64::try_from(page_size()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "the page has floating-point numbers")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) (b c) S 1 7 7 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 5 0 999 4096 12 0";
        let expected =
            ProcessStat { cpu: 150, threads: 5, started: 999, virtual_bytes: 4_096, resident: 12 };
        assert_eq!(ProcessStat::parse(line), Some(expected));
        assert_eq!(ProcessStat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_started_before_now_and_less_than_a_day_ago() {
        let started = ProcessNumbers::new().started.unwrap();
        let age = since_epoch().saturating_sub(started);
        assert!(age < Duration::from_hours(24), "{age:?}");
    }
}
