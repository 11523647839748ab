//! `dewar-supervisor ID DATA RUN`: runs one container; started by the front ends, see `dewar_runtime::supervisor`.
//! `dewar-supervisor oci …`: runs a bundle's, see `dewar_runtime::oci`; what follows is for readers of ps alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "oci") {
        return dewar_runtime::oci::run_container();
    }
    let [id, data, run] = arguments.as_slice() else {
        eprintln!("dewar-supervisor is started by dewar, not by hand");
        return ExitCode::from(125);
    };
    match dewar_runtime::supervisor::run(&id.to_string_lossy(), data.into(), run.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dewar-supervisor: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}
