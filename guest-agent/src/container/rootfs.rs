//! Root filesystems: read-only layers on a disk, stacked by overlayfs with a writable one, or a directory that the host
//! shares.
//!
//! Everything of one container lies under `/c/ID`: `l/N` its layers (the highest is 0), `u` the writable filesystem,
//! `f/N` its files, `root` the whole. The layers of a disk are made partitions of it, so that the kernel probes one
//! device however many there are. A shared directory is `root` as it is, with the owners that the host sees.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{OpenOptionsExt, chown, fchown},
    },
    path::{Path, PathBuf},
};

use dewar_protocol::{CreateContainer, ErrorKind, Extent, GuestFile, Rootfs as Wanted, Upper};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount},
    process::chdir,
};

use super::{memory::Memory, shared::Shared};
use crate::{
    error::{Doing, Failure, Result},
    sys::{
        block,
        mount::{Attributes, set_attributes},
    },
};

/// Where containers lie.
pub const BASE: &str = "/c";
/// Alignment of layers on their disk.
const ALIGNMENT: u64 = 4096;
/// What the kernel allows: 255 partitions of a disk.
const MAX_LAYERS: usize = 255;

/// What root filesystems and mounts are made of.
#[derive(Debug, Default)]
pub struct Storage {
    pub disks: Disks,
    pub shared: Shared,
    pub memory: Memory,
}

/// Which layers are partitions of which disk, and how many containers use each.
#[derive(Debug, Default)]
pub struct Disks {
    partitions: BTreeMap<(u8, u64, u64), Partition>,
}

#[derive(Debug)]
struct Partition {
    number: i32,
    users: u32,
}

/// A mounted root filesystem, as the agent sees it.
#[derive(Debug)]
pub struct Rootfs {
    base: PathBuf,
    mounted: Vec<PathBuf>,
    layers: Vec<(u8, Extent)>,
}

/// How the ids of a container with a user namespace of its own lie outside of it.
#[derive(Debug)]
pub struct Shift {
    /// A user namespace with the same maps.
    pub user_namespace: OwnedFd,
    /// Root of the container.
    pub uid: u32,
    pub gid: u32,
}

/// The root filesystem inside the mount namespace of its container.
pub struct Root {
    fd: OwnedFd,
    base: PathBuf,
}

impl Root {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The same place by another descriptor.
    pub fn at(self, fd: OwnedFd) -> Self {
        Self { fd, ..self }
    }

    /// One of the container's files, outside its root.
    pub fn file(&self, number: usize) -> PathBuf {
        self.base.join("f").join(number.to_string())
    }
}

impl Rootfs {
    /// Mounts everything. What was mounted before a failure is unmounted again.
    pub fn mount(storage: &mut Storage, request: &CreateContainer, shift: Option<&Shift>) -> Result<Self> {
        let mut rootfs = Self { base: Path::new(BASE).join(&request.id), mounted: Vec::new(), layers: Vec::new() };
        match rootfs.build(storage, request, shift) {
            Ok(()) => Ok(rootfs),
            Err(failure) => {
                rootfs.unmount(&mut storage.disks);
                Err(failure)
            }
        }
    }

    fn build(&mut self, storage: &mut Storage, request: &CreateContainer, shift: Option<&Shift>) -> Result<()> {
        for name in ["l", "u", "f", "root"] {
            let path = self.base.join(name);
            fs::create_dir_all(&path).doing(|| format!("Making {} failed", path.display()))?;
        }
        for (number, file) in request.files.iter().enumerate() {
            let path = self.base.join("f").join(number.to_string());
            write_file(&path, file, shift).doing(|| format!("Writing the content of {} failed", file.path))?;
        }
        match &request.rootfs {
            Wanted::Layers { disk, layers, upper } => {
                check_layers(layers)?;
                self.mount_layers(&mut storage.disks, (*disk, layers), shift)?;
                self.mount_upper(upper, shift)?;
                self.stack(layers.len())
            }
            Wanted::Shared { path } => self.mount_shared(&mut storage.shared, Path::new(path)),
        }
    }

