//! `kittiwake serve`: start, serve, drain.

use super::api_server;
use super::banner::Banner;
use super::capacity;
use super::cli::Failure;
use super::dispatcher::{self, Progress};
use super::give_way::GiveWay;
use super::hook::Asker;
use super::listener::Bounded;
use super::plane;
use super::secured::{self, Kept, Keyring, Servers};
use super::supervisor::{Sockets, Supervisor};
use super::verifier::{self, Verifier};
use crate::admin;
use crate::base::ids::PushId;
use crate::config::Config;
use crate::config::tls::TlsFiles;
use crate::io::probe::{self, Choosing, Chosen};
use crate::io::sched;
use crate::limits;
use crate::push::{Api, ApiKeys, Control, Rules, Sources};
use crate::shard;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

/// Serves until a signal says to stop.
pub(super) fn run(config: &Config, give_back: fn()) -> Result<(), Failure> {
    begin_log(config);
    let way = Arc::new(GiveWay::default());
    let woken = Arc::clone(&way);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cpus().min(limits::CONTROL_THREADS_MAX))
        .thread_name("kittiwake-control")
        .on_thread_start(sched::shorten_slice)
        .on_thread_unpark(move || woken.give_way())
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("cannot start the control plane's threads: {error}")))?;
    let result = runtime.block_on(serve(config, give_back, &way));
    // A request that hangs must not keep the process: it has had its time.
    runtime.shutdown_background();
    result
}

/// CPUs that this process may run on.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, core::num::NonZeroUsize::get)
}

/// Lines to stderr, as people or programs read them.
fn begin_log(config: &Config) {
    // Colours only where a person looks at them.
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    let level: LevelFilter = config.log_level.parse().expect("the configuration bounds it to levels");
    let lines = tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).with_max_level(level);
    if config.log_json {
        lines.json().flatten_event(true).init();
    } else {
        lines.with_ansi(ansi).init();
    }
}

