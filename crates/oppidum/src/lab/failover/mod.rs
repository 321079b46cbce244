//! `oppidum lab failover`: kills or freezes processes under load, and measures whether clients
//! notice and whether all replicas stay identical.

mod findings;

mod plot;

mod fault;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::cli::lab::Failover;
use crate::inspect::{self, Verdict};
use crate::lab::cluster::{self, ClusterSpec, LEADERS, LocalCluster};
use crate::lab::elections::{Election, elections};
use crate::lab::files;
use crate::lab::progress::ProgressLine;
use crate::load;
use crate::load::report::{KINDS, Report, Sample, print_failures};
use crate::load::workload::{LoadProgress, Workload};
use crate::output::ms;
use crate::signals::Interrupt;
use fault::InjectedFault;
use findings::Findings;

/// How long orders flow before the first fault, and between two faults.
const FAULT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client waits for an answer before it tries another frontend.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The results of the experiment.
struct FailoverRun {
    began: Instant,
    report: Report,
    faults: Vec<InjectedFault>,
    elections: Vec<Election>,
    verdict: Verdict,
}

/// Runs the experiment. False: clients noticed, or a check failed.
pub(super) async fn run(flags: &Failover, interrupt: &Interrupt) -> Result<bool, Stop> {
    let out = &flags.crowd.out;
    files::create_folder(out)?;
    let spec = ClusterSpec { frontends: 2, catalogs: 2, log: LEADERS, ..ClusterSpec::new("stock") };
    let seen =
        cluster::with(&spec, interrupt, async |cluster| experiment(cluster, flags).await).await?;
    let findings = Findings::of(&seen.report.samples, &seen.faults);
    let how = if flags.freeze { "frozen" } else { "killed" };
    let subtitle = format!(
        "{} clients; {} times a process was {how} ({}) and came back after {:?}",
        flags.crowd.clients,
        seen.faults.len(),
        format!("{:?}", flags.kill).to_lowercase(),
        flags.restart_after
    );
    let plot = plot::FailoverPlot {
        began: seen.began,
        samples: &seen.report.samples,
        faults: &seen.faults,
        elections: &seen.elections,
        usual: findings.usual,
    };
    let drawn = files::write(out, "failover.svg", &plot::draw(&plot, &subtitle))?;
    let written = files::write(out, "failover.csv", &csv(seen.began, &seen.report.samples))?;
    show(&seen, &findings);
    let well = answer(&seen, &findings);
    answer!("\nwritten: {}, {}", drawn.display(), written.display());
    Ok(well)
}

/// Runs the customers and the faults, and checks the store at the end.
async fn experiment(cluster: &LocalCluster, flags: &Failover) -> Result<FailoverRun, Stop> {
    let shop = load::fetch_shop(&cluster.url()).await?;
    let workload = Workload::quiet(flags.crowd.clients, u64::MAX, flags.p, flags.crowd.seed);
    let workload =
        Workload { pause: flags.pause, timeout: ATTEMPT_TIMEOUT, samples: true, ..workload };
    let closing = CancellationToken::new();
    let tally = Arc::new(LoadProgress::default());
    let began = Instant::now();
    let injecting = async {
        let faults = inject_faults(cluster, flags).await;
        // Also after an error: the customers stop, and confirm their orders.
        closing.cancel();
        faults
    };
    let urls = cluster.urls();
    let customers = load::run_customers(&urls, &shop, workload, &closing, &tally);
    let (report, faults) = tokio::join!(customers, injecting);
    let report = report?;
    let faults = faults?;
    cluster.level().await?;
    let verdict = inspect::judge(&cluster.url()).await?;
    let mut elections = elections(&cluster.matched());
    elections.retain(|election| began <= election.at);
    Ok(FailoverRun { began, report, faults, elections, verdict })
}

async fn inject_faults(
    cluster: &LocalCluster,
    flags: &Failover,
) -> Result<Vec<InjectedFault>, Stop> {
    let mut rng = StdRng::seed_from_u64(flags.crowd.seed);
    let mut faults = Vec::new();
    let progress = ProgressLine::of(flags.repeat.into());
    for place in 0..flags.repeat {
        let what = format!("accident {} of {}", place + 1, flags.repeat);
        progress.show(&what, place.into());
        tokio::time::sleep(FAULT_INTERVAL).await;
        faults.push(fault::inject(cluster, flags, &mut rng).await?);
    }
    progress.show("confirming every order", flags.repeat.into());
    tokio::time::sleep(FAULT_INTERVAL).await;
    Ok(faults)
}

/// Every request as CSV.
fn csv(began: Instant, samples: &[Sample]) -> String {
    let mut text = "at_s,kind,ms,came,moved,put_off\n".to_owned();
    let mut sorted: Vec<&Sample> = samples.iter().collect();
    sorted.sort_by_key(|sample| sample.began);
    for sample in sorted {
        let name = KINDS.iter().find(|(kind, _)| *kind == sample.kind).map_or("", |kind| kind.1);
        let at = sample.began.saturating_duration_since(began).as_secs_f64();
        let millis = sample.took.as_secs_f64() * 1_000.0;
        let _ = writeln!(
            text,
            "{at:.4},{},{millis:.3},{},{},{}",
            name.replace(", ", "_").replace('-', ""),
            format!("{:?}", sample.result).to_lowercase(),
            sample.moved,
            sample.put_off
        );
    }
    text
}

