//! vmm/virtio
