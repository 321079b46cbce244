//! `oppidum ctl recover`: brings a store back when a majority of its replicas is lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::terms::OrderNumber;
use order::new_series::NewSeries;
use order::raft::recovery::{Knowledge, Survivor};
use tokio::io::{AsyncBufReadExt, BufReader};
use wire::exit::Stop;
use wire::wall_clock;

use crate::cli::members::Recover;
use crate::cli::values::FreeText;
use crate::settings::{self, Settings};

/// `oppidum ctl recover`. False: the operator did not confirm it.
pub(crate) async fn recover(flags: Recover) -> Result<bool, Stop> {
    crate::roles::keep_private();
    let FreeText(data) = Settings::load()?.want(settings::DATA, flags.data)?;
    let data = PathBuf::from(data);
    let Some(id) = flags.id else { return compare(&data).await };
    let survivor = Survivor::open(&folder(&data, id), id).await?;
    tell(survivor.knowledge());
    if !flags.force_new_cluster {
        return Ok(true);
    }
    let series = survivor.new_series(flags.orders_from.map(OrderNumber))?;
    warn(survivor.knowledge(), series.as_ref());
    if !flags.yes && !is_confirmed(&survivor.knowledge().cluster).await {
        answer!("not confirmed: nothing has changed");
        return Ok(false);
    }
    let term = survivor.go_on_alone(series.as_ref()).await?;
    answer!(
        "replica {id} is the only one of its store now, from term {term} on. Start it with the \
         flags it had, run `oppidum verify`, and add new replicas: `oppidum ctl member add --help`"
    );
    Ok(true)
}

/// Compares the newest entries in the replicas' folders. A folder that cannot be read is named, and
/// the comparison goes on with the others.
async fn compare(data: &Path) -> Result<bool, Stop> {
    let mut known: Vec<((u64, u64), u64)> = Vec::new();
    let mut unreadable = None;
    for id in ids(data)? {
        match Survivor::open(&folder(data, id), id).await {
            Ok(survivor) => {
                tell(survivor.knowledge());
                known.push((survivor.knowledge().last, id));
            }
            Err(why) => {
                answer!("replica {id} is passed over: {why}\n");
                unreadable = Some(why);
            }
        }
    }
    let Some((_, id)) = known.iter().max() else {
        let place = data.display();
        let none = || Stop::Setup(format!("{place} holds no replica's folder: give --data"));
        return Err(unreadable.unwrap_or_else(none));
    };
    answer!(
        "{id} knows most of {}: compare with what the other machines' folders say (the greater \
         term, then the greater entry), and recover from that one: `oppidum ctl recover \
         --force-new-cluster --data {} --id {id}`",
        if known.len() == 1 { "this one" } else { "these" },
        data.display()
    );
    Ok(true)
}

fn ids(data: &Path) -> Result<Vec<u64>, Stop> {
    let cannot = |error: std::io::Error| {
        Stop::Setup(format!("cannot look into {}: {error}; give --data", data.display()))
    };
    let entries = std::fs::read_dir(data).map_err(cannot)?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ids = names.filter_map(|name| name.strip_prefix("order-")?.parse().ok());
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    Ok(ids)
}

fn folder(data: &Path, id: u64) -> PathBuf {
    data.join(format!("order-{id}"))
}

fn tell(knowledge: &Knowledge) {
    let Knowledge { id, cluster, folder, ledger, voters, last, committed, .. } = knowledge;
    let (term, index) = last;
    let voters = voters.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    answer!(
        "replica {id} of store \"{cluster}\", in {}\n  \
         ledger {}, replicas {voters}\n  \
         its log ends with entry {index} of term {term}, at {} UTC\n  \
         entry {committed} is the last that it knows to be decided\n  \
         it knows every order below number {}\n",
        folder.display(),
        ledger.as_deref().unwrap_or("none"),
        wall_clock::second(Duration::from_millis(knowledge.log_time_ms)),
        knowledge.next_order_number,
    );
}

fn warn(knowledge: &Knowledge, series: Option<&NewSeries>) {
    let Knowledge { id, voters, last: (_, index), .. } = knowledge;
    let others: Vec<String> =
        voters.iter().filter(|other| *other != id).map(u64::to_string).collect();
    let others =
        if others.is_empty() { "any other replica".to_owned() } else { others.join(" and ") };
    answer!(
        "What happens: {id} becomes the only replica of its store, and goes on with exactly what \
         is above.\n\
         What may be lost: everything that {others} acknowledged beyond entry {index}. A client \
         that repeats a lost order places it again, under a new number.\n\
         What cannot be undone: none of the lost ({others}) comes back as it is. It is refused and \
         stops; do not start it while {id} is down. Set its folder aside, and let it join with an \
         empty one, under a new id."
    );
    if let Some(series) = series {
        answer!("{}", order_numbers(series));
    }
    answer!("");
}

/// How order numbers go on, for the operator.
pub(crate) fn order_numbers(series: &NewSeries) -> String {
    let first = series.first();
    if series.is_continued() {
        return format!("Order numbers: go on with {first}, without a gap.");
    }
    format!("Order numbers: a new series (--orders-from sets another). The next is {series}.")
}

/// Asks the operator to type the name of the store.
pub(crate) async fn is_confirmed(cluster: &str) -> bool {
    answer!("Type the name of the store, {cluster}, to go on:");
    let mut line = String::new();
    let read = BufReader::new(tokio::io::stdin()).read_line(&mut line).await;
    read.is_ok() && line.trim() == cluster
}
