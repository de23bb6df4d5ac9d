//! The binary `sluice`.

use std::{env, fs, path::Path, process::ExitCode};

use clap::Parser;
use sluice_agent::{
    cleanup::cleanup,
    cli::{Cli, Command, Options},
    config::{
        Config, LogFormat,
        kube_proxy::{Invocation, InvocationError, invocation},
    },
    failure::Chain,
    install, nf_conntrack, pages,
    start::{self, StartError},
    status::status,
};
use tracing_subscriber::EnvFilter;

/// `EX_CONFIG` of sysexits.h: the configuration is wrong, and starting again will not help.
const EXIT_CONFIG: u8 = 78;

/// The command line is wrong: what the parser of our own ends with.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // A link of that name beside the program stands for kube-proxy itself.
    let words: Vec<String> = env::args().collect();
    let called = words.first().map(Path::new).and_then(Path::file_name);
    if called.is_some_and(|name| name == "kube-proxy") {
        return kube_proxy(&words[1..]);
    }
    let (options, run): (_, fn(Config) -> ExitCode) = match Cli::parse().command {
        Command::Agent(options) => (options, run_agent),
        Command::Cleanup(options) => (options, run_cleanup),
        Command::ShowConfig(options) => (options, show_config),
        Command::KubeProxy { words } => return kube_proxy(&words),
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
    carry_out(config, run)
}

/// Starts logging, says what does not hold of the configuration, and runs.
fn carry_out(config: Config, run: fn(Config) -> ExitCode) -> ExitCode {
    if let Err(problem) = start_logging(&config) {
        eprintln!("sluice: logLevel: {problem}");
        return ExitCode::from(EXIT_CONFIG);
    }
    for remark in &config.remarks {
        tracing::warn!("{remark}");
    }
    run(config)
}

/// What kube-proxy's command line asks for.
fn kube_proxy(words: &[String]) -> ExitCode {
    match invocation(words) {
        Ok(Invocation::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Invocation::Write(path, text)) => match fs::write(&path, text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("sluice: cannot write {}: {error}", path.display());
                ExitCode::FAILURE
            }
        },
        Ok(Invocation::Cleanup(config)) => carry_out(*config, run_cleanup),
        Ok(Invocation::InitOnly(config)) => carry_out(*config, |config| {
            nf_conntrack::apply(&config.nf_conntrack);
            ExitCode::SUCCESS
        }),
        Ok(Invocation::Run(config)) => carry_out(*config, run_agent),
        Err(error) => {
            eprintln!("sluice: {}", Chain(&error));
            ExitCode::from(if let InvocationError::Config(_) = error { EXIT_CONFIG } else { EXIT_USAGE })
        }
    }
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
