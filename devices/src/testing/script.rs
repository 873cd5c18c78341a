//! Bytes as a hostile driver: whatever they are, they mean a sequence of register accesses, descriptors, kicks and
//! resets. Fuzz targets and property tests feed it.

use super::{BUFFERS, Driver, Seg};
use crate::virtio::Device;

/// Plays `script` against a device, and then checks that a reset brings it back. Panics where the device did.
pub fn play(device: Device, script: &[u8]) {
    let mut driver = Driver::new(device);
    let mut script = Script(script);
    let queues = driver.queues.len() as u16;
    driver.start(script.next_features());
    while let Some(step) = script.byte() {
        let queue = u16::from(script.byte().unwrap_or(0)) % queues;
        let size = driver.queues[usize::from(queue)].size;
        match step % 10 {
            0 => {
                let (offset, value) = (u64::from(script.byte().unwrap_or(0)) * 4, script.word());
                driver.write(offset, value);
            }
            1 => {
                let (at, addr, len) = (script.half() % size, script.address(), script.length());
                driver.descriptor(queue, at, addr, len, script.half() & 7, script.half() % (size + 1));
            }
            2 => {
                let head = script.half() % (size + 1);
                driver.publish(queue, head);
            }
            3 => driver.kick(queue),
            4 => {
                let (addr, len) = (BUFFERS + u64::from(script.half()), script.byte().unwrap_or(0));
                let bytes: Vec<u8> = (0..len).map_while(|_| script.byte()).collect();
                driver.put(addr, &bytes);
            }
            // A chain that keeps the rules, of a header the script gives and buffers behind it.
            5 | 6 => {
                let header: Vec<u8> = (0..step / 10 * 2).map_while(|_| script.byte()).collect();
                let at = BUFFERS + u64::from(script.half() & 0xff) * 0x1000;
                driver.put(at, &header);
                let mut chain = vec![Seg::readable(at, header.len() as u32)];
                for _ in 0..script.byte().unwrap_or(0) % 4 {
                    chain.push(Seg {
                        addr: script.address() % (15 << 20),
                        len: script.length() & 0xfff,
                        writable: false,
                    });
                }
                for _ in 0..script.byte().unwrap_or(1) % 4 {
                    chain.push(Seg::writable(script.address() % (15 << 20), script.length() & 0xfff));
                }
                driver.offer(queue, &chain);
                driver.kick(queue);
            }
            7 => drop(driver.used(queue)),
            8 => driver.set_avail_idx(queue, script.half()),
            _ => {
                let features = script.next_features();
                driver.start(features);
            }
        }
    }
    driver.start(u64::MAX);
    driver.bench.end();
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte().unwrap_or(0), self.byte().unwrap_or(0)])
    }

    fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }

    /// Mostly in memory, where there is more to find.
    fn address(&mut self) -> u64 {
        match self.byte().unwrap_or(0) {
            0 => u64::from(self.word()) << 32 | u64::from(self.word()),
            1 => (16 << 20) - u64::from(self.byte().unwrap_or(0)),
            _ => BUFFERS + u64::from(self.word() & 0x3f_ffff),
        }
    }

    fn length(&mut self) -> u32 {
        match self.byte().unwrap_or(0) {
            0 => self.word(),
            1 => 0,
            _ => u32::from(self.half()),
        }
    }

    fn next_features(&mut self) -> u64 {
        if self.byte().unwrap_or(0) < 200 {
            u64::MAX
        } else {
            u64::from(self.word()) << 32 | u64::from(self.word())
        }
    }
}
