//! The JSON of the specification. It is parsed by oci-spec, after what oci-spec reads more strictly than the specification
//! demands has been taken out: capabilities that nobody knows are left out with a warning, and the scheduler is ours.

use dewar_protocol::ErrorKind;
use oci_spec::runtime::{Capability, Process, Spec};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::{Doing, Failure, Result},
    scheduling::Scheduler,
};

/// A process as it was written, and its scheduler.
#[derive(Debug)]
pub struct ReadProcess {
    pub process: Process,
    pub scheduler: Option<Scheduler>,
    /// A sentence for each capability that was left out.
    pub left_out: Vec<String>,
}

/// Reads a `config.json`, which must have a process.
///
/// # Errors
/// `Invalid`, saying what does not parse.
pub fn spec(json: &[u8]) -> Result<(Spec, ReadProcess)> {
    let failed = || "The container's specification does not parse".to_owned();
    let mut value: Value = serde_json::from_slice(json).doing_as(ErrorKind::Invalid, failed)?;
    let process = value.get_mut("process").filter(|process| !process.is_null());
    let process = process.ok_or_else(|| Failure::invalid("The specification has no process"))?;
    let (scheduler, left_out) = prepare(process)?;
    let process = serde_json::from_value(process.clone()).doing_as(ErrorKind::Invalid, failed)?;
    let spec = serde_json::from_value(value).doing_as(ErrorKind::Invalid, failed)?;
    Ok((spec, ReadProcess { process, scheduler, left_out }))
}

/// Reads a `process` alone.
///
/// # Errors
/// `Invalid`, saying what does not parse.
pub fn process(json: &[u8]) -> Result<ReadProcess> {
    let failed = || "The process's specification does not parse".to_owned();
    let mut value: Value = serde_json::from_slice(json).doing_as(ErrorKind::Invalid, failed)?;
    let (scheduler, left_out) = prepare(&mut value)?;
    let process = serde_json::from_value(value).doing_as(ErrorKind::Invalid, failed)?;
    Ok(ReadProcess { process, scheduler, left_out })
}

fn prepare(process: &mut Value) -> Result<(Option<Scheduler>, Vec<String>)> {
    let mut left_out = Vec::new();
    let Some(process) = process.as_object_mut() else { return Ok((None, left_out)) };
    if let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.retain(|capability| {
                // What is no text at all is left for the parser to refuse.
                let known = !capability.is_string() || Capability::deserialize(capability).is_ok();
                if !known {
                    left_out.push(format!("Capability {capability} is unknown and ignored"));
                }
                known
            });
        }
    }
    let scheduler = process.remove("scheduler").filter(|scheduler| !scheduler.is_null());
    let scheduler = scheduler.map(serde_json::from_value).transpose();
    Ok((scheduler.doing_as(ErrorKind::Invalid, || "The scheduler does not parse".into())?, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_nobody_knows_are_left_out() {
        let json = br#"{"cwd":"/","user":{"uid":0,"gid":0},
            "capabilities":{"bounding":["CAP_KILL","CAP_OF_TOMORROW"],"effective":["CAP_NOTHING"]}}"#;
        let read = process(json).expect("parses");
        let capabilities = read.process.capabilities().as_ref().expect("are there");
        assert_eq!(capabilities.bounding().as_ref().map(|set| set.contains(&Capability::Kill)), Some(true));
        assert_eq!(capabilities.bounding().as_ref().map(std::collections::HashSet::len), Some(1));
        assert_eq!(capabilities.effective().as_ref().map(std::collections::HashSet::len), Some(0));
        assert_eq!(read.left_out.len(), 2);
        assert!(process(br#"{"cwd":"/","user":{},"capabilities":{"bounding":[5]}}"#).is_err());
    }

    #[test]
    fn flags_of_a_scheduler_have_the_specification_s_names() {
        let json = br#"{"cwd":"/","user":{"uid":0,"gid":0},
            "scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_DL_OVERRUN"]}}"#;
        assert!(process(json).expect("parses").scheduler.is_some());
        assert!(process(br#"{"cwd":"/","user":{},"scheduler":{"nice":1}}"#).is_err());
    }

    #[test]
    fn a_container_has_a_process() {
        assert!(spec(br#"{"ociVersion":"1.2.0","process":null}"#).is_err());
        assert!(spec(br#"{"ociVersion":"1.2.0","process":{"cwd":"/","user":{"uid":0,"gid":0}}}"#).is_ok());
        assert!(spec(b"{").is_err());
    }
}
