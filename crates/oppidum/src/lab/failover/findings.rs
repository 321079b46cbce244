//! The effect of the faults on the clients' requests: pure sums over the samples.

use std::time::{Duration, Instant};

use crate::load::report::{Kind, RequestResult, Sample};

use super::fault::InjectedFault;

/// How long after a process is back a delay still counts as an effect of its fault.
const AFTERMATH: Duration = Duration::from_secs(1);

/// The findings of an experiment.
#[derive(Debug)]
pub(super) struct Findings {
    /// The number of requests, with the look-ups at the end.
    pub(super) requests: usize,
    /// The number of failed requests.
    pub(super) failed: usize,
    /// The number of requests that were sent again because the store answered 429, 503 or 504.
    pub(super) put_off: usize,
    /// The number of requests that were sent again over another connection.
    pub(super) moved: usize,
    /// Whether connections had to break, because a frontend was hit.
    pub(super) moves_clients: bool,
    /// The finding for each fault.
    pub(super) faults: Vec<FailoverFinding>,
    /// The finding for the time without a fault.
    pub(super) undisturbed: FailoverFinding,
    /// The latency without a fault, as its 99th percentile. The promise limits what a fault adds to
    /// it.
    pub(super) usual: Duration,
}

/// The finding around one fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FailoverFinding {
    /// The longest time between two acknowledged orders of any clients.
    pub(super) gap: Duration,
    /// The longest latency.
    pub(super) slowest: Duration,
    /// The number of requests whose latency exceeds the usual one by more than the promised limit.
    pub(super) late: usize,
}

impl Findings {
    /// Summarizes all samples of the experiment.
    pub(super) fn of(samples: &[Sample], faults: &[InjectedFault]) -> Self {
        let moves_clients = faults.iter().any(InjectedFault::moves_clients);
        let count = |is: fn(&Sample) -> bool| samples.iter().filter(|s| is(s)).count();
        let gaps = gaps(samples);
        let spans: Vec<(Instant, Instant)> = (0..faults.len()).map(|n| span(faults, n)).collect();
        let is_hit = |own: (Instant, Instant)| spans.iter().any(|span| touches(*span, own));
        let undisturbed = samples.iter().filter(|sample| !is_hit(sample_span(sample)));
        let mut undisturbed: Vec<Duration> = undisturbed.map(|sample| sample.took).collect();
        undisturbed.sort_unstable();
        let usual = undisturbed.get(undisturbed.len() * 99 / 100).copied().unwrap_or_default();
        let found = faults.iter().zip(&spans).map(|(fault, span)| {
            let own = samples.iter().filter(|sample| touches(*span, sample_span(sample)));
            let own: Vec<&Sample> =
                own.filter(|s| !(fault.moves_clients() && s.moved != 0)).collect();
            FailoverFinding {
                gap: longest(gaps.iter().filter(|gap| touches(*span, **gap)).map(length)),
                slowest: longest(own.iter().map(|sample| sample.took)),
                late: own.iter().filter(|sample| fault.within + usual < sample.took).count(),
            }
        });
        Self {
            requests: samples.len(),
            failed: count(|sample| sample.result == RequestResult::Failed),
            put_off: count(|sample| sample.put_off != 0),
            moved: count(|sample| sample.moved != 0),
            moves_clients,
            faults: found.collect(),
            undisturbed: FailoverFinding {
                gap: longest(gaps.iter().filter(|gap| !is_hit(**gap)).map(length)),
                slowest: undisturbed.last().copied().unwrap_or_default(),
                late: 0,
            },
            usual,
        }
    }

    /// The number of requests that exceeded the promised limit.
    pub(super) fn late(&self) -> usize {
        self.faults.iter().map(|found| found.late).sum()
    }

    /// Whether clients noticed anything.
    pub(super) fn noticed(&self) -> bool {
        let broken = !self.moves_clients && self.moved != 0;
        self.failed != 0 || self.put_off != 0 || broken || self.late() != 0
    }

    /// The longest gap, and the fault in whose span it was; None: in none.
    pub(super) fn longest_gap(&self) -> (Duration, Option<usize>) {
        let worst = self.faults.iter().enumerate().max_by_key(|(_, found)| found.gap);
        match worst {
            Some((place, found)) if self.undisturbed.gap <= found.gap => (found.gap, Some(place)),
            _ => (self.undisturbed.gap, None),
        }
    }
}

