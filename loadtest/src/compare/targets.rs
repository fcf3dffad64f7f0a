//! The servers that can be compared: where each is found, how it is got, and how it is started so that the comparison
//! is fair: one worker, no persistence, no log, limits above what a run asks for.

use crate::cli::{DriverName, Protocol};
use clap::ValueEnum;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    KittiwakeEpoll,
    #[value(name = "kittiwake-io_uring")]
    KittiwakeUring,
    /// Its event streams, on the driver that it chooses.
    KittiwakeSse,
    Mosquitto,
    Nchan,
    Nats,
    Rumqttd,
    Ws,
    #[value(name = "socketio")]
    SocketIo,
}

/// Where a server is to be.
#[derive(Clone, Debug)]
pub struct Place {
    pub address: SocketAddr,
    /// For the API of those that have one.
    pub api: SocketAddr,
    /// For its configuration and whatever else it writes.
    pub directory: PathBuf,
    /// Connections it must take.
    pub connections: u32,
}

/// How it is started.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    /// Written to its directory before.
    pub files: Vec<(&'static str, String)>,
    /// What serves is a child of what is started.
    pub has_worker: bool,
}

/// What keeps a server out of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub name: String,
    pub label: &'static str,
    pub what: String,
    /// The command that gets it.
    pub get: String,
}

/// Where programs are looked for: as told on the command line, then on the PATH and where distributions put servers.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Program name and path.
    pub told: Vec<(String, PathBuf)>,
    pub gateway: PathBuf,
}

/// Where nginx's modules are, by distribution.
const NGINX_MODULES: &[&str] = &["/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules"];
/// The servers in Node, and their packages.
const NODE_SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/targets");
/// Memory that nchan's workers share: messages and channels.
const NCHAN_MEMORY: &str = "512M";

impl Programs {
    fn find(&self, name: &str) -> Option<PathBuf> {
        if let Some((_, path)) = self.told.iter().find(|(told, _)| told == name) {
            return path.exists().then(|| path.clone());
        }
        let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
        let cargo = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
        let known = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
        let directories = on_path.into_iter().flatten().chain(cargo).chain(known);
        directories.map(|directory| directory.join(name)).find(|path| path.is_file())
    }
}

