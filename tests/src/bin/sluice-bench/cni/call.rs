//! Calling plugins as a runtime does, from a process that does nothing else: what its children took is what they
//! took.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use serde_json::{Value, json};
use sluice_tests::{Error, Result, programs};

use super::{REFERENCE, floor};

/// A plugin and its configuration.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) program: PathBuf,
    pub(super) config: Value,
}

/// One container's attachment.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) container: String,
    pub(super) netns: String,
    /// In the order of ADD.
    pub(super) steps: Vec<Step>,
    /// What ADD ended with, for DEL.
    pub(super) result: Value,
    /// Whether the floor gives an address of each family.
    pub(super) both: bool,
}

/// Calls that begin at once.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    /// The node's namespace.
    pub(super) netns: PathBuf,
    pub(super) command: String,
    pub(super) calls: Vec<Call>,
}

/// What a call took.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    /// Microseconds, from before the first process is started until the last has ended.
    pub(super) wall: f64,
    /// Microseconds of CPU, on average over the calls.
    pub(super) cpu: f64,
    /// Of the largest process, in KiB.
    pub(super) memory: f64,
    pub(super) result: Value,
}

fn missing(what: &str) -> Error {
    Error::answer("sluice-bench cni-calls", format!("no {what}"))
}

impl Calls {
    /// Makes the calls from a process of their own.
    pub(super) fn run(&self) -> Result<Vec<Cost>> {
        let calls = self.calls.iter().map(|call| {
            let steps =
                call.steps.iter().map(|step| json!({ "program": step.program, "config": step.config }));
            json!({
                "container": call.container, "netns": call.netns, "result": call.result, "both": call.both,
                "steps": steps.collect::<Vec<_>>(),
            })
        });
        let request = json!({
            "netns": self.netns, "command": self.command, "calls": calls.collect::<Vec<_>>(),
        });
        let mut command = Command::new(programs::built("sluice-bench")?);
        let answer = feed(command.arg("cni-calls"), &request.to_string())?;
        let costs = answer.as_array().ok_or_else(|| missing("costs"))?;
        costs
            .iter()
            .map(|cost| {
                let number = |key: &str| cost[key].as_f64().ok_or_else(|| missing(key));
                let result = cost["result"].clone();
                Ok(Cost { wall: number("wall")?, cpu: number("cpu")?, memory: number("memory")?, result })
            })
            .collect()
    }

    fn parse(request: &Value) -> Option<Self> {
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        let step = |step: &Value| {
            Some(Step { program: text(&step["program"])?.into(), config: step["config"].clone() })
        };
        let call = |call: &Value| {
            Some(Call {
                container: text(&call["container"])?,
                netns: text(&call["netns"])?,
                steps: call["steps"].as_array()?.iter().map(step).collect::<Option<_>>()?,
                result: call["result"].clone(),
                both: call["both"].as_bool()?,
            })
        };
        Some(Self {
            netns: text(&request["netns"])?.into(),
            command: text(&request["command"])?,
            calls: request["calls"].as_array()?.iter().map(call).collect::<Option<_>>()?,
        })
    }
}

/// Runs a program on a text; its answer must be JSON, or nothing.
fn feed(command: &mut Command, text: &str) -> Result<Value> {
    let what = || format!("{:?}", command.get_program());
    let what = what();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Error::answer(&*what, error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that fails before it reads closes the pipe; its exit says why.
        let _closed = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| Error::answer(&*what, error))?;
    if !output.status.success() {
        return Err(Error::answer(what, String::from_utf8_lossy(&output.stdout)));
    }
    if output.stdout.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Error::answer(what, error))
}

/// Makes the calls that standard input says, and prints what they took.
pub(crate) fn calls() -> Result<()> {
    let request: Value =
        serde_json::from_reader(std::io::stdin()).map_err(|error| Error::answer("stdin", error))?;
    let Calls { netns, command, calls } = Calls::parse(&request).ok_or_else(|| missing("request"))?;
    let file = std::fs::File::open(&netns).map_err(Error::file("open", &netns))?;
    // Before there are threads: they and the plugins inherit it.
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::answer("the node's namespace", errno))?;
    let floor = calls.iter().all(|call| call.steps.is_empty());
    let who = if floor { UsageWho::RUSAGE_SELF } else { UsageWho::RUSAGE_CHILDREN };
    let usage = || getrusage(who).map_err(|errno| Error::answer("getrusage", errno));
    let (before, start) = (usage()?, Barrier::new(calls.len()));
    let run = &|call| {
        start.wait();
        make(&command, call)
    };
    let results: Vec<Result<(Duration, Value)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = calls.iter().map(|call| scope.spawn(move || run(call))).collect();
        let lost = |_| Err(Error::answer("sluice-bench cni-calls", "a thread panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect()
    });
    let after = usage()?;
    let cpu = (cpu(&after) - cpu(&before)) / results.len() as f64;
    let costs = results.into_iter().map(|result| {
        let (wall, result) = result?;
        let wall = wall.as_secs_f64() * 1e6;
        Ok(json!({ "wall": wall, "cpu": cpu, "memory": after.max_rss(), "result": result }))
    });
    println!("{}", Value::from(costs.collect::<Result<Vec<_>>>()?));
    Ok(())
}

/// Microseconds.
fn cpu(usage: &Usage) -> f64 {
    let (user, system) = (usage.user_time(), usage.system_time());
    (user.tv_sec() + system.tv_sec()) as f64 * 1e6 + (user.tv_usec() + system.tv_usec()) as f64
}

/// One call: its plugins in order, for DEL in the reverse order.
fn make(command: &str, call: &Call) -> Result<(Duration, Value)> {
    if call.steps.is_empty() {
        let started = Instant::now();
        floor::make(command, call)?;
        return Ok((started.elapsed(), Value::Null));
    }
    let mut steps: Vec<_> = call.steps.iter().collect();
    if command == "DEL" {
        steps.reverse();
    }
    let (mut result, mut wall) = (call.result.clone(), Duration::ZERO);
    for step in steps {
        let mut config = step.config.clone();
        if !result.is_null() {
            config["prevResult"] = result.clone();
        }
        let text = config.to_string();
        let mut process = Command::new(&step.program);
        process.env_clear().env("PATH", "/usr/sbin:/usr/bin").env("CNI_PATH", REFERENCE);
        process.env("CNI_COMMAND", command).env("CNI_IFNAME", "eth0");
        process.env("CNI_CONTAINERID", &call.container).env("CNI_NETNS", &call.netns);
        let started = Instant::now();
        let answer = feed(&mut process, &text)?;
        wall += started.elapsed();
        if !answer.is_null() {
            result = answer;
        }
    }
    Ok((wall, result))
}