/// From a fault until [`AFTERMATH`] after the process is back, or until the next fault.
fn span(faults: &[InjectedFault], place: usize) -> (Instant, Instant) {
    let InjectedFault { injected, ended, .. } = faults[place];
    let next = faults.get(place + 1).map(|next| next.injected);
    (injected, next.map_or(ended + AFTERMATH, |next| next.min(ended + AFTERMATH)))
}

fn sample_span(sample: &Sample) -> (Instant, Instant) {
    (sample.began, sample.began + sample.took)
}

/// The time spans between consecutive acknowledged orders.
fn gaps(samples: &[Sample]) -> Vec<(Instant, Instant)> {
    let orders =
        samples.iter().filter(|s| s.kind == Kind::Order && s.result == RequestResult::Done);
    let mut ends: Vec<Instant> = orders.map(|sample| sample.began + sample.took).collect();
    ends.sort_unstable();
    ends.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

fn touches(one: (Instant, Instant), other: (Instant, Instant)) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

fn length((from, to): &(Instant, Instant)) -> Duration {
    *to - *from
}

fn longest(times: impl Iterator<Item = Duration>) -> Duration {
    times.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn order(start: Instant, at: u64, took: u64) -> Sample {
        let began = start + MS(at);
        let took = MS(took);
        Sample { began, took, kind: Kind::Order, result: RequestResult::Done, moved: 0, put_off: 0 }
    }

    fn kill(start: Instant, victim: &str, at: u64) -> InjectedFault {
        InjectedFault {
            victim: victim.into(),
            led: true,
            frozen: false,
            injected: start + MS(at),
            ended: start + MS(at + 1_000),
            within: MS(100),
        }
    }

    #[test]
    fn only_a_delay_in_the_span_of_a_fault_counts_as_noticed() {
        let start = Instant::now();
        // An order every 20 ms that takes 5 ms; another takes 150 ms before the first fault.
        let mut samples: Vec<_> = (0..400).map(|n| order(start, 20 * n, 5)).collect();
        samples.push(order(start, 700, 150));
        let faults = [kill(start, "order-456", 2_000), kill(start, "order-345", 5_000)];
        let undisturbed = Findings::of(&samples, &faults);
        assert!(!undisturbed.noticed(), "{undisturbed:?}");
        assert_eq!(undisturbed.undisturbed.slowest, MS(150));
        assert_eq!(undisturbed.longest_gap().0, MS(20));
        assert_eq!(undisturbed.usual, MS(5));
        // The usual 5 ms, and 100 ms that a fault may add.
        samples.push(order(start, 4_990, 104));
        assert!(!Findings::of(&samples, &faults).noticed());
        samples.push(order(start, 4_990, 130));
        let late = Findings::of(&samples, &faults);
        assert!(late.noticed() && late.late() == 1, "{late:?}");
        assert_eq!((late.faults[0].late, late.faults[1].late), (0, 1));
        assert_eq!(late.faults[1].slowest, MS(130));
    }

    #[test]
    fn the_longest_gap_is_found_with_its_fault() {
        let start = Instant::now();
        let times = [0, 20, 40, 60, 300, 320, 340];
        let samples: Vec<_> = times.iter().map(|at| order(start, *at, 1)).collect();
        let faults = [kill(start, "order-456", 70)];
        assert_eq!(Findings::of(&samples, &faults).longest_gap(), (MS(240), Some(0)));
        assert_eq!(Findings::of(&samples, &[]).longest_gap(), (MS(240), None));
    }

    #[test]
    fn clients_of_a_frontend_that_died_may_move() {
        let start = Instant::now();
        let moved = Sample { moved: 1, ..order(start, 2_000, 300) };
        let samples = [order(start, 0, 5), moved];
        let frontend = [kill(start, "frontend-1", 2_000)];
        assert!(!Findings::of(&samples, &frontend).noticed());
        let leader = [kill(start, "order-456", 2_000)];
        assert!(Findings::of(&samples, &leader).noticed());
        let failed = [Sample { result: RequestResult::Failed, ..order(start, 0, 5) }];
        assert!(Findings::of(&failed, &frontend).noticed());
    }
}
