//! Values in command lines and settings, and how their texts are parsed.

use std::fmt::Display;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::frontend::classic::Dialect;
use ::frontend::{CustomerAddress, PublicStatus};
use clap::Args;
use ledger::api_key::{ApiKeyDigest, ApiKeyId};
use ledger::api_key_text::API_KEY_PREFIX;
use order::RootKey;
use wire::exit::Stop;
use wire::telemetry;

use crate::address::Addresses;
use crate::settings::{self, Settings};
use crate::{http, internal_plane, key_file};

/// The store that a client talks to.
#[derive(Clone, Debug, Args)]
pub(crate) struct Url {
    /// A frontend, by its public address or its internal one [default: `http://127.0.0.1:1234`]
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// With https: a file of the certificate authorities to trust [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<String>,
    /// The file of the API key to send [default: none is sent]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<String>,
    /// Of a store with mutual TLS: the folder of ca.pem and of the operator's certificate and key
    /// [default: that of a store that `up` runs on this machine]
    #[arg(long, value_name = "DIR")]
    pub(crate) tls: Option<String>,
}

impl Url {
    /// The address of the store. From now on, connections to `https://` trust these authorities,
    /// and requests to this address carry this API key.
    pub(crate) fn resolve(self, settings: &mut Settings) -> Result<String, Stop> {
        let url: String = settings.want(settings::URL, self.url)?;
        let file: Option<FreeText> = settings.take(settings::CA_FILE, self.ca_file)?;
        http::trust(file.map(|FreeText(file)| file.into()));
        let folder: Option<FreeText> = settings.take(settings::TLS, self.tls)?;
        if let Some(FreeText(folder)) = folder {
            internal_plane::set_folder(
                Some(folder).filter(|folder| folder != NONE).map(Into::into),
            );
        }
        let file: Option<KeyFile> = settings.take(settings::KEY_FILE, self.key_file)?;
        if let Some(KeyFile(FreeText(file))) = file {
            http::authenticate(&url, &key_file::read(file.as_ref())?)?;
        }
        Ok(url)
    }
}

/// The folder of certificates that `--tls` or `OPPIDUM_TLS` names. `None`: neither, or `none`.
pub(crate) fn tls_folder(
    settings: &mut Settings,
    flag: Option<String>,
) -> Result<Option<PathBuf>, Stop> {
    let folder: Option<FreeText> = settings.take(settings::TLS, flag)?;
    let folder = folder.filter(|FreeText(folder)| folder != NONE);
    Ok(folder.map(|FreeText(folder)| folder.into()))
}

/// The word for an empty list.
pub(crate) const NONE: &str = "none";

/// `HOST:PORT,…`, or `none`.
pub(crate) struct OrNone(pub(crate) Vec<String>);

impl FromStr for OrNone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            NONE => Ok(Self(Vec::new())),
            list => list.parse().map(|Addresses(list)| Self(list)),
        }
    }
}

/// A value that was parsed only to check it, and is passed on as text.
#[derive(Clone, Debug)]
pub(crate) struct Checked<T> {
    /// The text as it was written.
    pub(crate) text: String,
    what: PhantomData<T>,
}

impl<T: FromStr> FromStr for Checked<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse::<T>().map(|_| Self { text: text.to_owned(), what: PhantomData })
    }
}

/// A folder, or the name of a store: any text but those that a shell or an editor left unfinished,
/// because the text is used verbatim.
#[derive(Debug)]
pub(crate) struct FreeText(pub(crate) String);

impl FromStr for FreeText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const QUOTES: &str = "“”„‟‘’‚‛«»‹›";
        let at_ends = |odd: fn(char) -> bool| text.starts_with(odd) || text.ends_with(odd);
        let found = |odd: &dyn Fn(char) -> bool| text.chars().find(|letter| odd(*letter));
        if let Some(letter) = found(&|letter| letter.is_control()) {
            return Err(format!("it holds the control character U+{:04X}", u32::from(letter)));
        }
        if text == "~" || text.starts_with("~/") {
            return Err("~ is not replaced here: write the whole path (or ./~)".into());
        }
        if text.contains('`') || text.contains("$(") {
            return Err("commands are not run here: write their result".into());
        }
        if let Some(letter) = found(&|letter| QUOTES.contains(letter)) {
            return Err(format!("it holds the typographic quote {letter}: leave it out"));
        }
        if at_ends(|letter| letter.is_whitespace() || "\"'".contains(letter)) {
            Err("it begins or ends with a blank or a quote: leave that out".into())
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// The file of an API key, and not the key itself, which other users could read there.
#[derive(Debug)]
struct KeyFile(FreeText);

impl FromStr for KeyFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(API_KEY_PREFIX) {
            return Err("this is an API key: write it to a file that only you can read, and give \
                        the name of the file"
                .into());
        }
        text.parse().map(Self)
    }
}

