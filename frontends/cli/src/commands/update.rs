//! `dewar update`.

use clap::Args;
use dewar_runtime::spec::{UpdateOptions, parse};

use crate::cli::{Globals, Verb};
use crate::failure::{Usage, for_each};
use crate::output;

#[derive(Debug, Args)]
pub struct Update {
    /// Most memory the container may use (such as 512m or 2g)
    #[arg(short, long, value_name = "BYTES", value_parser = parse::size)]
    memory: Option<u64>,
    /// Most memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = parse::swap_size, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Memory that is taken from the container last
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    memory_reservation: Option<u64>,
    /// Most CPU time, in CPUs (such as 1.5)
    #[arg(long, value_name = "NUMBER", value_parser = parse::cpus, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<u64>,
    /// CPU time relative to other containers in the same machine
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Most CPU time in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// CPUs of the machine the container may run on (such as 0-2,4)
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes of the machine, which has one: 0
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Share of disk traffic, from 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Update {
    const NAME: &'static str = "update";
    const ABOUT: &'static str = "Change the limits of containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static str = "  dewar update -m 256m --memory-swap -1 web\n  dewar update --cpus 0.5 --pids-limit 100 web\n\n\
                                    A running machine cannot grow: stop its container first to give it more.";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let options = self.options();
        if options.is_empty() {
            let message = "you must provide one or more flags when using this command".to_owned();
            return Err(Usage { message, command: "dewar update".into() }.into());
        }
        let runtime = globals.runtime()?;
        let containers = runtime.containers();
        Ok(for_each(&self.containers, |name| {
            let mut container = containers.find(name)?;
            runtime.update(&mut container, &options)?;
            Ok(output::line(name)?)
        }))
    }
}

impl Update {
    fn options(&self) -> UpdateOptions {
        UpdateOptions {
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            nano_cpus: self.cpus,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
        }
    }
}