/// Prints a line for each fault.
fn show(seen: &FailoverRun, findings: &Findings) {
    let leads: Vec<String> = (0..seen.faults.len()).map(|place| leads(seen, place)).collect();
    let wide = leads.iter().map(String::len).fold("leads then".len(), usize::max);
    answer!(
        "{:<3} {:<10} {:<6}  {:<wide$} {:>12} {:>16}  over the promise",
        "",
        "process",
        "",
        "leads then",
        "longest gap",
        "slowest request"
    );
    for (place, (fault, found)) in seen.faults.iter().zip(&findings.faults).enumerate() {
        answer!(
            "{:<3} {:<10} {}  {:<wide$} {:>12} {:>16}  {} over {} + {}",
            format!("#{}", place + 1),
            fault.victim,
            if fault.frozen { "frozen" } else { "killed" },
            leads[place],
            ms(found.gap),
            ms(found.slowest),
            found.late,
            ms(findings.usual),
            ms(fault.within)
        );
    }
    let gap = ms(findings.undisturbed.gap);
    let slowest = ms(findings.undisturbed.slowest);
    let wide = wide + 19;
    answer!("{:<3} {:<wide$} {gap:>12} {slowest:>16}", "", "without a fault");
    answer!(
        "{:<3} {} is what requests take anyway: the 99th percentile without a fault\n",
        "",
        ms(findings.usual)
    );
}

/// The leaders elected after a fault, and how soon.
fn leads(seen: &FailoverRun, place: usize) -> String {
    let fault = &seen.faults[place];
    let next = seen.faults.get(place + 1).map(|next| next.injected);
    let own = seen.elections.iter().filter(|election| {
        fault.injected <= election.at && next.is_none_or(|next| election.at < next)
    });
    let after = |election: &Election| {
        format!("{} after {}", election.leader, ms(election.at - fault.injected))
    };
    let leads: Vec<String> = own.map(after).collect();
    match (leads.is_empty(), fault.led) {
        (false, _) => leads.join(", "),
        (true, true) => "the same".into(),
        (true, false) => "-".into(),
    }
}

/// Prints the answers. True: no client noticed a fault, and every check holds.
fn answer(seen: &FailoverRun, findings: &Findings) -> bool {
    let Report { orders, confirmed, failures, .. } = &seen.report;
    if *orders == 0 {
        answer!("Nothing was measured: no order was acknowledged.");
        return false;
    }
    print_failures(failures);
    print_finding("Do clients notice?", &noticed(findings));
    let (gap, at) = findings.longest_gap();
    let at = at.map_or("without a fault".into(), |place| format!("at #{}", place + 1));
    print_finding(
        "The longest gap?",
        &format!("{} between two acknowledged orders, {at}.", ms(gap)),
    );
    let Verdict { replicas, violation } = &seen.verdict;
    match (violation, replicas.first()) {
        (None, Some(found)) => {
            let ids: Vec<String> = replicas.iter().map(|found| found.id.to_string()).collect();
            let digest = found.digest.get(..12).unwrap_or(&found.digest);
            let identical =
                format!("Yes: digest {digest}… at index {} on {}.", found.as_of, ids.join(", "));
            print_finding("Are all replicas identical?", &identical);
            print_finding(
                "Are the numbers dense?",
                &format!("Yes: {} orders without a gap.", found.orders),
            );
            print_finding(
                "Is the stock conserved?",
                "Yes: every history was replayed from its beginning.",
            );
        }
        (violation, _) => {
            let why = violation.as_deref().unwrap_or("no replica was found");
            print_finding("Is every replica correct?", &format!("No. {why}"));
        }
    }
    let all = orders == confirmed;
    let yes = if all { "Yes" } else { "No" };
    let of = format!("{confirmed} of {orders}");
    print_finding("Is every order confirmed?", &format!("{yes}: {of}, each as it was placed."));
    !findings.noticed() && violation.is_none() && all && failures.is_empty()
}

fn noticed(findings: &Findings) -> String {
    let Findings { requests, failed, put_off, moved, moves_clients, .. } = findings;
    let rerouted = match (moves_clients, moved) {
        (true, 1..) => format!("; {moved} went on at the other frontend"),
        _ => String::new(),
    };
    if !findings.noticed() {
        return format!(
            "No: of {requests} requests none failed, none was put off, and no wait was longer than \
             promised{rerouted}."
        );
    }
    let broke = if *moves_clients { 0 } else { *moved };
    format!(
        "Yes: of {requests} requests {failed} failed, {put_off} were put off with 429, 503 or 504, \
         {broke} lost their connection, and {} waited longer than promised{rerouted}.",
        findings.late()
    )
}

fn print_finding(question: &str, answer: &str) {
    answer!("{question:<29} {answer}");
}
