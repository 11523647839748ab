//! A 16550A serial port for early boot and for the guest kernel's last words. Output only.
//!
//! The register file is `vm-superio`'s. The owner serializes access: reads and writes come from vCPU threads.

use std::{convert::Infallible, io};

use vm_superio::{Serial, Trigger, serial::NoEvents};

use crate::sink::Sink;

/// I/O port of the first register.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Ports that the registers take.
pub const SERIAL_PORTS: u16 = 8;
/// Interrupt line by convention.
pub const SERIAL_IRQ: u32 = 4;

/// Raises the port's interrupt, as an edge.
pub trait InterruptLine: Send {
    fn raise(&self);
}

struct Line(Box<dyn InterruptLine>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.raise();
        Ok(())
    }
}

struct Output(Box<dyn Sink>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The port.
pub struct SerialPort {
    serial: Serial<Line, NoEvents, Output>,
}

impl SerialPort {
    #[must_use]
    pub fn new(line: Box<dyn InterruptLine>, sink: Box<dyn Sink>) -> Self {
        Self { serial: Serial::new(Line(line), Output(sink)) }
    }

    /// Reads register `offset`. A register has one byte: what is wider reads as all ones behind it.
    pub fn read(&mut self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let (Some(byte), Ok(offset)) = (data.first_mut(), u8::try_from(offset)) {
            *byte = self.serial.read(offset);
        }
    }

    /// Writes register `offset`; of a wider access only the first byte counts.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        if let (Some(byte), Ok(offset)) = (data.first(), u8::try_from(offset)) {
            // Neither the line nor the output can fail; what is left is a full receive buffer in loopback mode, which
            // real hardware drops too.
            drop(self.serial.write(offset, *byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::sink::TailBuffer;

    const DATA: u16 = 0;
    const INTERRUPT_ENABLE: u16 = 1;
    const INTERRUPT_ID: u16 = 2;
    const LINE_CONTROL: u16 = 3;
    const MODEM_CONTROL: u16 = 4;
    const LINE_STATUS: u16 = 5;
    const MODEM_STATUS: u16 = 6;
    const SCRATCH: u16 = 7;

    struct Count(Arc<AtomicUsize>);

    impl InterruptLine for Count {
        fn raise(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn port() -> (SerialPort, TailBuffer, Arc<AtomicUsize>) {
        let (sink, count) = (TailBuffer::new(8), Arc::new(AtomicUsize::new(0)));
        (SerialPort::new(Box::new(Count(count.clone())), Box::new(sink.clone())), sink, count)
    }

    fn read(port: &mut SerialPort, offset: u16) -> u8 {
        let mut byte = [0];
        port.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn what_is_transmitted_reaches_the_sink_and_is_bounded() {
        let (mut port, sink, _count) = port();
        for byte in b"hello, world" {
            assert_eq!(read(&mut port, LINE_STATUS) & 0x60, 0x60, "transmitter is empty");
            port.write(DATA, &[*byte]);
        }
        assert_eq!(sink.contents(), b"o, world");
    }

    #[test]
    fn the_transmitter_interrupts_once_enabled() {
        let (mut port, _sink, count) = port();
        port.write(DATA, b"x");
        assert_eq!(count.load(Ordering::SeqCst), 0);
        port.write(INTERRUPT_ENABLE, &[2]);
        port.write(DATA, b"x");
        assert!(count.load(Ordering::SeqCst) > 0);
        assert_eq!(read(&mut port, INTERRUPT_ID) & 0x0f, 2);
        assert_eq!(read(&mut port, INTERRUPT_ID) & 0x0f, 1, "reading takes the interrupt back");
    }

    #[test]
    fn what_a_driver_probes_is_there() {
        let (mut port, _sink, _count) = port();
        port.write(SCRATCH, &[0x5a]);
        assert_eq!(read(&mut port, SCRATCH), 0x5a);
        port.write(INTERRUPT_ENABLE, &[0xff]);
        assert_eq!(read(&mut port, INTERRUPT_ENABLE), 0x0f);
        port.write(MODEM_CONTROL, &[0x1a]);
        assert_eq!(read(&mut port, MODEM_STATUS) & 0xf0, 0x90, "loopback shows the modem control lines");
        port.write(LINE_CONTROL, &[0x80]);
        port.write(DATA, &[0x34]);
        assert_eq!(read(&mut port, DATA), 0x34, "the divisor");
    }

    #[test]
    fn odd_accesses_do_no_harm() {
        let (mut port, sink, _count) = port();
        port.write(DATA, &[]);
        port.write(u16::MAX, b"x");
        port.read(DATA, &mut []);
        let mut wide = [0; 4];
        port.read(LINE_STATUS, &mut wide);
        assert_eq!(&wide[1..], [0xff; 3]);
        port.write(DATA, b"ab");
        assert_eq!(sink.contents(), b"a");
    }
}