/// The first API key of a new store, as `oppidum init` prints it: `ID:DIGEST`, or `none`.
#[derive(Debug)]
pub(crate) struct RootKeyLine(pub(crate) Option<RootKey>);

impl FromStr for RootKeyLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let odd = || "expected ID:DIGEST, as `oppidum init` prints it".to_owned();
        if text == NONE {
            return Ok(Self(None));
        }
        if text.starts_with(API_KEY_PREFIX) {
            return Err("this is a whole API key, which no replica may have".into());
        }
        let (id, digest) = text.split_once(':').ok_or_else(odd)?;
        let id = ApiKeyId::new(id.as_bytes()).ok_or_else(odd)?;
        if digest.len() != 32 || !digest.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(odd());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digest.as_bytes().chunks(2)) {
            let pair = str::from_utf8(pair).map_err(|_| odd())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| odd())?;
        }
        Ok(Self(Some(RootKey { id, digest: ApiKeyDigest(bytes) })))
    }
}

/// A log filter, in `tracing`'s form.
pub(crate) struct Filter(pub(crate) String);

impl FromStr for Filter {
    type Err = telemetry::FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        telemetry::check_filter(text).map(|()| Self(text.to_owned()))
    }
}

/// A number of products, or `off`.
pub(crate) struct Capacity(pub(crate) usize);

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(0)),
            number => match number.parse() {
                Ok(capacity) if capacity <= 10_000_000 => Ok(Self(capacity)),
                Ok(_) => Err("at most 10000000 products".into()),
                Err(_) => Err("expected a number of products, or off".into()),
            },
        }
    }
}

/// `on` or `off`.
pub(crate) struct OnOff(pub(crate) bool);

impl FromStr for OnOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("expected on or off".into()),
        }
    }
}

/// A form of `/status`, by its name.
pub(crate) struct StatusForm(pub(crate) PublicStatus);

impl FromStr for StatusForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "short" => Ok(Self(PublicStatus::Short)),
            "full" => Ok(Self(PublicStatus::Full)),
            _ => Err("expected full or short".into()),
        }
    }
}

/// How gateways name their customers, by its name.
pub(crate) struct CustomerAddressName(pub(crate) CustomerAddress);

impl FromStr for CustomerAddressName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unknown" => Ok(Self(CustomerAddress::Unknown)),
            "x-forwarded-for" => Ok(Self(CustomerAddress::XForwardedFor)),
            "forwarded" => Ok(Self(CustomerAddress::Forwarded)),
            "proxy-protocol" => Ok(Self(CustomerAddress::ProxyProtocol)),
            _ => Err("expected unknown, x-forwarded-for, forwarded or proxy-protocol".into()),
        }
    }
}

/// A dialect by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialectName(pub(crate) Dialect);

impl FromStr for DialectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stock" => Ok(Self(Dialect::Stock)),
            "toy" => Ok(Self(Dialect::Toy)),
            _ => Err("expected stock or toy".into()),
        }
    }
}

impl Display for DialectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

/// Parses a probability, from 0 to 1.
pub(super) fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    number.ok_or_else(|| "a probability is from 0 to 1".into())
}

/// Parses a time such as `3s`, `0.5s` or `500ms`; at most an hour.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let odd = || format!("a time is written as 3s or 500ms, not {text:?}");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').ok_or_else(odd)?, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| odd())?;
    let seconds = number * unit;
    if !(0.0..=3600.0).contains(&seconds) {
        return Err("a time is from 0s to 3600s".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| odd())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: a folder with a mistaken name, in which a store starts empty.
    #[test]
    fn a_text_that_a_shell_would_expand_is_refused() {
        for text in ["./oppidum-data", "/var/my data", "a~b", "o'neil", "shop $5", "Füchse", "./~"]
        {
            assert_eq!(text.parse::<FreeText>().map(|it| it.0).as_deref(), Ok(text));
        }
        for (text, words) in [
            ("~", "~ is not replaced"),
            ("~/data", "~ is not replaced"),
            ("/srv/$(hostname)", "commands"),
            ("`pwd`/data", "commands"),
            ("“data”", "typographic quote “"),
            ("‘x", "typographic quote ‘"),
            (" data", "begins or ends"),
            ("data\u{a0}", "begins or ends"),
            ("\"data\"", "begins or ends"),
            ("data'", "begins or ends"),
            ("da\tta", "U+0009"),
            ("data\u{85}", "U+0085"),
        ] {
            let error = text.parse::<FreeText>().unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
    #[test]
    fn times_are_parsed_with_their_unit() {
        let table = [("3s", 3_000), ("500ms", 500), ("0.5s", 500), ("0s", 0), ("1 s", 1_000)];
        for (text, millis) in table {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for odd in ["", "3", "-1s", "s", "NaNs", "9000s", "infs", "3m"] {
            assert!(span(odd).is_err(), "{odd}");
        }
    }
}
