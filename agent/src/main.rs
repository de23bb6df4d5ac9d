//! The binary `sluice`.

use std::process::ExitCode;

use clap::Parser;
use sluice_agent::{
    cleanup::cleanup,
    cli::{Cli, Command, Options},
    config::{Config, LogFormat},
    failure::Chain,
    install, pages,
    start::{self, StartError},
    status::status,
};
use tracing_subscriber::EnvFilter;

/// `EX_CONFIG` of sysexits.h: the configuration is wrong, and starting again will not help.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let (options, run): (_, fn(Config) -> ExitCode) = match Cli::parse().command {
        Command::Agent(options) => (options, run_agent),
        Command::Cleanup(options) => (options, run_cleanup),
        Command::ShowConfig(options) => (options, show_config),
        Command::InstallPlugin { folder } => return install_plugin(&folder),
        Command::Status { services, options } => return show_status(options, services),
    };
    let config = match options.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sluice: {}", Chain(&error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Err(problem) = start_logging(&config) {
        eprintln!("sluice: logLevel: {problem}");
        return ExitCode::from(EXIT_CONFIG);
    }
    for remark in &config.remarks {
        tracing::warn!("{remark}");
    }
    run(config)
}

fn show_config(config: Config) -> ExitCode {
    println!("{}", pages::settings_file(&config.set));
    ExitCode::SUCCESS
}

fn run_agent(config: Config) -> ExitCode {
    let source = match config.source() {
        Ok(source) => source,
        Err(error) => {
            eprintln!("sluice: {}", Chain(&error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match start::run(config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Chain(&error));
            if let StartError::Corefile(_) = error {
                return ExitCode::from(EXIT_CONFIG);
            }
            ExitCode::FAILURE
        }
    }
}

fn run_cleanup(config: Config) -> ExitCode {
    let errors = cleanup(&config);
    for error in &errors {
        tracing::error!("{}", Chain(error));
    }
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show_status(options: Options, services: bool) -> ExitCode {
    match options.load() {
        Ok(config) => {
            let status = status(&config, services);
            print!("{}", status.text);
            if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("sluice: {}", Chain(&error));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn install_plugin(folder: &std::path::Path) -> ExitCode {
    match install::install_own(folder) {
        Ok(done) => {
            let word = |done| if done { "installed" } else { "was there" };
            println!(
                "{}: sluice-cni {}, loopback {}",
                folder.display(),
                word(done.plugin),
                word(done.loopback)
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sluice: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs go to the standard error.
fn start_logging(config: &Config) -> Result<(), tracing_subscriber::filter::ParseError> {
    // A plain level is one for Sluice: libraries have their say where they are named.
    let directives = match config.log_level.parse::<tracing::Level>() {
        // hickory's connections warn of each forged answer, and forgers have many.
        Ok(level) => format!("warn,hickory_net=error,sluice={level}"),
        Err(_) => config.log_level.clone(),
    };
    let filter = EnvFilter::builder().parse(&directives)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