async fn serve(config: &Config, give_back: fn(), way: &GiveWay) -> Result<(), Failure> {
    let verifier = match &config.tokens {
        None => None,
        Some(tokens) => {
            let keys = tokens.keys.read().map_err(|error| Failure::Usage(error.to_string()))?;
            Some((tokens.keys.clone(), Arc::new(Verifier::new(keys, tokens.rules.clone()))))
        }
    };
    let tls = match &config.tls {
        None => None,
        Some(files) => {
            let ring = Keyring::new().map_err(runtime_failure)?;
            let servers = secured::read(files, &ring).map_err(|error| Failure::Usage(error.to_string()))?;
            Some((files.clone(), ring, servers))
        }
    };
    let asker = asker(config)?;
    let supervisor = Arc::new(Supervisor::new(|name| std::env::var_os(name)));
    let sockets = Sockets::take(|name| std::env::var_os(name), &config.edge_listen, config.api_listen)?;
    // The API's address and the signals come first: where they fail, no shard has to be stopped again.
    let listener = api_listener(config, &sockets)
        .await
        .map_err(|error| Failure::Runtime(format!("cannot listen on {} (api.listen): {error}", config.api_listen)))?;
    let api_address = listener.local_addr().map_err(runtime_failure)?;
    let mut signals = Signals::new().map_err(runtime_failure)?;
    let hangup = signal(SignalKind::hangup()).map_err(runtime_failure)?;
    let hangup_for_tls = signal(SignalKind::hangup()).map_err(runtime_failure)?;
    let machine = capacity::survey();
    let shards = shards(config);
    // The data plane probes again for itself; here it decides how many connections to count on. An error is its to tell.
    let io_uring = matches!(probe::choose(config.driver), Ok(Choosing { chosen: Chosen::Uring, .. }));
    let capacity = capacity::estimate(machine, io_uring, usize::from(shards), config.limits.max_connections);
    let (api_tls, api_tls_now) = watch::channel(None);
    let (tls, server) = match tls {
        None => (None, None),
        Some((files, ring, Servers { edge, api })) => {
            api_tls.send_replace(api);
            (Some(Kept { files, ring, api: api_tls }), Some(edge))
        }
    };
    let settings = plane::settings(config, shards, capacity, server).map_err(runtime_failure)?;
    let running = start(config, &settings, &sockets, &mut signals, give_back).await?;
    way.to(running.handle.clone());

    let control = Arc::new(Control::new(Box::new(running.handle.clone())));
    let events = running.events.clone();
    let (events_thread, progress) = dispatcher::spawn(Arc::clone(&control), events).map_err(runtime_failure)?;
    let auth_threads = match &verifier {
        None => match asker {
            None => Vec::new(),
            Some(asker) => {
                let thread = asker.spawn(running.questions.clone(), running.handle.clone());
                vec![thread.map_err(runtime_failure)?]
            }
        },
        Some((_, verifier)) => {
            verifier::spawn(verifier, &running.questions, &running.handle, wall_ms).map_err(runtime_failure)?
        }
    };
    tokio::spawn(verifier::keep_current(verifier, hangup));
    tokio::spawn(secured::keep_current(tls, running.handle.clone(), hangup_for_tls));
    tokio::spawn(admin::sys::publish(Arc::clone(&control), sys(config)));
    let (stop_teller, teller_stopped) = oneshot::channel::<()>();
    let teller = tokio::spawn(tell_of_store_fault(running.handle.clone(), teller_stopped));
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let api = api(config, api_address, &control).map_err(runtime_failure)?;
    let notices_thread = dispatcher::spawn_notices(api.notices(), running.notices.clone()).map_err(runtime_failure)?;
    let stories_thread = dispatcher::spawn_stories(running.stories.clone()).map_err(runtime_failure)?;
    tokio::spawn(api.keep_groups(config.webhook.as_ref().map(|webhook| webhook.app)));
    if let Some(webhook) = &config.webhook {
        let random = || plane::random().unwrap_or_default();
        tokio::spawn(api.webhook(webhook.clone(), random).map_err(runtime_failure)?);
    }
    let router = api.router(admin::router(Arc::clone(&control), config.apps.clone(), wall_ms));
    let listener = Bounded::new(listener, limits::API_CONNECTIONS_MAX);
    let api = tokio::spawn(api_server::serve(listener, router, api_tls_now, api_stopped));

    tokio::spawn(Arc::clone(&supervisor).watch(Arc::clone(&control)));
    supervisor.ready(&format!("serving on {} shards over {}", control.shards(), running.driver));
    announce(&Banner {
        edge: &running.listening,
        doors: &config.doors,
        tls: config.tls.is_some(),
        api_tls: config.tls.as_ref().is_some_and(TlsFiles::secures_api),
        api: api_address,
        driver: running.driver,
        notice: running.notice.as_deref(),
        shards: control.shards(),
        capacity,
        insecure: config.insecure && config.tokens.is_none() && config.hook.is_none(),
        tokens: config.tokens.is_some(),
        data_dir: config.data_dir.as_deref(),
    });

    let drained = until_drained(config, &control, &supervisor, &mut signals, progress).await;
    // Requests still waiting get their answer; then the port closes.
    drop(stop_api);
    if tokio::time::timeout(limits::API_DRAIN_TIMEOUT, api).await.is_err() {
        warn!("requests to the API were cut off");
    }
    drop(stop_teller);
    // It does not panic, and a fault that it did not live to tell was told by the store's answers.
    let _ = teller.await;
    end(running, drained?).await?;
    // It ends with the shards' side of the channel, which is gone now.
    let others = [events_thread, notices_thread, stories_thread].into_iter().chain(auth_threads);
    if others.map(JoinHandle::join).filter(Result::is_err).count() > 0 {
        return Err(Failure::Runtime("a thread of the control plane panicked".to_owned()));
    }
    info!("stopped");
    Ok(())
}

/// As configured, else one a core; a machine that does not tell has at least one.
fn shards(config: &Config) -> u16 {
    let shards = config.shards.unwrap_or_else(cpus).min(limits::SHARDS_MAX);
    u16::try_from(shards).expect("the limit has 16 bits")
}

