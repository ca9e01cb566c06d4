//! The commands on a stack that neither `up` nor `evaluate` started: what `compose.yaml` does with containers, done with processes. As there
//! every address is a name, and that of the replicas has no address before one of them runs.

use launcher::{Spec, Stack, free_port, mariadb, nginx, redis};
use sqlx::{
    Connection as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode},
};

use crate::{Home, wait_until};

/// Servers of this test's own, and the file of their addresses.
struct Elsewhere {
    stack: Stack,
    gateway: String,
}

/// Of the machine itself.
const HERE: &str = "localhost";
/// Never has an address (RFC 6761).
const NOWHERE: &str = "api.invalid";

/// As compose starts it: servers, faultproxy, data, then the replicas.
async fn start(home: &Home) -> Elsewhere {
    let mut stack = Stack::create("elsewhere").unwrap();
    let redis = redis::start(&mut stack, &redis::Options::default()).await.unwrap();
    let options = mariadb::Options { max_connections: 200, buffer_pool_mb: 64, ..Default::default() };
    let mysql = mariadb::start(&mut stack, "mysql-00", &options).await.unwrap();
    let [proxy, proxy_admin, api, api_admin, metrics] = [(); 5].map(|()| free_port().unwrap());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let named = |port: u16| format!("{HERE}:{port}");
    let options = nginx::Options {
        listen_port: free_port().unwrap(),
        upstreams: vec![at(api)],
        worker_processes: 1,
        access_log: None,
        slots: None,
    };
    let gateway = nginx::start(&mut stack, &options).await.unwrap().url;
    let endpoints = format!(
        "gateway = \"{gateway}\"\nfaultproxy = \"http://{}\"\napi-admin = \"http://{NOWHERE}:{api_admin}\"\nmysql-00 = \"{}\"\n\
         known-ids = \"{}\"\nloadgen-metrics = \"{}\"\n",
        named(proxy_admin),
        named(mysql.port),
        home.path().join("known-ids.txt").display(),
        at(metrics),
    );
    std::fs::write(home.path().join("endpoints.toml"), &endpoints).unwrap();

    let program = env!("CARGO_BIN_EXE_testbed");
    let words = ["serve", "faultproxy", "--scenario", "smoke", "--mysql"].map(str::to_owned).into_iter();
    let words = words.chain([named(mysql.port), "--listen".into(), at(proxy), "--admin".into(), at(proxy_admin)]);
    stack.spawn(Spec::new("faultproxy", program).args(words)).unwrap();
    home.waits_for(&format!("http://{}/healthz", named(proxy_admin)));
    assert!(home.elsewhere(&["data", "prepare", "--users", "300"]).contains("importing"));
    nothing_else_needs_a_replica(home);

    let redis = format!("redis://{}/", named(redis.port));
    let settings = [("HTTP__LISTEN", at(api)), ("HTTP__ADMIN", at(api_admin)), ("REDIS__URL", redis)];
    let spec = Spec::new("api", program).args(["serve", "api", "--mysql"]).args([named(proxy)]);
    let spec = settings.into_iter().fold(spec, |spec, (key, value)| spec.env(format!("TESTBED_{key}"), value));
    stack.spawn(spec).unwrap();
    home.waits_for(&format!("http://{}/readyz", named(api_admin)));
    // As Docker's DNS: the name has an address from now on.
    std::fs::write(home.path().join("endpoints.toml"), endpoints.replace(NOWHERE, HERE)).unwrap();
    Elsewhere { stack, gateway }
}

/// While all of them are down one wants to look, and to lift what has broken them.
fn nothing_else_needs_a_replica(home: &Home) {
    home.elsewhere(&["fault", "add", "stall"]);
    assert!(home.elsewhere(&["fault", "show"]).contains("stall"));
    home.elsewhere(&["fault", "clear"]);
    let status = home.elsewhere(&["status"]);
    assert!(status.contains("api-admin") && status.contains("no monitor responds"), "{status}");
    let load = home.command(&["load", "smoke"]).env("TESTBED_ENDPOINTS", home.path().join("endpoints.toml")).output();
    let error = String::from_utf8(load.unwrap().stderr).unwrap();
    assert!(error.contains(NOWHERE) && error.contains("does no replica run?"), "{error}");
}

