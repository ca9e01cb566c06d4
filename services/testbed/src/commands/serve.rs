//! `testbed serve ROLE`: runs one process of the stack.

mod proxy;

use std::process::ExitCode;

use api::{ApiConfig, Profile};
use monitor::MonitorConfig;
use runtime::config::Validate;
use serde::{Serialize, de::DeserializeOwned};
use stores::StoreConfig;
use worker::WorkerConfig;

use crate::cli::{ServeCommand, SettingsArgs, StoreArgs};

pub fn run(command: ServeCommand) -> anyhow::Result<ExitCode> {
    match command {
        ServeCommand::Api { profile, settings, store } => api(profile, &settings, &store)?,
        ServeCommand::Monitor { id, settings } => monitor(&id, &settings)?,
        ServeCommand::Worker { id, settings, store } => worker(&id, &settings, &store)?,
        ServeCommand::Faultproxy { config, mysql, listen, admin, scenario } => {
            faultproxy(proxy::config(config.as_deref(), &mysql, listen.zip(admin), scenario.as_deref())?)?;
        }
        ServeCommand::Traces { listen, admin } => {
            traces(tracestore::Config { listen, admin, limits: Default::default() })?
        }
        ServeCommand::AccessLog { listen, admin } => access_log(accesslog::Config { listen, admin })?,
        ServeCommand::Bare { listen, redis, telemetry } => on_threads(1, async {
            crate::roles::bare::serve(listen, &redis, telemetry.as_deref(), runtime::lifecycle::shutdown_on_signal()?)
                .await
        })?,
        ServeCommand::Sink { listen } => {
            on_threads(1, async { crate::roles::sink::serve(listen, runtime::lifecycle::shutdown_on_signal()?).await })?
        }
        ServeCommand::Hammer { plan } => on_threads(1, crate::roles::hammer::run(&plan))?,
        ServeCommand::TopicReader { plan } => on_threads(1, crate::roles::topic_reader::run(&plan))?,
        ServeCommand::Fleet { plan } => on_threads(2, crate::roles::fleet::run(&plan))?,
        ServeCommand::GroupConsumer { plan } => on_threads(1, async {
            crate::roles::group_consumer::run(&plan, runtime::lifecycle::shutdown_on_signal()?).await
        })?,
        ServeCommand::Loadgen { plan } => return Ok(loadtest::loadgen_main(&plan)),
        ServeCommand::Supervisor { plan } => super::up::supervise(&plan)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn load<C: Serialize + DeserializeOwned + Validate>(defaults: C, settings: &SettingsArgs) -> anyhow::Result<C> {
    runtime::config::load(defaults, settings.config.as_deref(), &settings.sets)
}

fn api(profile: Profile, settings: &SettingsArgs, store: &StoreArgs) -> anyhow::Result<()> {
    let store = StoreConfig::spread_over(&store.mysql);
    let config = load(ApiConfig::new(profile, store, "redis://127.0.0.1:6379"), settings)?;
    runtime::logs::init();
    on_threads(config.http.worker_threads, async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        api::serve(config, stop).await
    })
}

fn monitor(id: &str, settings: &SettingsArgs) -> anyhow::Result<()> {
    let config = load(MonitorConfig::new(id), settings)?;
    runtime::logs::init();
    on_threads(1, async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        monitor::serve(config, stop).await
    })
}

fn worker(id: &str, settings: &SettingsArgs, store: &StoreArgs) -> anyhow::Result<()> {
    let config = load(WorkerConfig::new(id, StoreConfig::spread_over(&store.mysql)), settings)?;
    runtime::logs::init();
    on_threads(1, async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        worker::serve(config, stop).await
    })
}

fn faultproxy(config: faultproxy::Config) -> anyhow::Result<()> {
    runtime::logs::init();
    on_threads(1, async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        faultproxy::serve(config, stop).await
    })
}

fn traces(config: tracestore::Config) -> anyhow::Result<()> {
    runtime::logs::init();
    on_threads(1, async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        tracestore::serve(config, stop).await
    })
}

fn access_log(config: accesslog::Config) -> anyhow::Result<()> {
    runtime::logs::init();
    on_threads(1, async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        accesslog::serve(config, stop).await
    })
}

fn on_threads(threads: usize, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    launcher::raise_nofile_limit()?;
    let mut builder = match threads {
        // Without a second thread, no task moves between threads.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()?.block_on(work)
}
