//! A device served to another VMM over a vhost-user socket.
//!
//! The front end (QEMU) owns the status machine, the feature registers and most of the configuration space; it tells us
//! where guest memory and the rings are. [`Session`] holds what it has said and starts and stops the device; this module
//! only decodes. One thread serves one connection.
//!
//! There is no channel back to the front end, so a device's changes to its configuration space are not announced.
//!
//! Implements "Vhost-user Protocol" of QEMU's interoperability documents, with the protocol features `MQ`, `CONFIG` and
//! `REPLY_ACK`. `VHOST_USER_F_PROTOCOL_FEATURES` must be accepted: without it no one says which ring is the last.

mod session;

use std::{
    fs::File,
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result as VhostResult, VhostUserBackendReqHandlerMut,
    VhostUserProtocolFeatures, VhostUserVirtioFeatures,
    message::{
        VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
        VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
        VhostUserVringAddrFlags, VhostUserVringState,
    },
};

use self::session::{Region, RingAddresses, Session};
use crate::device::VirtioDevice;

/// Largest part of a configuration space that is read at once.
const MAX_CONFIG: u32 = 256;

/// Why serving ended other than by the front end's hanging up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("Serving the device's vhost-user front end failed")]
    Protocol { source: Error },
}

/// Serves `device` on a connected socket until the front end hangs up. The device is inactive afterwards.
pub fn serve(socket: UnixStream, device: Box<dyn VirtioDevice>) -> Result<(), ServeError> {
    let handler = Arc::new(Mutex::new(Handler { session: Session::new(device) }));
    let mut requests = BackendReqHandler::from_stream(socket, handler);
    loop {
        match requests.handle_request() {
            Ok(()) => {}
            Err(Error::Disconnected) => return Ok(()),
            Err(source) => return Err(ServeError::Protocol { source }),
        }
    }
}

struct Handler {
    session: Session,
}

/// The answer to requests of features that are not offered.
fn not_offered<T>() -> VhostResult<T> {
    Err(Error::InvalidOperation("this protocol feature is not offered"))
}

fn failed(error: session::SessionError) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

impl VhostUserBackendReqHandlerMut for Handler {
    fn set_owner(&mut self) -> VhostResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> VhostResult<()> {
        self.session.stop();
        Ok(())
    }

    fn reset_device(&mut self) -> VhostResult<()> {
        not_offered()
    }

    fn get_features(&mut self) -> VhostResult<u64> {
        Ok(self.session.offered_features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> VhostResult<()> {
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        if features & protocol == 0 {
            return Err(Error::FeatureMismatch);
        }
        self.session.set_features(features & !protocol).map_err(failed)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<Vec<u64>>> {
        let regions = regions.iter().zip(files).map(|(region, file)| Region {
            guest_address: region.guest_phys_addr,
            size: region.memory_size,
            user_address: region.user_addr,
            file_offset: region.mmap_offset,
            file,
        });
        self.session.set_memory(regions.collect()).map_err(failed)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostResult<()> {
        self.session.set_size(index, num).map_err(failed)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> VhostResult<()> {
        if !flags.is_empty() {
            return Err(Error::InvalidOperation("logging is not offered"));
        }
        self.session.set_addresses(index, RingAddresses { descriptor, available, used }).map_err(failed)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostResult<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.session.set_base(index, base).map_err(failed)
    }

    fn get_vring_base(&mut self, index: u32) -> VhostResult<VhostUserVringState> {
        let base = self.session.stop_ring(index).map_err(failed)?;
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        let file = fd.ok_or(Error::InvalidOperation("polling a ring is not supported"))?;
        self.session.set_kick(index.into(), file).map_err(failed)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        self.session.set_call(index.into(), fd).map_err(failed)
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        self.session.set_error(index.into(), fd).map_err(failed)
    }

    fn get_protocol_features(&mut self) -> VhostResult<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, features: u64) -> VhostResult<()> {
        let offered = self.get_protocol_features()?.bits();
        if features & !offered == 0 { Ok(()) } else { Err(Error::FeatureMismatch) }
    }

    fn get_queue_num(&mut self) -> VhostResult<u64> {
        Ok(self.session.queue_count())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostResult<()> {
        self.session.set_enabled(index, enable).map_err(failed)
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> VhostResult<Vec<u8>> {
        let mut data = vec![0; usize::try_from(size.min(MAX_CONFIG)).map_err(|_| Error::InvalidParam)?];
        self.session.device().read_config(offset.into(), &mut data);
        Ok(data)
    }

    fn set_config(&mut self, offset: u32, data: &[u8], _flags: VhostUserConfigFlags) -> VhostResult<()> {
        self.session.device().write_config(offset.into(), data);
        Ok(())
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> VhostResult<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostResult<File> {
        not_offered()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> VhostResult<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> VhostResult<()> {
        not_offered()
    }

    fn get_max_mem_slots(&mut self) -> VhostResult<u64> {
        not_offered()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<u64>> {
        not_offered()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> VhostResult<()> {
        not_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> VhostResult<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> VhostResult<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> VhostResult<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostResult<()> {
        not_offered()
    }
}

#[cfg(test)]
mod tests;
