//! Reads the built guest kernel's configuration back: a requested option that was silently dropped fails by name.
//!
//! Needs a build of the current fragment in the cache (`cargo xtask kernel`); without one the case is ignored, with the
//! reason, and counted so.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use xtask::kernel::Recipe;
use xtask::places::Places;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let built = Places::here().and_then(|places| Recipe::here(&places, &[])?.dropped(&places));
    let ignored = matches!(built, Ok(None));
    if ignored {
        eprintln!("ignored: the guest kernel has not been built from this fragment (cargo xtask kernel)");
    }
    let trial = Trial::test("built_config_honours_the_fragment", move || match built {
        Ok(Some(dropped)) if dropped.is_empty() => Ok(()),
        Ok(Some(dropped)) => Err(Failed::from(dropped.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))),
        Ok(None) => Err(Failed::from("no built kernel in the cache")),
        Err(error) => Err(Failed::from(format!("{error:#}"))),
    });
    libtest_mimic::run(&arguments, vec![trial.with_ignored_flag(ignored)]).exit_code()
}
