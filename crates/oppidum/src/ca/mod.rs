//! The store's own certificate authority: `oppidum ctl ca` makes it, issues certificates, and lists
//! them.
//!
//! [`authority`] issues, for [`subject`]s; [`folder`] keeps the files, [`certificate`] reads them,
//! [`listing`] shows when they end, and [`local`] makes all of it for a store on one machine.
//!
//! There is no revocation list: certificates are short-lived, and a CA whose key is stolen is
//! replaced. No output and no error shows a key.

mod authority;
mod certificate;
mod folder;
mod listing;
pub(crate) mod local;
pub(crate) mod subject;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use wire::exit::Stop;
use wire::wall_clock::{minute, since_epoch};

use crate::cli::ca::{Ca, IssueCertificate};
use authority::{Authority, Validity};
use folder::{CA, CaFolder};
use listing::Listing;
use subject::{CertificateHost, HOSTS_MAX, StoreName, Subject, default_lifetime};

/// Runs `oppidum ctl ca`. False: a certificate ends soon.
pub(crate) fn run(what: Ca) -> Result<bool, Stop> {
    let now = since_epoch();
    match what {
        Ca::Init { dir, store } => init(&dir, &store, now).map(|()| true),
        Ca::Issue(request) => issue(&request, now).map(|()| true),
        Ca::List { dir } => list(&dir, now),
    }
}

fn init(dir: &Path, store: &StoreName, now: Duration) -> Result<(), Stop> {
    let folder = CaFolder::create(dir)?;
    for file in ["ca.pem", "ca.key"] {
        if folder.has(file) {
            let shown = folder.file(file);
            return Err(Stop::Setup(format!(
                "{} is there already, and is kept: `oppidum ctl ca issue` issues certificates, \
                 and a new CA needs a new folder (`--dir`)",
                shown.display()
            )));
        }
    }
    let validity = Validity::of_ca(now);
    let (_, pair) = Authority::create(store, validity).map_err(Stop::Setup)?;
    folder.write(CA, &pair)?;
    let shown = folder.file("ca.pem");
    answer!("{}: the CA of {store}, until {} UTC", shown.display(), minute(validity.ends()));
    note!(
        "{} decides which processes belong to the store: keep it on this machine, and copy it to \
         no host of the store",
        folder.file("ca.key").display()
    );
    Ok(())
}

fn issue(request: &IssueCertificate, now: Duration) -> Result<(), Stop> {
    let IssueCertificate { dir, subjects, hosts, lifetime } = request;
    let subjects = subject::all_of(subjects).map_err(Stop::Setup)?;
    if HOSTS_MAX < hosts.len() {
        let why = format!("a certificate has at most {HOSTS_MAX} values of `--host`");
        return Err(Stop::Setup(why));
    }
    let folder = CaFolder::open(dir)?;
    let authority = folder.authority()?.ok_or_else(|| folder::no_ca(dir))?;
    for subject in &subjects {
        let lifetime = lifetime.unwrap_or_else(|| default_lifetime(subject.role()));
        issue_one(&folder, &authority, subject, hosts, Validity::new(now, lifetime))?;
    }
    let pairs = match subjects.as_slice() {
        [subject] => format!("{subject}.key and {subject}.pem"),
        _ => "each pair".to_owned(),
    };
    note!(
        "copy {pairs} to the folder of its --tls, and ca.pem if it has none; a process that runs \
         uses the new pair within 30 s"
    );
    Ok(())
}

fn issue_one(
    folder: &CaFolder,
    authority: &Authority,
    subject: &Subject,
    hosts: &[CertificateHost],
    validity: Validity,
) -> Result<(), Stop> {
    let pair = authority.issue(subject, hosts, validity);
    let pair = pair.map_err(|why| Stop::Setup(format!("{}: {why}", folder.file("").display())))?;
    let file = folder.file(&format!("{subject}.pem"));
    // One that cannot be read is replaced as well.
    let former = folder::certificates(&file).ok().flatten();
    folder.write(&subject.to_string(), &pair)?;
    let (until, store) = (minute(validity.ends()), authority.store());
    let (role, name) = (subject.role().word(), subject.name());
    answer!("{}: {role} {name} of {store}, until {until} UTC", file.display());
    if let Some(former) = former.iter().flatten().next() {
        note!("it replaces the certificate that ends at {} UTC", minute(former.ends));
        let kept: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let dropped = former.hosts().filter(|host| !kept.iter().any(|kept| kept == host));
        let dropped: Vec<&str> = dropped.collect();
        if !dropped.is_empty() {
            note!("that one was also for {}: repeat `--host` to keep them", dropped.join(", "));
        }
    }
    Ok(())
}

fn list(dir: &Path, now: Duration) -> Result<bool, Stop> {
    let listing = Listing::read(dir, now)?;
    for line in listing.lines() {
        answer!("{line}");
    }
    if !listing.unreadable.is_empty() {
        return Err(Stop::Setup(listing.unreadable.join("; ")));
    }
    if 0 < listing.ending {
        note!(
            "{} of these end within 14 days: `oppidum ctl ca issue` with the same role and name \
             renews a certificate",
            listing.ending
        );
    }
    Ok(listing.ending == 0)
}