fn api(config: &Config, address: SocketAddr, control: &Arc<Control>) -> io::Result<Api> {
    let rules = Rules { apps: config.apps.clone(), packet_bytes: config.limits.packet_bytes };
    let new_id = || PushId(uuid::Uuid::now_v7().as_u128());
    let sources = Sources { wall_ms, new_id };
    let is_loopback = address.ip().to_canonical().is_loopback();
    let keys = ApiKeys::new(config.api_keys.clone()).only_from(config.api_allow.clone());
    let own_rates: Vec<Option<u32>> = config.quotas.iter().map(|quota| quota.push_rate).collect();
    Ok(Api::new(Arc::clone(control), rules, sources, keys, is_loopback).with_push_rate(config.push_rate, &own_rates))
}

/// Whoever asks a backend who devices are.
fn asker(config: &Config) -> Result<Option<Arc<Asker>>, Failure> {
    let Some(hook) = &config.hook else { return Ok(None) };
    let secret = plane::random().map_err(runtime_failure)?;
    let (template, apps) = (config.user_template.clone(), config.apps.clone());
    Asker::new(hook.clone(), template, apps, secret, wall_ms).map(Arc::new).map(Some)
}

fn sys(config: &Config) -> admin::sys::Publishing {
    let apps = u16::try_from(config.apps.len()).expect("the configuration bounds the apps");
    admin::sys::Publishing { interval: config.sys_interval, apps, wall_ms }
}

/// A clock before 1970 says 0: messages then count as old, which is what such a clock asks for.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn announce(banner: &Banner<'_>) {
    // Nobody is left to tell when stdout is closed; serving goes on.
    let _ = writeln!(io::stdout(), "{banner}");
}

/// Another data directory would do, or another address: what of it is a mistake of the command line.
fn start_failure(config: &Config, error: &shard::StartError) -> Failure {
    match (error, &config.data_dir) {
        (shard::StartError::Store(why), Some(path)) => {
            let line = format!("store.data_dir (--data-dir) {}: {why}", path.display()).replace(['\n', '\r'], " ");
            if why.is_usage() { Failure::Usage(line) } else { Failure::Runtime(line) }
        }
        _ => Failure::Runtime(error.to_string()),
    }
}

/// One line when the store fails, and one each time when it is stuck. It has no clock and no log of its own.
async fn tell_of_store_fault(handle: shard::Handle, mut stopped: oneshot::Receiver<()>) {
    let mut interval = tokio::time::interval(limits::STORE_SWEEP_INTERVAL);
    let (mut was_healthy, mut is_over) = (true, false);
    while !is_over {
        is_over = tokio::select! {
            _ = interval.tick() => false,
            _ = &mut stopped => true,
        };
        let is_healthy = handle.healthy(crate::io::now());
        let Some(reason) = handle.store_fault() else {
            if was_healthy && !is_healthy {
                let seconds = limits::COMMIT_STALL_MAX.as_secs();
                warn!("a commit has been under way for more than {seconds} s: the disk does not keep up");
            }
            was_healthy = is_healthy;
            continue;
        };
        if handle.store_stats().poisoned {
            error!("the store cannot write, nothing is stored or acknowledged until a restart: {reason}");
        } else {
            error!("the store cannot read: {reason}");
        }
        return;
    }
}

fn runtime_failure(error: io::Error) -> Failure {
    Failure::Runtime(error.to_string())
}

/// SIGTERM and SIGINT mean the same.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A socket that was passed, or one of our own.
async fn api_listener(config: &Config, sockets: &Sockets) -> io::Result<TcpListener> {
    match &sockets.api {
        Some(passed) => TcpListener::from_std(passed.listener()?),
        None => TcpListener::bind(config.api_listen).await,
    }
}

