//! The list of a folder's certificates: whose they are, and when they end.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use wire::exit::Stop;
use wire::wall_clock::minute;

use super::certificate::CertificateView;
use super::folder::{CA, certificates};
use super::subject::{DAY, Subject, says_role};

/// A certificate that ends within this time must be renewed.
const RENEWED_BEFORE: Duration = DAY.saturating_mul(14);

/// The columns of the list.
const COLUMNS: [&str; 6] = ["file", "role", "name", "hosts", "ends (UTC)", "days left"];

/// The certificates of a folder.
#[derive(Debug)]
pub(super) struct Listing {
    rows: Vec<[String; 6]>,
    /// How many end soon, or have ended.
    pub(super) ending: usize,
    /// The files that could not be read, with the reason.
    pub(super) unreadable: Vec<String>,
}

impl Listing {
    /// Reads the certificates in a folder.
    pub(super) fn read(folder: &Path, now: Duration) -> Result<Self, Stop> {
        let none = || {
            let why = "holds no ca.pem: give the folder of a CA, or that of a process's `--tls`";
            Stop::Setup(format!("{} {why}", folder.display()))
        };
        let cas = certificates(&folder.join("ca.pem"))?.ok_or_else(none)?;
        let mut listing = Self { rows: Vec::new(), ending: 0, unreadable: Vec::new() };
        for ca in &cas {
            let whose = ["ca.pem".to_owned(), CA.to_owned(), ca.common_name.clone()];
            listing.add(whose, "-".to_owned(), ca.ends, now);
        }
        for (file, subject) in files(folder)? {
            match leaf(&folder.join(&file), &subject) {
                Ok(view) => {
                    let role = subject.role().word().to_owned();
                    let whose = [file, role, subject.name().to_owned()];
                    let hosts = view.hosts().collect::<Vec<_>>().join(",");
                    let hosts = if hosts.is_empty() { "-".to_owned() } else { hosts };
                    listing.add(whose, hosts, view.ends, now);
                }
                Err(why) => listing.unreadable.push(why.to_string()),
            }
        }
        Ok(listing)
    }

    fn add(&mut self, whose: [String; 3], hosts: String, ends: Duration, now: Duration) {
        let left = ends.saturating_sub(now);
        if left <= RENEWED_BEFORE {
            self.ending += 1;
        }
        let days = match ends <= now {
            true => "has ended".to_owned(),
            false => (left.as_secs() / DAY.as_secs()).to_string(),
        };
        let [file, role, name] = whose;
        self.rows.push([file, role, name, hosts, minute(ends), days]);
    }

    /// The lines of the table.
    pub(super) fn lines(&self) -> Vec<String> {
        let titles = COLUMNS.map(str::to_owned);
        let rows = || std::iter::once(&titles).chain(&self.rows);
        let width = |column: usize| rows().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        let line = |row: &[String; 6]| {
            let padded = row.iter().zip(widths).map(|(text, width)| format!("{text:<width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        rows().map(line).collect()
    }
}

/// The files of subjects, by name.
fn files(folder: &Path) -> Result<Vec<(String, Subject)>, Stop> {
    let failed = |error: std::io::Error| Stop::Setup(format!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().into_string();
        // A name that is no text is not the name of a subject.
        let Ok(file) = name else { continue };
        if let Some(subject) = Subject::of_file(&file) {
            files.push((file, subject));
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

/// The certificate of a subject, the first in its file.
fn leaf(file: &Path, subject: &Subject) -> Result<CertificateView, Stop> {
    let gone = || Stop::Setup(format!("{}: {}", file.display(), ErrorKind::NotFound));
    let views = certificates(file)?.ok_or_else(gone)?;
    let own = |view: &CertificateView| view.names.iter().any(|name| is_of(name, subject));
    let first = views.into_iter().next().ok_or_else(gone)?;
    if own(&first) {
        return Ok(first);
    }
    let (role, name) = (subject.role().word(), subject.name());
    Err(Stop::Setup(format!(
        "{} is not the certificate of {role} {name}: issue it again",
        file.display()
    )))
}

/// Whether a DNS name is that of a subject, in any store.
fn is_of(name: &str, subject: &Subject) -> bool {
    says_role(name) && name.split('.').next() == Some(&*subject.to_string())
}
