//! The rules of settings, as tables.

use super::*;

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn flags_beat_the_environment_beats_dot_env_beats_the_default() {
    let dot_env = "# mine\nOPPIDUM_CACHE = '7'\nexport OPPIDUM_PORT=\"99\"\n\nORDER_SERVICE_ID=456";
    let environment = texts(&[("OPPIDUM_PORT", "88"), ("HOME", "/")]);
    let mut settings = Settings::new(environment, Some(dot_env.as_bytes())).unwrap();
    assert_eq!(settings.want::<u16>(PORT, Some("77".into())).unwrap(), 77);
    assert_eq!(settings.want::<u16>(PORT, None).unwrap(), 88);
    assert_eq!(settings.want::<usize>(CACHE, None).unwrap(), 7);
    assert_eq!(settings.want::<u64>(ID, None).unwrap(), 456);
    assert_eq!(settings.want::<String>(HOST, None).unwrap(), "0.0.0.0");
    assert_eq!(
        settings.notes(),
        [
            "port: 77 (flag --port)",
            "port: 88 (environment OPPIDUM_PORT)",
            "cache: 7 (.env OPPIDUM_CACHE)",
            "id: 456 (.env ORDER_SERVICE_ID)",
            "host: 0.0.0.0 (default)",
        ]
    );
}

/// Kind: a setting that a page names, and that stops every process.
#[test]
fn every_variable_of_the_pages_and_of_the_files_for_deployment_is_known() {
    let pages = [
        include_str!("../../../../docs/reference.md"),
        include_str!("../../../../docs/deploy.md"),
        include_str!("../../../../docs/operating.md"),
        include_str!("../../../../docs/security.md"),
        include_str!("../../../../deploy/systemd/oppidum.env"),
    ];
    // Mistakes and service links, which the reference shows as such.
    let odd = ["OPPIDUM_", "OPPIDUM_CASHE", "OPPIDUM_SERVICE_HOST", "OPPIDUM_PORT_1234_TCP"];
    let is_name = |letter: char| letter.is_ascii_uppercase() || "_0123456789".contains(letter);
    let mut found = 0;
    for page in pages {
        for (at, _) in page.match_indices("OPPIDUM_") {
            let name = page[at..].split(|letter| !is_name(letter)).next().unwrap_or_default();
            let is_known = ALL.iter().any(|setting| setting.variables.contains(&name));
            assert!(is_known || odd.contains(&name), "{name} is on a page, and is no setting");
            found += 1;
        }
    }
    assert!(40 < found, "{found}");
}

#[test]
fn an_unknown_or_invalid_setting_is_an_error() {
    let unknown = Settings::new(texts(&[("OPPIDUM_CASHE", "5")]), None).unwrap_err().to_string();
    assert!(unknown.contains("OPPIDUM_CASHE") && unknown.contains("OPPIDUM_CACHE"), "{unknown}");
    assert!(Settings::new(texts(&[]), Some(b"OPPIDUM_X=1")).is_err());
    assert!(Settings::new(texts(&[]), Some(b"nonsense")).is_err());
    let mut settings = Settings::new(texts(&[("OPPIDUM_PORT", "many")]), None).unwrap();
    assert_eq!(settings.notes(), ["No .env found, proceeding as normal"]);
    let odd = settings.want::<u16>(PORT, None).unwrap_err().to_string();
    assert!(odd.contains("many") && odd.contains("OPPIDUM_PORT"), "{odd}");
    assert!(settings.want::<u64>(ID, None).is_err());
}

/// Kind: a setting that is accepted and has no effect.
#[test]
fn a_misspelt_name_is_an_error_in_every_source() {
    for name in ["OPPIDUM_CASHE", "oppidum_cache", "OPIDUM_CACHE", "OPPIDUM-CACHE", "OPPIDUM_X"] {
        let error = Settings::new(texts(&[(name, "5")]), None).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        let line = format!("\u{feff}{name}=5");
        let error = Settings::new(texts(&[]), Some(line.as_bytes())).unwrap_err().to_string();
        assert!(error.contains(".env") && error.contains(name), "{error}");
    }
    for name in ["HOME", "DATABASE_URL", "ORDER_SERVICE_HOST", "ORDER_SERVICE_IP"] {
        assert!(Settings::new(texts(&[(name, "5")]), None).is_ok(), "{name}");
    }
    assert!(Settings::new(texts(&[]), Some(b"ORDER_SERVICE_IP=5")).is_err());
    assert!(Settings::new(texts(&[]), Some(b"DATABASE_URL=$X\nDATABASE_URL=1")).is_ok());
}

