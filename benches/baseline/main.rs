//! What kittiwake's engine is compared with: the same job in the way it is usually written, a task for each connection on
//! a general runtime, here tokio-uring. See `server.rs` for what it does and leaves out.
//!
//! ```text
//! baseline serve --listen ADDR        serves; `loadtest --spawn --gateway target/release/baseline` starts it so
//! baseline compare                    runs the load generator against it and against kittiwake, and prints both
//! ```

mod compare;
mod server;

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::process::ExitCode;

/// As the gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "baseline")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves one topic tree, a task for each connection.
    Serve(Serve),
    /// The same load against this and against kittiwake.
    Compare(compare::Compare),
}

/// The gateway's flags, so that the load generator can start either.
#[derive(Args)]
struct Serve {
    /// Where to listen.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Always one.
    #[arg(long, value_parser = ["1"], default_value = "1")]
    shards: String,
    /// Always io_uring.
    #[arg(long, value_parser = ["auto", "io_uring"], default_value = "auto")]
    driver: String,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(serve) => server::serve(serve.listen).map_err(|error| format!("{}: {error}", serve.listen)),
        Command::Compare(compare) => compare::run(&compare),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("baseline: {why}");
            ExitCode::FAILURE
        }
    }
}