    fn mount_layers(&mut self, disks: &mut Disks, of: (u8, &[Extent]), shift: Option<&Shift>) -> Result<()> {
        let (disk, layers) = of;
        // The first directory of an overlay is its highest layer.
        for (number, extent) in layers.iter().rev().enumerate() {
            let device = disks.acquire(disk, *extent, layers.len() == 1)?;
            self.layers.push((disk, *extent));
            let target = self.base.join("l").join(number.to_string());
            fs::create_dir_all(&target).doing(|| format!("Making {} failed", target.display()))?;
            self.mount_one(&device, &target, "erofs", MountFlags::RDONLY, "")
                .doing(|| format!("Mounting the layer at byte {} of disk {disk} failed", extent.offset))?;
            if let Some(shift) = shift {
                self.shift(&target, shift)
                    .doing(|| format!("Shifting the ids of the layer at byte {} failed", extent.offset))?;
            }
        }
        Ok(())
    }

    fn mount_shared(&mut self, shared: &mut Shared, path: &Path) -> Result<()> {
        let tree = shared.tree(path, true)?;
        let target = self.base.join("root");
        // It fails for what is no directory.
        move_mount(&tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .doing_as(ErrorKind::Invalid, || format!("Mounting the root filesystem {} failed", path.display()))?;
        self.mounted.push(target);
        Ok(())
    }

    fn mount_one(
        &mut self,
        source: &str,
        target: &Path,
        kind: &str,
        flags: MountFlags,
        options: &str,
    ) -> rustix::io::Result<()> {
        let options = std::ffi::CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
        mount(source, target, kind, flags, options.as_c_str())?;
        self.mounted.push(target.to_owned());
        Ok(())
    }

    /// Covers a mounted layer with itself, its ids shifted: what belongs to root on the disk belongs to the container's.
    fn shift(&mut self, target: &Path, shift: &Shift) -> std::io::Result<()> {
        let tree = open_tree(CWD, target, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        let userns_fd = u64::try_from(shift.user_namespace.as_raw_fd()).unwrap_or_default();
        let attributes = Attributes { set: libc::MOUNT_ATTR_IDMAP, userns_fd, ..Attributes::default() };
        set_attributes(&tree, false, &attributes)?;
        move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        self.mounted.push(target.to_owned());
        Ok(())
    }

    fn mount_upper(&mut self, upper: &Upper, shift: Option<&Shift>) -> Result<()> {
        let target = self.base.join("u");
        let failed = || "Mounting the writable layer failed".to_owned();
        match upper {
            Upper::Disk { disk } => {
                self.mount_one(&disk_path(*disk), &target, "ext4", MountFlags::empty(), "").doing(failed)?;
            }
            Upper::Tmpfs { size } => {
                let options = format!("size={size},mode=0755");
                self.mount_one("upper", &target, "tmpfs", MountFlags::empty(), &options).doing(failed)?;
            }
        }
        for name in ["upper", "work"] {
            let preparing = || "Preparing the writable layer failed".to_owned();
            let path = target.join(name);
            fs::create_dir_all(&path).doing(preparing)?;
            if let Some(shift) = shift {
                chown(&path, Some(shift.uid), Some(shift.gid)).doing(preparing)?;
            }
        }
        Ok(())
    }

    /// Mounts the overlay. Its options must fit into a page: paths are relative, of a few bytes each.
    fn stack(&mut self, layers: usize) -> Result<()> {
        let failed = || "Mounting the overlay of the layers failed".to_owned();
        let lower: Vec<String> = (0..layers).map(|number| number.to_string()).collect();
        let options = format!("lowerdir={},upperdir=../u/upper,workdir=../u/work", lower.join(":"));
        let target = self.base.join("root");
        chdir(self.base.join("l")).doing(failed)?;
        let mounted = self.mount_one("overlay", &target, "overlay", MountFlags::empty(), &options);
        chdir("/").doing(failed)?;
        mounted.doing(failed)
    }

    /// Opens the root in the mount namespace of the calling process.
    pub fn open(&self) -> rustix::io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, self.base.join("root"), flags, Mode::empty())?;
        Ok(Root { fd, base: self.base.clone() })
    }

    /// Unmounts everything; to be called when no process of the container is left.
    pub fn unmount(self, disks: &mut Disks) {
        for target in self.mounted.iter().rev() {
            if unmount(target.as_path(), UnmountFlags::empty()).is_err() {
                // Busy by something unforeseen: it goes when its last user does.
                let _ = unmount(target.as_path(), UnmountFlags::DETACH);
            }
        }
        for (disk, extent) in &self.layers {
            disks.release(*disk, *extent);
        }
        // Memory of the agent's own tmpfs; what cannot be removed is found by nobody.
        let _ = fs::remove_dir_all(&self.base);
    }
}

fn write_file(path: &Path, file: &GuestFile, shift: Option<&Shift>) -> std::io::Result<()> {
    let mode = file.mode & 0o7777;
    let mut made: File = File::options().write(true).create_new(true).mode(mode).open(path)?;
    made.write_all(&file.content)?;
    shift.map_or(Ok(()), |shift| fchown(&made, Some(shift.uid), Some(shift.gid)))
}

