//! Properties of compose.yaml that a run in containers has shown to be necessary, and `docker compose config` where it is installed.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use loadtest::scenario::{self, Scenario};
use serde_json::Value;
use stores::{QueueOrder, StoreConfig};

use crate::{
    Home,
    deploy::{Services, overlaid, read, root, services, texts},
};

const OVERLAYS: [&str; 2] = ["deploy/compose/minimal.yaml", "deploy/compose/mysql-16.yaml"];

fn all() -> impl Iterator<Item = Services> {
    std::iter::once(services()).chain(OVERLAYS.map(overlaid))
}

#[test]
fn the_image_is_built_once_by_one_service_and_looked_for_nowhere() {
    for services in all() {
        let ours = services.iter().filter(|(_, service)| {
            service["image"].as_str().is_some_and(|image| image.starts_with("recommendation-testbed:"))
        });
        for (name, service) in ours {
            // The policy `build` builds again at each `docker compose run`, and replaces the running containers.
            let expected = if name == "init" { Value::Null } else { "never".into() };
            assert_eq!(service["pull_policy"], expected, "{name}");
            assert_eq!(service["build"].is_object(), name == "init", "{name}");
        }
    }
}

/// Compose creates all containers before it starts one. A volume that is empty by then has the owner of the last one's image.
#[test]
fn the_volume_of_etcd_belongs_to_its_user() {
    let all = services();
    let mount = &all["etcd"]["volumes"][0];
    assert_eq!((&mount["source"], &mount["volume"]["nocopy"]), (&"etcd".into(), &true.into()));
    assert!(texts(&all["init"]["volumes"]).iter().any(|volume| volume.starts_with("etcd:")));
    assert_eq!(all["etcd"]["user"], all["init"]["user"]);
    // Else its container could be created first, and started while the volume is root's.
    assert!(all["etcd"]["depends_on"]["init"].is_object());
}

/// A process every five seconds in each of twenty containers is load.
#[test]
fn health_is_checked_often_at_the_start_and_seldom_later() {
    for (name, service) in all().flatten() {
        let check = &service["healthcheck"];
        if check.is_object() {
            assert_eq!(
                (check["interval"].as_str(), check["start_interval"].as_str()),
                (Some("30s"), Some("1s")),
                "{name}"
            );
            assert!(check["start_period"].is_string(), "{name}");
        }
    }
}