/// Starts the data plane. Where sockets were passed, the process before us may still be closing its connections: it holds
/// the data directory until it has, and meanwhile who connects waits in the sockets' queues.
async fn start(
    config: &Config,
    settings: &shard::Settings,
    sockets: &Sockets,
    signals: &mut Signals,
    give_back: fn(),
) -> Result<shard::Running, Failure> {
    let data = config.data_dir.as_deref().map(|path| shard::Data { path, accept_loss: config.accept_loss });
    let until = Instant::now() + config.drain_timeout;
    let mut is_told = false;
    loop {
        let error = match shard::start(settings.clone(), data, &sockets.edge, give_back) {
            Ok(running) => return Ok(running),
            Err(error) => error,
        };
        let waits = error.is_in_use() && !sockets.is_empty() && Instant::now() < until;
        if !waits {
            return Err(start_failure(config, &error));
        }
        if !is_told {
            info!("the data directory is another process's until that has closed its connections");
            is_told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(limits::HAND_OVER_RETRY) => {}
            name = signals.next() => return Err(Failure::Runtime(format!("{name} before this node could begin"))),
        }
    }
}

/// Waits for a signal, or somebody's wish, then for the shards to close what they hold. `Ok`: they did, and the threads have
/// to end by then.
async fn until_drained(
    config: &Config,
    control: &Arc<Control>,
    supervisor: &Supervisor,
    signals: &mut Signals,
    mut progress: watch::Receiver<Progress>,
) -> Result<Instant, Failure> {
    let ended = async |progress: &mut watch::Receiver<Progress>, drained: usize| {
        // The sender tells `ended` before it goes, so an error adds nothing.
        let _ = progress.wait_for(|progress| progress.ended || progress.drained >= drained).await;
    };
    let name = tokio::select! {
        name = signals.next() => name,
        () = control.drain_wanted() => "POST /v1/drain",
        () = ended(&mut progress, usize::MAX) => {
            return Err(Failure::Runtime("the data plane ended by itself".to_owned()));
        }
    };
    info!("{name}: closing connections; a second signal stops at once");
    supervisor.stopping(config.drain_timeout);
    // Telling a shard may wait for room in its mailbox; a signal or the timeout must not wait with it.
    let draining = Arc::clone(control);
    let _told = tokio::task::spawn_blocking(move || draining.drain());
    let until = Instant::now() + config.drain_timeout;
    all_ended(ended(&mut progress, control.shards()), signals.next(), until).await?;
    let cut = progress.borrow().cut;
    if cut > 0 {
        warn!("{cut} connections were cut off at the end of node.drain_timeout");
    }
    Ok(until)
}

/// Shards end by themselves before the time is over. One that does not is broken, and nobody waits for it any longer.
async fn all_ended(
    ended: impl Future<Output = ()>,
    second: impl Future<Output = &'static str>,
    until: Instant,
) -> Result<(), Failure> {
    tokio::select! {
        () = ended => Ok(()),
        () = tokio::time::sleep_until(until) => {
            Err(Failure::Runtime("a shard did not end within node.drain_timeout".to_owned()))
        }
        name = second => Err(Failure::Runtime(format!("a second signal, {name}, cut connections off"))),
    }
}

/// Ends the threads of shards and log. A commit that hangs in the disk would keep the process for ever, and its supervisor
/// from starting the next one.
async fn end(running: shard::Running, until: Instant) -> Result<(), Failure> {
    let until = until.max(Instant::now() + limits::THREADS_END_MIN);
    match tokio::time::timeout_at(until, tokio::task::spawn_blocking(move || running.stop())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Failure::Runtime("a thread of the data plane panicked".to_owned())),
        Err(_) => Err(Failure::Runtime("the log or a shard did not end within node.drain_timeout".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::pending;
    use core::time::Duration;

    fn text(result: Result<(), Failure>) -> Option<String> {
        match result {
            Ok(()) => None,
            Err(Failure::Runtime(text) | Failure::Usage(text)) => Some(text),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_never_ends_is_waited_for_until_the_drain_timeout_and_no_longer() {
        let begun = Instant::now();
        let until = begun + Duration::from_secs(30);
        let failed = text(all_ended(pending(), pending(), until).await);
        assert_eq!(failed.as_deref(), Some("a shard did not end within node.drain_timeout"));
        assert!(begun.elapsed() >= Duration::from_secs(30) && begun.elapsed() < Duration::from_secs(31));
        assert_eq!(text(all_ended(async {}, pending(), until + Duration::from_secs(1)).await), None);
    }
}
