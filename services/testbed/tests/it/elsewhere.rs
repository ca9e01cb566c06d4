//! The commands on a stack that neither `up` nor `evaluate` started: what `compose.yaml` does with containers, done with processes.

use std::net::SocketAddr;

use launcher::{Spec, Stack, free_port, mariadb, nginx, redis};

use crate::{Home, wait_until};

/// Servers of this test's own, and the file of their addresses.
struct Elsewhere {
    stack: Stack,
    gateway: String,
}

/// As compose starts it: servers, faultproxy, data, then the replicas.
async fn start(home: &Home) -> Elsewhere {
    let mut stack = Stack::create("elsewhere").unwrap();
    let redis = redis::start(&mut stack, &redis::Options::default()).await.unwrap();
    let options = mariadb::Options { max_connections: 200, buffer_pool_mb: 64, ..Default::default() };
    let mysql = mariadb::start(&mut stack, "mysql-00", &options).await.unwrap();
    let [proxy, proxy_admin, api, api_admin, metrics] = [(); 5].map(|()| free_port().unwrap());
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let options = nginx::Options { listen_port: free_port().unwrap(), upstreams: vec![at(api)], worker_processes: 1 };
    let gateway = nginx::start(&mut stack, &options).await.unwrap().url;
    let endpoints = format!(
        "gateway = \"{gateway}\"\nfaultproxy = \"http://{}\"\napi-admin = \"http://{}\"\nmysql-00 = \"{}\"\n\
         known-ids = \"{}\"\nprofile = \"protected\"\nloadgen-metrics = \"{}\"\n",
        at(proxy_admin),
        at(api_admin),
        at(mysql.port),
        home.path().join("known-ids.txt").display(),
        at(metrics),
    );
    std::fs::write(home.path().join("endpoints.toml"), endpoints).unwrap();

    let program = env!("CARGO_BIN_EXE_testbed");
    let words = ["serve", "faultproxy", "--scenario", "smoke", "--mysql"].map(str::to_owned).into_iter();
    let words = words.chain([at(mysql.port), "--listen".into(), at(proxy), "--admin".into(), at(proxy_admin)]);
    stack.spawn(Spec::new("faultproxy", program).args(words)).unwrap();
    home.waits_for(&format!("http://{}/healthz", at(proxy_admin)));
    assert!(home.elsewhere(&["data", "prepare", "--users", "300"]).contains("importing"));

    let settings = [("HTTP__LISTEN", at(api)), ("HTTP__ADMIN", at(api_admin)), ("REDIS__URL", redis.url)];
    let spec = Spec::new("api", program).args(["serve", "api", "--mysql"]).args([at(proxy)]);
    let spec = settings.into_iter().fold(spec, |spec, (key, value)| spec.env(format!("TESTBED_{key}"), value));
    stack.spawn(spec).unwrap();
    home.waits_for(&format!("http://{}/readyz", at(api_admin)));
    Elsewhere { stack, gateway }
}

impl Home {
    /// Standard output of a command on the stack elsewhere.
    fn elsewhere(&self, args: &[&str]) -> String {
        let output = self.command(args).env("TESTBED_ENDPOINTS", self.path().join("endpoints.toml")).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn waits_for(&self, url: &str) {
        wait_until(url, || self.run(&["doctor", "--url", url]).status.success());
    }
}

#[test]
fn prepare_load_and_break_a_stack_elsewhere() {
    let Some(home) = Home::new() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let elsewhere = runtime.block_on(start(&home));
    assert!(home.elsewhere(&["data", "prepare", "--users", "300"]).contains("nothing was done"));

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