impl Target {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::KittiwakeEpoll => "kittiwake epoll",
            Self::KittiwakeUring => "kittiwake io_uring",
            Self::KittiwakeSse => "kittiwake SSE",
            Self::Mosquitto => "mosquitto",
            Self::Nchan => "nchan",
            Self::Nats => "NATS",
            Self::Rumqttd => "rumqttd",
            Self::Ws => "ws (Node)",
            Self::SocketIo => "Socket.IO (Node)",
        }
    }

    pub fn is_ours(self) -> bool {
        self.driver().is_some()
    }

    fn driver(self) -> Option<DriverName> {
        match self {
            Self::KittiwakeEpoll => Some(DriverName::Epoll),
            Self::KittiwakeUring => Some(DriverName::IoUring),
            Self::KittiwakeSse => Some(DriverName::Auto),
            _ => None,
        }
    }

    pub fn protocol(self) -> Protocol {
        match self {
            Self::KittiwakeEpoll | Self::KittiwakeUring | Self::Mosquitto | Self::Rumqttd => Protocol::Mqtt,
            Self::KittiwakeSse => Protocol::Sse,
            Self::Nchan => Protocol::Nchan,
            Self::Nats => Protocol::Nats,
            Self::Ws => Protocol::Ws,
            Self::SocketIo => Protocol::SocketIo,
        }
    }

    /// What its publishers speak.
    pub fn publishes_by(self) -> Protocol {
        if self == Self::KittiwakeSse { Protocol::Mqtt } else { self.protocol() }
    }

    fn missing(self, what: impl Into<String>, get: impl Into<String>) -> Missing {
        Missing { name: self.name(), label: self.label(), what: what.into(), get: get.into() }
    }

    /// How it is started there, or what is not on this machine.
    pub fn recipe(self, programs: &Programs, place: &Place) -> Result<Recipe, Missing> {
        match self {
            Self::KittiwakeEpoll | Self::KittiwakeUring | Self::KittiwakeSse => self.gateway(programs, place),
            Self::Mosquitto => self.mosquitto(programs, place),
            Self::Nchan => self.nchan(programs, place),
            Self::Nats => self.nats(programs, place),
            Self::Rumqttd => self.rumqttd(programs, place),
            Self::Ws => self.node(programs, place, "ws"),
            Self::SocketIo => self.node(programs, place, "socket.io"),
        }
    }

    fn gateway(self, programs: &Programs, place: &Place) -> Result<Recipe, Missing> {
        let program = programs.gateway.clone();
        if !program.exists() {
            let what = format!("there is no {}", program.display());
            return Err(self.missing(what, "cargo build --release --workspace"));
        }
        let driver = self.driver().expect("only the gateway is started so").name();
        let arguments = ["serve", "--shards", "1", "--driver", driver, "--listen", &place.address.to_string()]
            .into_iter()
            .chain(["--api", &place.api.to_string()])
            .map(str::to_owned)
            .collect();
        let environment = vec![("KITTIWAKE_LIMITS_MAX_CONNECTIONS", place.connections.to_string())];
        Ok(Recipe { program, arguments, environment, ..Recipe::default() })
    }

    fn mosquitto(self, programs: &Programs, place: &Place) -> Result<Recipe, Missing> {
        let program = programs.find("mosquitto").ok_or_else(|| {
            self.missing("there is no mosquitto", "apt-get install --no-install-recommends mosquitto")
        })?;
        let configuration = format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nlog_dest none\nset_tcp_nodelay true\n\
             max_queued_messages 100000\nmax_inflight_messages 1000\nmax_connections -1\n",
            place.address.port(),
            place.address.ip()
        );
        let file = place.directory.join("mosquitto.conf");
        let arguments = vec!["-c".to_owned(), file.display().to_string()];
        Ok(Recipe { program, arguments, files: vec![("mosquitto.conf", configuration)], ..Recipe::default() })
    }

    fn nchan(self, programs: &Programs, place: &Place) -> Result<Recipe, Missing> {
        let get = "apt-get install --no-install-recommends nginx libnginx-mod-nchan";
        let program = programs.find("nginx").ok_or_else(|| self.missing("there is no nginx", get))?;
        let mut modules = NGINX_MODULES.iter().map(|directory| Path::new(directory).join("ngx_nchan_module.so"));
        let module = modules.find(|path| path.exists());
        let module = module.ok_or_else(|| self.missing("nginx has no module nchan", get))?;
        let (directory, module) = (place.directory.display(), module.display());
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let (files, connections) = (place.connections.saturating_add(64), place.connections);
        let configuration = format!(
            "load_module {module};\n{user}daemon off;\nworker_processes 1;\nworker_rlimit_nofile {files};\n\
             pid {directory}/nginx.pid;\nerror_log {directory}/error.log crit;\n\
             events {{ worker_connections {connections}; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  tcp_nodelay on;\n\
             \x20 client_body_temp_path {directory}/body;\n  proxy_temp_path {directory}/proxy;\n\
             \x20 fastcgi_temp_path {directory}/fastcgi;\n  uwsgi_temp_path {directory}/uwsgi;\n\
             \x20 scgi_temp_path {directory}/scgi;\n  nchan_shared_memory_size {NCHAN_MEMORY};\n\
             \x20 server {{\n    listen {} backlog=4096;\n\
             \x20   location = /sub {{ nchan_subscriber websocket; nchan_channel_id $arg_topic; \
             nchan_subscriber_first_message newest; }}\n\
             \x20   location = /pub {{ nchan_publisher http; nchan_channel_id $arg_topic; nchan_store_messages off; }}\n\
             \x20 }}\n}}\n",
            place.address
        );
        let file = place.directory.join("nginx.conf").display().to_string();
        let arguments = vec!["-p".to_owned(), place.directory.display().to_string(), "-c".to_owned(), file];
        let files = vec![("nginx.conf", configuration)];
        Ok(Recipe { program, arguments, files, has_worker: true, ..Recipe::default() })
    }

    fn nats(self, programs: &Programs, place: &Place) -> Result<Recipe, Missing> {
        let program = programs.find("nats-server").ok_or_else(|| {
            self.missing("there is no nats-server", "apt-get install --no-install-recommends nats-server")
        })?;
        let configuration = format!(
            "host: \"{}\"\nport: {}\nmax_connections: {}\nping_interval: \"1h\"\nwrite_deadline: \"60s\"\n",
            place.address.ip(),
            place.address.port(),
            place.connections
        );
        let file = place.directory.join("nats.conf").display().to_string();
        Ok(Recipe {
            program,
            arguments: vec!["-c".to_owned(), file],
            environment: vec![("GOMAXPROCS", "1".to_owned())],
            files: vec![("nats.conf", configuration)],
            has_worker: false,
        })
    }

    fn rumqttd(self, programs: &Programs, place: &Place) -> Result<Recipe, Missing> {
        let program =
            programs.find("rumqttd").ok_or_else(|| self.missing("there is no rumqttd", "cargo install rumqttd"))?;
        let configuration = format!(
            "id = 0\n[router]\nid = 0\nmax_connections = {}\nmax_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\nmax_segment_count = 10\n\
             [v4.1]\nname = \"v4-1\"\nlisten = \"{}\"\nnext_connection_delay_ms = 0\n\
             [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 262144\nmax_inflight_count = 1000\n\
             dynamic_filters = true\n",
            place.connections, place.address
        );
        let file = place.directory.join("rumqttd.toml").display().to_string();
        let files = vec![("rumqttd.toml", configuration)];
        // Without `-v` it says errors alone.
        Ok(Recipe { program, arguments: vec!["-c".to_owned(), file], files, ..Recipe::default() })
    }

    fn node(self, programs: &Programs, place: &Place, package: &str) -> Result<Recipe, Missing> {
        let program =
            programs.find("node").ok_or_else(|| self.missing("there is no node", "apt-get install nodejs npm"))?;
        let servers = Path::new(NODE_SERVERS);
        if !servers.join("node_modules").join(package).exists() {
            let what = format!("the package {package} is not installed");
            return Err(self.missing(what, "npm install --prefix loadtest/targets"));
        }
        let script = servers.join(if self == Self::Ws { "ws.js" } else { "socketio.js" });
        let arguments = vec![script.display().to_string(), place.address.port().to_string()];
        Ok(Recipe { program, arguments, ..Recipe::default() })
    }

    /// What the program says of its version.
    pub fn version(self, recipe: &Recipe) -> String {
        let package = match self {
            Self::Ws => "ws",
            Self::SocketIo => "socket.io",
            _ => return self.said_version(&recipe.program),
        };
        let path = Path::new(NODE_SERVERS).join("node_modules").join(package).join("package.json");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        format!("{package} {}, Node {}", value["version"].as_str().unwrap_or("?"), self.said_version(&recipe.program))
    }

    fn said_version(self, program: &Path) -> String {
        let argument = match self {
            Self::Mosquitto => "-h",
            Self::Nchan => "-v",
            _ => "--version",
        };
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // Some print their name in front, some a whole help behind: the word that begins like a version is it.
        let words = text.split(|c: char| c.is_whitespace() || c == '/');
        let is_version =
            |word: &&str| word.trim_start_matches('v').split('.').next().is_some_and(|n| n.parse::<u32>().is_ok());
        words.filter(|word| word.contains('.')).find(is_version).unwrap_or("?").trim_start_matches('v').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path) -> Place {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Place { address: address(7), api: address(8), directory: directory.to_owned(), connections: 500 }
    }

    #[test]
    fn what_is_not_there_comes_with_the_command_that_gets_it() {
        let nowhere = PathBuf::from("/nowhere");
        let told =
            ["mosquitto", "nginx", "nats-server", "rumqttd", "node"].map(|name| (name.to_owned(), nowhere.clone()));
        let programs = Programs { told: told.into(), gateway: nowhere.clone() };
        for target in Target::value_variants() {
            let missing = target.recipe(&programs, &place(&nowhere)).expect_err("nothing is there");
            assert!(missing.what.contains("no "), "{missing:?}");
            let ways = ["apt-get install ", "cargo install ", "cargo build ", "npm install "];
            assert!(ways.iter().any(|way| missing.get.starts_with(way)), "{missing:?}");
        }
    }

    #[test]
    fn a_configuration_names_its_address_and_stays_in_its_directory() {
        let here = std::env::current_exe().expect("a test is a program");
        let told = ["mosquitto", "nats-server", "rumqttd"].map(|name| (name.to_owned(), here.clone()));
        let programs = Programs { told: told.into(), gateway: here.clone() };
        let directory = PathBuf::from("/some/place");
        for target in [Target::Mosquitto, Target::Nats, Target::Rumqttd] {
            let recipe = target.recipe(&programs, &place(&directory)).expect("it is told where it is");
            let (name, text) = &recipe.files[0];
            assert!(text.contains("127.0.0.1") && text.contains('7'), "{text}");
            assert!(recipe.arguments.contains(&directory.join(name).display().to_string()));
        }
        let ours = Target::KittiwakeUring.recipe(&programs, &place(&directory)).expect("it is there");
        assert!(
            ours.arguments.join(" ").contains("--shards 1 --driver io_uring --listen 127.0.0.1:7 --api 127.0.0.1:8")
        );
    }
}
