//! One file a verb: its arguments, and the calls that they become.

mod attach;
mod completion;
mod create;
mod doctor;
mod exec;
mod images;
mod inspect;
mod kill;
mod load;
mod logs;
mod pause;
mod ps;
mod pull;
mod rm;
mod rmi;
mod run;
mod start;
mod stats;
mod stop;
mod tag;
mod top;
mod unpause;
mod update;
mod version;
mod wait;

use dewar_protocol::WindowSize;
use dewar_runtime::Runtime;
use dewar_runtime::container::Container;
use dewar_runtime::control::{Client, Streams};

use crate::cli::Entry;

/// In the order in which `dewar --help` lists them.
pub const ALL: &[Entry] = &[
    Entry::of::<run::Run>(),
    Entry::of::<create::Create>(),
    Entry::of::<start::Start>(),
    Entry::of::<stop::Stop>(),
    Entry::of::<kill::Kill>(),
    Entry::of::<rm::Rm>(),
    Entry::of::<ps::Ps>(),
    Entry::of::<exec::Exec>(),
    Entry::of::<logs::Logs>(),
    Entry::of::<attach::Attach>(),
    Entry::of::<wait::Wait>(),
    Entry::of::<inspect::Inspect>(),
    Entry::of::<pause::Pause>(),
    Entry::of::<unpause::Unpause>(),
    Entry::of::<update::Update>(),
    Entry::of::<stats::Stats>(),
    Entry::of::<top::Top>(),
    Entry::of::<images::Images>(),
    Entry::of::<load::Load>(),
    Entry::of::<pull::Pull>(),
    Entry::of::<tag::Tag>(),
    Entry::of::<rmi::Rmi>(),
    Entry::of::<doctor::Doctor>(),
    Entry::of::<version::Version>(),
    Entry::of::<completion::Completion>(),
];

/// Starts a container, and passes on what its supervisor has to say about it: a slower engine is never taken in silence.
fn start_told(
    runtime: &Runtime,
    container: &Container,
    streams: Streams,
    size: Option<WindowSize>,
) -> Result<Client, dewar_runtime::Error> {
    let client = runtime.start(container, streams, size)?;
    if let Some(notice) = client.notice() {
        eprintln!("dewar: {notice}");
    }
    Ok(client)
}
