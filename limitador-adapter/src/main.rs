//! The command `limitador-adapter`.

use anyhow::Context;
use clap::Parser;
use limitador_adapter::check::check;
use limitador_adapter::cli::{self, Cli, Command};
use limitador_adapter::serve::Serving;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Serve(config) => serve(&config),
        Command::Check(cli::Check { paths }) => {
            let checked = check(&paths)?;
            for mistake in &checked.mistakes {
                println!("{mistake}");
            }
            eprintln!("{} good, {} mistakes", checked.policies, checked.mistakes.len());
            Ok(if checked.mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

#[tokio::main]
async fn serve(config: &cli::Serve) -> anyhow::Result<ExitCode> {
    let level =
        EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn,limitador_adapter=info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_ansi(colours).init();
    // Both before anything serves: a signal that comes right after must not find the default, which is to die.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut serving = Serving::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        failed = serving.failed() => return Err(failed.into()),
    }
    serving.drain().await;
    Ok(ExitCode::SUCCESS)
}