fn check_layers(layers: &[Extent]) -> Result<()> {
    if layers.is_empty() || layers.len() > MAX_LAYERS {
        return Err(Failure::invalid(format!("An image of {} layers cannot be mounted", layers.len())));
    }
    let mut end = 0_u64;
    for extent in layers {
        let aligned = extent.offset.is_multiple_of(ALIGNMENT) && extent.length.is_multiple_of(ALIGNMENT);
        let next = extent.offset.checked_add(extent.length).filter(|next| i64::try_from(*next).is_ok());
        match next {
            Some(next) if aligned && extent.length > 0 && extent.offset >= end => end = next,
            _ => {
                return Err(Failure::invalid(format!(
                    "The layer at byte {} of length {} is misplaced",
                    extent.offset, extent.length
                )));
            }
        }
    }
    Ok(())
}

impl Disks {
    /// The device of a layer, made a partition if it is not the only one on its disk.
    fn acquire(&mut self, disk: u8, extent: Extent, only: bool) -> Result<String> {
        let path = disk_path(disk);
        let key = (disk, extent.offset, extent.length);
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.users = partition.users.saturating_add(1);
            return Ok(partition_path(&path, partition.number));
        }
        let device = File::open(&path).doing(|| format!("Opening disk {disk} failed"))?;
        let size = block::size(&device).doing(|| format!("Reading the size of disk {disk} failed"))?;
        let end = extent.offset.saturating_add(extent.length);
        if end > size {
            return Err(Failure::invalid(format!("A layer ends at byte {end} of disk {disk}, which has {size}")));
        }
        if only && extent.offset == 0 && end == size {
            return Ok(path);
        }
        let taken: Vec<i32> =
            self.partitions.iter().filter(|((of, ..), _)| *of == disk).map(|(_, partition)| partition.number).collect();
        let number = (1..=255)
            .find(|number| !taken.contains(number))
            .ok_or_else(|| Failure::unsupported(format!("Disk {disk} holds too many layers")))?;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        block::add_partition(&device, number, signed(extent.offset), signed(extent.length))
            .doing(|| format!("Making the layer at byte {} of disk {disk} a partition failed", extent.offset))?;
        self.partitions.insert(key, Partition { number, users: 1 });
        Ok(partition_path(&path, number))
    }

    fn release(&mut self, disk: u8, extent: Extent) {
        let key = (disk, extent.offset, extent.length);
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        partition.users = partition.users.saturating_sub(1);
        if partition.users > 0 {
            return;
        }
        let removed = File::open(disk_path(disk)).and_then(|device| block::remove_partition(&device, partition.number));
        // A partition that is still busy stays known, and is used again by the next container with that layer.
        if removed.is_ok() {
            self.partitions.remove(&key);
        }
    }
}

/// Disks are named a to z, then aa, ab, ….
fn disk_path(disk: u8) -> String {
    let letter = |number: u8| char::from(b'a'.saturating_add(number % 26));
    match disk / 26 {
        0 => format!("/dev/vd{}", letter(disk)),
        above => format!("/dev/vd{}{}", letter(above.saturating_sub(1)), letter(disk)),
    }
}

fn partition_path(disk: &str, number: i32) -> String {
    format!("{disk}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_the_names_the_kernel_gives_them() {
        let names: Vec<_> = [0, 25, 26, 51, 52].into_iter().map(disk_path).collect();
        assert_eq!(names, ["/dev/vda", "/dev/vdz", "/dev/vdaa", "/dev/vdaz", "/dev/vdba"]);
        assert_eq!(partition_path(&disk_path(1), 12), "/dev/vdb12");
    }

    #[test]
    fn layers_lie_in_order_aligned_and_apart() {
        let check = |extents: &[(u64, u64)]| {
            let layers: Vec<_> = extents.iter().map(|&(offset, length)| Extent { offset, length }).collect();
            check_layers(&layers).is_ok()
        };
        assert!(check(&[(0, 4096), (4096, 8192), (16384, 4096)]));
        for wrong in [
            &[][..],
            &[(0, 0)],
            &[(1, 4096)],
            &[(0, 4095)],
            &[(0, 8192), (4096, 4096)],
            &[(u64::MAX - 4095, 4096)],
            &[(1 << 63, 4096)],
        ] {
            assert!(!check(wrong), "{wrong:?}");
        }
    }
}
