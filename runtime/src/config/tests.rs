use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

const DEFAULTS: &str = r#"
[server]
listen = "127.0.0.1:8080"
max_connections = 1024
[gateway]
deadline_ms = 250
ratio = 0.5
strict = true
proxies = []
fail_mode = "approve"
[gateway.rates]
EUR = 1.0
[gateway.modes]
[alerter.telegram]
token = ""
"#;
const SCHEMA: Schema<'static> = Schema { defaults: DEFAULTS, free_form: &["gateway.rates", "gateway.modes"] };

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    server: Server,
    gateway: Gateway,
    alerter: Alerter,
}
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    listen: String,
    max_connections: u32,
}
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gateway {
    deadline_ms: u64,
    ratio: f64,
    strict: bool,
    proxies: Vec<String>,
    fail_mode: FailMode,
    rates: BTreeMap<String, f64>,
    modes: BTreeMap<String, String>,
}
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum FailMode {
    Approve,
    Decline,
}
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alerter {
    telegram: Telegram,
}
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Telegram {
    token: String,
}

fn load_with(file: &str, env: &[(&str, &str)]) -> Result<Loaded<Config>, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("user.toml");
    std::fs::write(&path, file).unwrap();
    load(&SCHEMA, Some(&path), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

/// The errors as text, with the path of the file shortened to its name.
fn errors(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    let ConfigErrors(errors) = load_with(file, env).expect_err("the configuration is wrong");
    errors
        .into_iter()
        .map(|mut error| {
            if let Source::File(path) = &error.source {
                error.source = Source::File(path.file_name().unwrap().into());
            }
            error.to_string()
        })
        .collect()
}

#[test]
fn defaults_alone_are_a_configuration() {
    let loaded: Loaded<Config> = load(&SCHEMA, None, []).unwrap();
    assert_eq!(loaded.value.server.listen, "127.0.0.1:8080");
    assert_eq!(loaded.value.gateway.fail_mode, FailMode::Approve);
    assert_eq!(loaded.source_of("server.listen"), Source::Default);
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let loaded = load_with(
        "[server]\nlisten = \"0.0.0.0:1\"\nmax_connections = 7\n[gateway]\nratio = 1\n[gateway.rates]\nUSD = 0.9\n",
        &[
            ("PAYSTREAM__SERVER__MAX_CONNECTIONS", "2_000"),
            ("PAYSTREAM__GATEWAY__STRICT", "false"),
            ("PAYSTREAM__GATEWAY__PROXIES", "10.0.0.1, 10.0.0.2"),
            ("PAYSTREAM__GATEWAY__FAIL_MODE", "decline"),
            ("PAYSTREAM__GATEWAY__RATES__GBP", "1.2"),
            ("PAYSTREAM__GATEWAY__MODES__shop-1", "7"),
            ("PAYSTREAM_CONFIG", "not ours to read"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.value.server.listen, "0.0.0.0:1");
    assert_eq!(loaded.value.server.max_connections, 2_000);
    assert!(!loaded.value.gateway.strict);
    assert!((loaded.value.gateway.ratio - 1.0).abs() < 1e-9);
    assert_eq!(loaded.value.gateway.deadline_ms, 250);
    assert_eq!(loaded.value.gateway.proxies, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(loaded.value.gateway.fail_mode, FailMode::Decline);
    assert_eq!(loaded.value.gateway.rates.keys().collect::<Vec<_>>(), ["EUR", "GBP", "USD"]);
    assert_eq!(loaded.value.gateway.modes["shop-1"], "7", "keys of a free-form table stay as written");
    assert_eq!(
        loaded.source_of("server.max_connections"),
        Source::Environment("PAYSTREAM__SERVER__MAX_CONNECTIONS".to_owned())
    );
    assert!(matches!(loaded.source_of("server.listen"), Source::File(_)));
}

#[test]
fn every_error_is_listed_at_once_with_its_key_its_source_and_the_nearest_key() {
    let errors = errors(
        "extra = 1\n[server]\nlistn = \"x\"\nmax_connections = \"many\"\n[gateway]\ntoken = \"x\"\nfail_mode = \"shrug\"\n",
        &[
            ("PAYSTREAM__GATEWAY__DEADLINE", "1"),
            ("PAYSTREAM__GATEWAY__DEADLINE_MS", "soon"),
            ("PAYSTREAM__GATEWAY", "1"),
        ],
    );
    assert_eq!(
        errors,
        [
            "user.toml: `extra` is not a known key; `paystream config default` lists all keys",
            "user.toml: `gateway.token` is not a known key; did you mean `alerter.telegram.token`?",
            "user.toml: `server.listn` is not a known key; did you mean `server.listen`?",
            "user.toml: `server.max_connections` must be an integer, found a string",
            "environment variable PAYSTREAM__GATEWAY: `gateway` is a section, not a value: name one of its \
             keys after another `__`",
            "environment variable PAYSTREAM__GATEWAY__DEADLINE: `gateway.deadline` is not a known key; did \
             you mean `gateway.deadline_ms`?",
            "environment variable PAYSTREAM__GATEWAY__DEADLINE_MS: `gateway.deadline_ms` must be an \
             integer, found another text",
            "user.toml: `gateway.fail_mode` unknown variant `shrug`, expected `approve` or `decline`",
        ]
    );
}

#[test]
fn values_that_only_the_types_refuse_are_all_listed() {
    let errors = errors(
        "[server]\nmax_connections = -1\n[gateway]\nfail_mode = \"shrug\"\nproxies = [1]\n[gateway.rates]\nUSD = \"x\"\n",
        &[("PAYSTREAM__GATEWAY__DEADLINE_MS", "-5")],
    );
    for key in [
        "server.max_connections",
        "gateway.fail_mode",
        "gateway.proxies",
        "gateway.rates",
        "gateway.deadline_ms",
    ] {
        assert_eq!(errors.iter().filter(|e| e.contains(&format!("`{key}"))).count(), 1, "{key}: {errors:#?}");
    }
    assert_eq!(errors.len(), 5, "{errors:#?}");
}

#[test]
fn a_broken_file_names_its_line_and_a_missing_one_says_so() {
    let broken = errors("[server]\nlisten = = 3\n", &[]);
    assert_eq!(broken.len(), 1);
    assert!(broken[0].starts_with("user.toml: line 2 is not valid TOML"), "{broken:?}");
    assert!(!broken[0].contains('\n'));

    let missing = load::<Config>(&SCHEMA, Some(Path::new("/nonexistent/p.toml")), []).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/p.toml: cannot be read"), "{missing}");
}

#[test]
fn secrets_are_not_printed_and_an_error_does_not_echo_a_value() {
    let loaded = load_with("[alerter.telegram]\ntoken = \"123:abc\"\n", &[]).unwrap();
    assert_eq!(loaded.value.alerter.telegram.token, "123:abc");
    let printed = toml::to_string(&loaded.redacted(&["alerter.telegram.token"])).unwrap();
    assert!(printed.contains("(redacted)") && !printed.contains("123:abc"), "{printed}");

    let unset: Loaded<Config> = load(&SCHEMA, None, []).unwrap();
    let printed = toml::to_string(&unset.redacted(&["alerter.telegram.token"])).unwrap();
    assert!(!printed.contains("(redacted)"), "an unset secret is shown as unset: {printed}");

    let misplaced = errors("", &[("PAYSTREAM__SERVER__MAX_CONNECTIONS", "123:abc")]);
    assert!(!misplaced[0].contains("123:abc"), "{misplaced:?}");
}

#[test]
fn a_value_may_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let loaded: Loaded<Config> = load(
        &SCHEMA,
        None,
        [
            ("PAYSTREAM__ALERTER__TELEGRAM__TOKEN__FILE".to_owned(), path("token", "12:ab c\r\n")),
            ("PAYSTREAM__GATEWAY__DEADLINE_MS__FILE".to_owned(), path("deadline", "300\n")),
            // Keys of the user's own may be called anything.
            ("PAYSTREAM__GATEWAY__MODES__FILE".to_owned(), "approve".to_owned()),
        ],
    )
    .unwrap();
    assert_eq!(loaded.value.alerter.telegram.token, "12:ab c");
    assert_eq!(loaded.value.gateway.deadline_ms, 300);
    assert_eq!(loaded.value.gateway.modes["FILE"], "approve");
    let variable = "PAYSTREAM__ALERTER__TELEGRAM__TOKEN__FILE";
    assert_eq!(loaded.source_of("alerter.telegram.token"), Source::Environment(variable.to_owned()));
}

#[test]
fn a_value_that_cannot_be_read_from_its_file_is_an_error_with_variable_and_path() {
    let secret = "s3cret";
    let ConfigErrors(errors) = load::<Config>(
        &SCHEMA,
        None,
        [
            ("PAYSTREAM__ALERTER__TELEGRAM__TOKEN__FILE", "/no/such/file"),
            ("PAYSTREAM__SERVER__LISTEN", secret),
            ("PAYSTREAM__SERVER__LISTEN__FILE", "/some/file"),
            ("PAYSTREAM__SERVER__NOSUCH__FILE", "/dev/null"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .unwrap_err();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    let token = &shown[0];
    assert!(token.contains("PAYSTREAM__ALERTER__TELEGRAM__TOKEN__FILE: `alerter.telegram.token`"), "{token}");
    assert!(token.contains("`/no/such/file`"), "{token}");
    assert!(shown[1].contains("`server.listen` is set by PAYSTREAM__SERVER__LISTEN as well"), "{shown:?}");
    assert!(shown[2].contains("`server.nosuch` is not a known key"), "{shown:?}");
    assert!(!shown.concat().contains(secret), "{shown:?}");
}
