//! Template of a container's writable disk: an empty ext4 in a sparse file.
//!
//! Made by `mke2fs`; what it is asked for is decided here. A copy of the template is the writable layer of one
//! container and is thrown away with it, so there is no journal, no backup superblock, no reserve for root. The inode
//! tables count as zeroed (a sparse file is), or the guest would fill them in the background and with them the host's
//! disk.

use std::path::Path;
use std::process::Command;

/// Size of the template as the guest sees it.
pub const SIZE: u64 = 10 << 30;

const FEATURES: &str =
    "^has_journal,^resize_inode,^64bit,sparse_super2,metadata_csum,flex_bg,extent,dir_index,huge_file,uninit_bg";
/// One flexible group for the whole disk: all bitmaps and inode tables lie together and stay holes.
const GROUPS: &str = "128";
/// Fixed, so that the template does not differ from build to build; no two of them ever meet in one guest's mounts by id.
const UUID: &str = "64657761-7273-4372-8174-636864697363";

/// The call of `mke2fs` (a path to it) that formats `image`, which must be a sparse file of [`SIZE`] bytes.
pub fn format_command(mke2fs: &Path, image: &Path) -> Command {
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-O", FEATURES, "-G", GROUPS, "-U", UUID]);
    command.arg("-E").arg(format!(
        "assume_storage_prezeroed=1,nodiscard,root_owner=0:0,num_backup_sb=0,packed_meta_blocks=1,hash_seed={UUID}"
    ));
    command.arg(image);
    command
}