impl Home {
    /// Standard output of a command on the stack elsewhere.
    fn elsewhere(&self, args: &[&str]) -> String {
        let output = self.command(args).env("TESTBED_ENDPOINTS", self.path().join("endpoints.toml")).output().unwrap();
        // Steps of `load` may be invalid on a busy machine.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn waits_for(&self, url: &str) {
        wait_until(url, || self.run(&["doctor", "--url", url]).status.success());
    }
}

#[test]
fn prepare_load_and_break_a_stack_elsewhere() {
    let Some(home) = Home::new() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let elsewhere = runtime.block_on(start(&home));
    assert!(home.elsewhere(&["data", "prepare", "--users", "300"]).contains("nothing was done"));
    assert!(home.elsewhere(&["data", "prepare", "--users", "200"]).contains("nothing was done"));
    assert!(home.elsewhere(&["data", "prepare", "--users", "400"]).contains("importing"));

    let report: serde_json::Value = serde_json::from_str(&home.elsewhere(&["load", "smoke", "--json"])).unwrap();
    let step = &report["steps"][0];
    assert_eq!((step["profile"].as_str(), step["error_pct"].as_f64()), (Some("protected"), Some(0.0)), "{step}");
    // Read from the replica that the file names; nginx's log is not within reach.
    assert!(step["bloom_rejections"].as_u64().unwrap() > 0 && step["gateway_mean_ms"].is_null(), "{step}");

    home.elsewhere(&["fault", "add", "refuse"]);
    assert!(home.elsewhere(&["fault", "show"]).contains("refuse"));
    home.elsewhere(&["fault", "clear"]);
    let down = home.run(&["doctor", "--url", &format!("{}/no-such", elsewhere.gateway)]);
    assert_eq!(down.status.code(), Some(1), "404 is not healthy");
    runtime.block_on(elsewhere.stack.stop()).unwrap();
}

/// As the Job of deploy/k8s, where MySQL has a password. With MariaDB: MySQL's account has another host name.
#[test]
fn prepare_takes_the_password_of_the_store_from_the_environment() {
    let Some(home) = Home::new().filter(|_| launcher::testing::have(&["mariadbd"])) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stack = runtime.block_on(async {
        let mut stack = Stack::create("with-password").unwrap();
        let options = mariadb::Options { max_connections: 50, buffer_pool_mb: 64, ..Default::default() };
        let mysql = mariadb::start(&mut stack, "mysql-00", &options).await.unwrap();
        let root = MySqlConnectOptions::new().host("127.0.0.1").port(mysql.port).username("root");
        let mut root = MySqlConnection::connect_with(&root.ssl_mode(MySqlSslMode::Disabled)).await.unwrap();
        // Not CURRENT_USER(): MariaDB 10.11 would keep the empty password.
        sqlx::query("ALTER USER 'root'@'127.0.0.1' IDENTIFIED BY 'some secret'").execute(&mut root).await.unwrap();
        let endpoints = format!(
            "gateway = \"http://none.invalid\"\nfaultproxy = \"http://none.invalid\"\nmysql-00 = \"127.0.0.1:{}\"\nknown-ids = \"{}\"\n",
            mysql.port,
            home.path().join("known-ids.txt").display(),
        );
        std::fs::write(home.path().join("endpoints.toml"), endpoints).unwrap();
        stack
    });
    let prepare = |variables: &[(&str, &str)]| {
        let mut command = home.command(&["data", "prepare", "--users", "100"]);
        command.env("TESTBED_ENDPOINTS", home.path().join("endpoints.toml")).envs(variables.iter().copied());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, error) = prepare(&[]);
    assert!(!done && error.contains("Access denied"), "{error}");
    let (done, error) = prepare(&[("TESTBED_STORE__PASSWORD", "some secret"), ("TESTBED_STORE__PASWORD", "x")]);
    assert!(!done && error.contains("pasword"), "{error}");
    let (done, error) = prepare(&[("TESTBED_STORE__PASSWORD", "some secret")]);
    assert!(done, "{error}");
    runtime.block_on(stack.stop()).unwrap();
}
