//! The section `linux.seccomp` of a configuration, as JSON, into a filter program.

#![no_main]

use dewar_fuzz::seccomp::Program;
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;

fuzz_target!(|data: &[u8]| {
    if let Ok(section) = serde_json::from_slice::<LinuxSeccomp>(data) {
        // What is refused is refused with a sentence; neither may panic.
        for strict in [false, true] {
            if let Err(error) = Program::compile(&section, strict) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
});
