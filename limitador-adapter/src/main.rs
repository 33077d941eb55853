//! The command `limitador-adapter`.

use anyhow::Context;
use limitador_adapter::check::CheckReport;
use limitador_adapter::cli::{self, Cli, Command, OutputFormat};
#[cfg(feature = "kubernetes")]
use limitador_adapter::cluster_status::{ClusterStatus, fetch};
use limitador_adapter::explain::explain;
use limitador_adapter::explain::input::ExplainInput;
use limitador_adapter::explain::live;
#[cfg(feature = "kubernetes")]
use limitador_adapter::kubernetes::crd;
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
        Command::Check(arguments) => check(&arguments),
        Command::Explain(asked) => explained(&asked),
        Command::Counters(arguments) => counters(&arguments),
        Command::Usage(arguments) => usage(&arguments),
        #[cfg(feature = "kubernetes")]
        Command::Status(arguments) => cluster_status(&arguments),
        #[cfg(feature = "kubernetes")]
        Command::Crd(cli::CrdArgs { group }) => {
            print!("{}", yaml::render(&crd::definition(group)?)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints errors to stdout, or the summary if there are no errors. Prints warnings and the count to stderr.
fn check(arguments: &cli::CheckArgs) -> anyhow::Result<ExitCode> {
    let report = CheckReport::new(Sources::open(&arguments.paths)?.collection.collect());
    let (errors, warnings) = (report.errors(), report.warnings());
    if arguments.output == OutputFormat::Json {
        println!("{:#}", report.json());
    } else {
        let (of_errors, of_warnings) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        errors.iter().for_each(|error| println!("{}", coloured(error, "31", of_errors)));
        if errors.is_empty() {
            print!("{}", report.summary());
        }
        warnings
            .iter()
            .for_each(|warning| eprintln!("{}", coloured(&format!("warning: {warning}"), "33", of_warnings)));
        eprintln!("{}", report.count());
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fails if there is any problem, like `check`.
#[cfg(feature = "kubernetes")]
#[tokio::main(flavor = "current_thread")]
async fn cluster_status(arguments: &cli::StatusArgs) -> anyhow::Result<ExitCode> {
    let client = fetch::connect(arguments.kubeconfig.as_deref()).await.map_err(anyhow::Error::msg)?;
    let objects = fetch::fetch(&client).await.context("the API server does not answer")?;
    let status = ClusterStatus::new(&objects);
    match arguments.output {
        OutputFormat::Text => print!("{status}"),
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    Ok(if status.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn coloured(text: &str, colour: &str, on_terminal: bool) -> String {
    if on_terminal { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[tokio::main(flavor = "current_thread")]
async fn explained(asked: &cli::ExplainArgs) -> anyhow::Result<ExitCode> {
    if asked.watch {
        eprintln!("waiting for the next request that {} is asked about", asked.server);
        let observed = live::next(asked).await?;
        match asked.output {
            OutputFormat::Text => print!("{observed}"),
            OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&observed)?),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let question = ExplainInput::read(asked)?;
    let mistakes = question.collected.mistakes();
    mistakes.iter().for_each(|mistake| eprintln!("{mistake}"));
    if question.collected.policies.is_empty() && !mistakes.is_empty() {
        eprintln!("no valid policy to explain");
        return Ok(ExitCode::FAILURE);
    }
    let explanation = explain(question).await?;
    match asked.output {
        OutputFormat::Text => print!("{explanation}"),
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main(flavor = "current_thread")]
async fn counters(arguments: &cli::CountersArgs) -> anyhow::Result<ExitCode> {
    print!("{}", limitador_adapter::counters::run(&arguments.action).await?);
    Ok(ExitCode::SUCCESS)
}

#[tokio::main(flavor = "current_thread")]
async fn usage(arguments: &cli::UsageArgs) -> anyhow::Result<ExitCode> {
    print!("{}", limitador_adapter::usage::report::run(arguments).await?);
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn serve(config: &cli::ServeArgs) -> anyhow::Result<ExitCode> {
    let level =
        EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn,limitador_adapter=info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_ansi(colours).init();
    // Both handlers are installed before anything is served. Otherwise an early signal would reach the
    // default handler, which ends the process.
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
