//! The command `limitador-adapter`.

use anyhow::Context;
use limitador_adapter::cli::{self, Cli, Command};
use limitador_adapter::explain::explain;
use limitador_adapter::explain::input::ExplainInput;
#[cfg(feature = "kubernetes")]
use limitador_adapter::kubernetes::crd;
use limitador_adapter::policies::collection::PolicyReport;
use limitador_adapter::policies::sources::Sources;
#[cfg(feature = "kubernetes")]
use limitador_adapter::policies::yaml;
use limitador_adapter::serve::Serving;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("Error: {}", cli::cleared(&format!("{error:?}")));
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    match Cli::read().command {
        Command::Serve(config) => serve(&config),
        Command::Check(cli::CheckArgs { paths }) => {
            let collected = Sources::open(&paths)?.collection.collect();
            let mistakes = collected.mistakes();
            mistakes.iter().for_each(|mistake| println!("{mistake}"));
            let warnings = collected.entries.iter().flat_map(PolicyReport::warnings);
            warnings.for_each(|warning| eprintln!("warning: {warning}"));
            eprintln!("{} good, {} mistakes", collected.policies.len(), mistakes.len());
            Ok(if mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Explain(asked) => explained(&asked),
        #[cfg(feature = "kubernetes")]
        Command::Crd(cli::CrdArgs { group }) => {
            print!("{}", yaml::render(&crd::definition(group)?)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn explained(asked: &cli::ExplainArgs) -> anyhow::Result<ExitCode> {
    let question = ExplainInput::read(asked)?;
    for mistake in question.collected.mistakes() {
        eprintln!("{mistake}");
    }
    print!("{}", explain(question).await?);
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn serve(config: &cli::ServeArgs) -> anyhow::Result<ExitCode> {
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