/// A limit above the host's own hard limit keeps a container from being created. Our processes and MySQL raise their own to that.
#[test]
fn no_service_asks_for_more_open_files_than_the_host_has() {
    for (name, service) in all().flatten() {
        assert!(service["ulimits"].is_null(), "{name}");
    }
    assert!(
        texts(&services()["nginx"]["entrypoint"]).iter().any(|word| word.contains(r#"ulimit -n "$$(ulimit -Hn)""#))
    );
}

/// Sign-ups, events and fences are acknowledged: they must outlive a server that is killed.
#[test]
fn mysql_keeps_what_it_has_acknowledged() {
    for (name, service) in all()
        .flatten()
        .filter(|(_, service)| service["image"].as_str().is_some_and(|image| image.starts_with("mysql:")))
    {
        let flush: Vec<_> =
            texts(&service["command"]).into_iter().filter(|word| word.contains("flush-log-at-trx-commit")).collect();
        assert_eq!(flush, ["--innodb-flush-log-at-trx-commit=1"], "{name}");
    }
}

/// So that `PROFILE=baseline` collapses where README's does: the replicas wait for the store as those of `evaluate`.
#[test]
fn replicas_use_the_store_as_the_scenario_says() {
    let wanted = Scenario::load("article").unwrap().store;
    let api = &services()["api"];
    let own = StoreConfig::spread_over(&["faultproxy:3306".to_owned()]);
    let environment = api["environment"].as_object().unwrap();
    let changed: Vec<&String> = environment.keys().filter(|key| key.starts_with("TESTBED_STORE__")).collect();
    assert_eq!(changed, ["TESTBED_STORE__MAX_WAITING"]);
    assert_eq!(environment["TESTBED_STORE__MAX_WAITING"], wanted.max_waiting.to_string());
    assert_eq!((own.pool_size, own.checkout_timeout_ms), (wanted.pool_size, wanted.checkout_timeout_ms));
    assert_eq!(own.order == QueueOrder::Newest, matches!(wanted.order, scenario::Order::Newest));
    // Over all replicas, and the workers' and tools' beside them.
    let max = |service: &Value| -> u64 {
        let words = texts(&service["command"]);
        words.iter().find_map(|word| word.strip_prefix("--max-connections=")).unwrap().parse().unwrap()
    };
    let scale = api["scale"].as_u64().unwrap();
    assert!(max(&services()["mysql"]) > scale * u64::from(own.pool_size) + 100);
    let sixteen = overlaid("deploy/compose/mysql-16.yaml");
    let each: u64 = sixteen["api"]["environment"]["TESTBED_STORE__POOL_SIZE"].as_str().unwrap().parse().unwrap();
    assert!(max(&sixteen["mysql-07"]) > scale * each + 100);
}

#[test]
fn a_variable_says_which_profile_the_replicas_run() {
    let home = Home::bare();
    for file in ["deploy/compose/serving.yaml", "deploy/compose/mysql-16.yaml"] {
        assert!(read(file).contains("--profile=${PROFILE:-protected}"), "{file}");
    }
    for services in all() {
        let words = texts(&services["api"]["command"]).join("\n").replace("--profile=protected", "--profile=baselin");
        let words: Vec<&str> = words.split('\n').collect();
        let error = home.fails(&words);
        assert!(error.contains("'baselin' is not a profile: choose baseline or protected"), "{error}");
    }
}

#[test]
fn the_image_needs_no_download_but_crates_and_has_certificates() {
    let dockerfile = read("deploy/Dockerfile");
    let toolchain: Value = toml::from_str(&read("rust-toolchain.toml")).unwrap();
    let pinned = format!("ENV RUSTUP_TOOLCHAIN={}\n", toolchain["toolchain"]["channel"].as_str().unwrap());
    let (before, _) = dockerfile.split_once("COPY . .").unwrap();
    assert!(before.contains(&pinned), "rust-toolchain.toml asks for components that the image does not have");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    assert!(last.contains("COPY --from=build /etc/ssl/certs/ca-certificates.crt "), "{last}");
}

/// Every health check is this command, in an image whose system has no store of certificates; `Home` gives its commands none.
#[test]
fn a_health_check_needs_no_certificates() {
    let home = Home::bare();
    let command = home.command(&[]);
    let stores: Vec<_> = command.get_envs().filter(|(key, _)| key.to_string_lossy().starts_with("SSL_CERT_")).collect();
    assert!(stores.len() == 2 && stores.iter().all(|(_, path)| path.is_some_and(|path| !Path::new(path).exists())));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", server.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut request = [0; 512];
        assert!(client.read(&mut request).unwrap() > 0);
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nready").unwrap();
    });
    assert!(home.ok(&["doctor", "--url", &url]).contains("200 OK ready"));
    answering.join().unwrap();
}

/// A real broker reads the settings of compose's, with the addresses and directories of this machine.
#[test]
fn kafka_takes_the_configuration_of_compose() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = read("deploy/kafka/server.properties");
    // What launcher::kafka chooses itself.
    let own = ["listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"];
    let lines = settings.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let properties: Vec<(String, String)> = lines
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line}")))
        .filter(|(name, _)| !own.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(properties.len() + own.len(), settings.lines().filter(|line| line.contains('=')).count());
    runtime.block_on(async {
        if let Err(reason) = launcher::kafka::provide().await {
            launcher::testing::skip(&reason);
            return;
        }
        let mut stack = launcher::Stack::create("kafka-of-compose").unwrap();
        let options = launcher::kafka::Options { properties, ..Default::default() };
        launcher::kafka::start(&mut stack, &options).await.unwrap();
        stack.stop().await.unwrap();
    });
}

#[test]
fn compose_takes_each_of_the_files() {
    let asked = |words: &[&str]| {
        let mut command = Command::new("docker");
        command.arg("compose").args(words).current_dir(root()).stdin(Stdio::null());
        // A shell's settings are not the files'.
        for name in ["COMPOSE_FILE", "COMPOSE_PROFILES", "PROFILE", "USERS"] {
            command.env_remove(name);
        }
        command
    };
    if !asked(&["version"]).output().is_ok_and(|output| output.status.success()) {
        launcher::testing::skip("docker compose not installed");
        return;
    }
    let takes = |command: &mut Command| {
        let output = command.output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && error.is_empty(), "{error}");
        out.into_owned()
    };
    takes(&mut asked(&["config", "-q"]));
    for overlay in OVERLAYS {
        takes(&mut asked(&["-f", "compose.yaml", "-f", overlay, "config", "-q"]));
        takes(asked(&["config", "-q"]).env("COMPOSE_FILE", format!("compose.yaml:{overlay}")));
    }
    let text = takes(asked(&["config"]).env("PROFILE", "baseline"));
    assert!(text.contains("--profile=baseline") && !text.contains("--profile=protected"), "{text}");
}