#[test]
fn an_empty_variable_is_not_set_and_an_empty_flag_is_an_error() {
    let environment = texts(&[("OPPIDUM_DATA", ""), ("OPPIDUM_CACHE", "  ")]);
    let mut settings = Settings::new(environment, Some(b"OPPIDUM_CACHE=7")).unwrap();
    assert_eq!(settings.want::<String>(DATA, None).unwrap(), "./oppidum-data");
    assert_eq!(settings.want::<u16>(CACHE, None).unwrap(), 7);
    let notes = settings.notes().join("\n");
    assert!(notes.contains("OPPIDUM_DATA is empty in the environment"), "{notes}");
    for flag in ["", " "] {
        let error = settings.want::<String>(DATA, Some(flag.into())).unwrap_err().to_string();
        assert!(error.contains("--data is empty"), "{error}");
    }
}

#[test]
fn a_name_set_twice_or_a_value_to_expand_is_an_error() {
    let twice = b"OPPIDUM_CACHE=1\nOPPIDUM_CACHE=1\n";
    assert!(Settings::new(texts(&[]), Some(twice)).unwrap_err().to_string().contains("line 2"));
    let replaced = b"OPPIDUM_DATA=$HOME/data";
    assert!(Settings::new(texts(&[]), Some(replaced)).is_err());
    let environment = texts(&[("OPPIDUM_ID", "123"), ("ORDER_SERVICE_ID", "456")]);
    let mut settings = Settings::new(environment, None).unwrap();
    let error = settings.want::<u64>(ID, None).unwrap_err().to_string();
    assert!(error.contains("OPPIDUM_ID") && error.contains("ORDER_SERVICE_ID"), "{error}");
    assert_eq!(settings.want::<u64>(ID, Some("345".into())).unwrap(), 345);
}

#[test]
fn service_links_of_kubernetes_are_skipped_with_one_line() {
    let links = texts(&[
        ("OPPIDUM_SERVICE_HOST", "10.0.0.7"),
        ("OPPIDUM_SERVICE_PORT", "1234"),
        ("OPPIDUM_SERVICE_PORT_HTTP", "1234"),
        ("OPPIDUM_PORT", "tcp://10.0.0.7:1234"),
        ("OPPIDUM_PORT_1234_TCP", "tcp://10.0.0.7:1234"),
        ("OPPIDUM_PORT_1234_TCP_PROTO", "tcp"),
        ("OPPIDUM_PORT_1234_TCP_PORT", "1234"),
        ("OPPIDUM_PORT_1234_TCP_ADDR", "10.0.0.7"),
        ("OPPIDUM_ORDER_123_PORT", "udp://10.0.0.8:1115"),
        ("OPPIDUM_ORDER_123_PORT_1115_UDP_PORT", "1115"),
        ("OPPIDUM_ORDER_123_SERVICE_HOST", "10.0.0.8"),
    ]);
    let mut settings = Settings::new(links.clone(), None).unwrap();
    assert_eq!(settings.want::<u16>(PORT, None).unwrap(), 1234);
    let notes = settings.notes().join("\n");
    assert_eq!(notes.matches("service links").count(), 1, "{notes}");
    for name in links.keys() {
        assert!(notes.contains(name), "{name}: {notes}");
    }
    for (name, value) in
        [("OPPIDUM_PORT", "http"), ("OPPIDUM_PORTS", "tcp://1"), ("OPPIDUM_PORT_X", "1")]
    {
        let odd = Settings::new(texts(&[(name, value)]), None);
        assert!(odd.and_then(|mut s| s.want::<u16>(PORT, None)).is_err(), "{name}");
    }
}

/// Kind: two settings on a line, of which the second becomes a part of the first.
#[test]
fn two_settings_on_a_line_are_an_error_with_its_number() {
    for line in [
        "OPPIDUM_CLUSTER=x OPPIDUM_DATA=./dd",
        "export OPPIDUM_CLUSTER=x OPPIDUM_DATA=./dd",
        "export OPPIDUM_CLUSTER=x; export OPPIDUM_DATA=./dd",
        "OPPIDUM_CLUSTER=x;OPPIDUM_DATA=./dd",
        "PATH=/bin OPPIDUM_DATA=./dd",
        "OPPIDUM_DATA=my data",
    ] {
        let error = Settings::new(texts(&[]), Some(format!("\n{line}").as_bytes()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(".env line 2") && error.contains("quotes"), "{line}: {error}");
    }
    for line in ["OPPIDUM_DATA='my data'", "JAVA_OPTS=-Xmx1g -Xms1g", "DB=Server=x;User=y"] {
        assert!(Settings::new(texts(&[]), Some(line.as_bytes())).is_ok(), "{line}");
    }
}

#[test]
fn set_variables_are_found_in_every_source() {
    let environment = texts(&[("OPPIDUM_LISTEN", "a:1"), ("OPPIDUM_PORT", "1")]);
    let settings = Settings::new(environment, Some(b"ORDER_SERVICE_ID=7\n")).unwrap();
    let found = settings.set_among(&[LISTEN, HOST, ID]);
    assert_eq!(found, ["OPPIDUM_LISTEN", "ORDER_SERVICE_ID"]);
}
