//! From the environment and standard input to one JSON object on standard output.

use std::io::{self, IsTerminal, Read, Write};

use serde_json::{Value, json};

use crate::{
    add, check,
    config::Config,
    del,
    delegate::Delegate,
    environment::{Lookup, Target},
    error::{Code, Error, Result},
    gc, help, loopback, status,
    version::Version,
};

/// How the process ends: `EXIT_SUCCESS` and `EXIT_FAILURE` of C.
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

/// Runs the plugin on the process's own environment and standard streams, and gives the status to exit with.
/// `arguments` are those after the program's name.
pub fn run(arguments: &[String]) -> u8 {
    let lookup = |name: &str| std::env::var(name).ok();
    let by_hand = lookup("CNI_COMMAND").is_none() && io::stdin().is_terminal();
    if let Some(text) = help::for_people(arguments, by_hand) {
        let code = if by_hand && arguments.is_empty() { FAILURE } else { SUCCESS };
        return if write(text.as_bytes()).is_ok() { code } else { FAILURE };
    }
    // Room for a configuration at once, instead of growing by small reads.
    let mut stdin = Vec::with_capacity(16 * 1024);
    let (output, code) = match io::stdin().read_to_end(&mut stdin) {
        Ok(_) => respond(&lookup, &stdin),
        Err(error) => {
            let error = Error::new(Code::Io, format!("cannot read the network configuration: {error}"));
            (Some(error.to_json(&Version::V1_1_0.to_string())), FAILURE)
        }
    };
    let written = output.map_or(Ok(()), |json| write(format!("{json:#}\n").as_bytes()));
    // An ADD whose result the runtime did not get is followed by a DEL.
    if written.is_ok() { code } else { FAILURE }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// What to print, and how to exit.
fn respond(lookup: Lookup<'_>, stdin: &[u8]) -> (Option<Value>, u8) {
    match dispatch(lookup, stdin) {
        Ok(output) => (output, SUCCESS),
        Err(error) => (Some(error.to_json(&answer_version(stdin).to_string())), FAILURE),
    }
}

/// The version to answer an error in: the configuration's, if it has one that we know.
fn answer_version(stdin: &[u8]) -> Version {
    #[derive(serde::Deserialize)]
    struct OnlyVersion {
        #[serde(rename = "cniVersion")]
        version: Option<String>,
    }
    let text = serde_json::from_slice::<OnlyVersion>(stdin).ok().and_then(|only| only.version);
    Version::parse(text.as_deref()).ok().filter(|_| text.is_some()).unwrap_or(Version::V1_1_0)
}

fn dispatch(lookup: Lookup<'_>, stdin: &[u8]) -> Result<Option<Value>> {
    let Some(command) = lookup("CNI_COMMAND").filter(|command| !command.is_empty()) else {
        let msg = "required environment variables are missing: CNI_COMMAND";
        return Err(Error::new(Code::InvalidEnvironment, msg));
    };
    match command.as_str() {
        "VERSION" => version(stdin).map(Some),
        "ADD" | "DEL" | "CHECK" => {
            let target = Target::read(lookup, command != "DEL")?;
            let config = if command == "CHECK" {
                since(Version::V0_4_0, "CHECK", stdin)?
            } else {
                Config::parse(stdin)?
            };
            if command == "CHECK" && config.disable_check {
                return Ok(None);
            }
            if loopback::is_meant(&config) {
                return match command.as_str() {
                    "ADD" => loopback::add(&config, &target).map(Some),
                    "DEL" => loopback::del(&target).map(|()| None),
                    _ => loopback::check(&target).map(|()| None),
                };
            }
            let delegate = Delegate::find(&config, lookup)?;
            match command.as_str() {
                "ADD" => {
                    let result = add::add(&config, &target, delegate.as_ref())?;
                    Ok(Some(result.to_json(config.version()?, config.prev_result.as_ref())))
                }
                "DEL" => del::del(&config, &target, delegate.as_ref()).map(|()| None),
                _ => check::check(&config, &target, delegate.as_ref()).map(|()| None),
            }
        }
        "STATUS" | "GC" => {
            let config = since(Version::V1_1_0, &command, stdin)?;
            if loopback::is_meant(&config) || (command == "GC" && config.disable_gc) {
                return Ok(None);
            }
            let delegate = Delegate::find(&config, lookup)?;
            match command.as_str() {
                "GC" => gc::gc(&config, delegate.as_ref()),
                _ => status::status(&config, delegate.as_ref()),
            }
            .map(|()| None)
        }
        other => {
            let msg = format!("CNI_COMMAND={other:?} is not one of ADD, DEL, CHECK, STATUS, GC, VERSION");
            Err(Error::new(Code::InvalidEnvironment, msg))
        }
    }
}

/// The configuration, which must be of a version that has the command.
fn since(version: Version, command: &str, stdin: &[u8]) -> Result<Config> {
    let config = Config::parse(stdin)?;
    if config.version()? < version {
        let msg = format!("cniVersion {} has no {command}, which came with {version}", config.version()?);
        return Err(Error::new(Code::IncompatibleVersion, msg));
    }
    Ok(config)
}

fn version(stdin: &[u8]) -> Result<Value> {
    let text = if stdin.trim_ascii().is_empty() {
        None
    } else {
        let value: Value = serde_json::from_slice(stdin).map_err(|error| {
            Error::new(Code::Decode, format!("the version request is not understood: {error}"))
        })?;
        value.get("cniVersion").and_then(Value::as_str).map(str::to_owned)
    };
    let supported: Vec<_> = Version::SUPPORTED.iter().map(ToString::to_string).collect();
    Ok(json!({
        "cniVersion": text.unwrap_or_else(|| Version::V1_1_0.to_string()),
        "supportedVersions": supported,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&str, &str)], stdin: &str) -> Value {
        let lookup =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        respond(&lookup, stdin.as_bytes()).0.unwrap()
    }

    #[test]
    fn the_versions_are_told_in_the_version_that_asks() {
        let answer = ask(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(answer["supportedVersions"][0], "0.1.0");
        assert_eq!(answer["supportedVersions"][6], "1.1.0");
        assert_eq!(ask(&[("CNI_COMMAND", "VERSION")], "")["cniVersion"], "1.1.0");
    }

    #[test]
    fn errors_are_answered_in_the_configurations_version_with_number_and_words() {
        let answer = ask(&[("CNI_COMMAND", "ADD")], r#"{"cniVersion":"0.4.0","name":"n"}"#);
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(answer["code"], 4);
        assert!(answer["msg"].as_str().unwrap().contains("CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"));
        assert_eq!(ask(&[], "")["code"], 4);
        assert_eq!(ask(&[("CNI_COMMAND", "DANCE")], "")["code"], 4);
        let attach =
            [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "e")];
        let answer = ask(&attach, r#"{"cniVersion":"7.0.0","name":"n"}"#);
        assert_eq!((&answer["code"], &answer["cniVersion"]), (&json!(1), &json!("1.1.0")));
        assert_eq!(ask(&attach, "{")["code"], 6);
    }
}
