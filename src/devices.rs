//! Devices as the command line describes them: `--block path=FILE,ro` and the like.

use std::path::PathBuf;

use firecrest_vmm::{Block, BlockEngine, Bucket, Cache, Net, RateLimit, Vsock};
use lexopt::Error;

use crate::words::Words;

/// A disk.
pub fn block(text: &str) -> Result<Block, Error> {
    let words = Words { option: "block", text };
    let path = words.each().find(|(key, _)| *key == "path").ok_or_else(|| words.error("give path=FILE"))?;
    let mut block = Block::file(words.value("path", path.1)?);
    let mut limit = RateLimit::default();
    for (key, value) in words.each() {
        block = match key {
            "path" => block,
            "ro" => block.read_only(true),
            "serial" => block.serial(value),
            "queues" => block.queues(words.number(key, value)?),
            "block-size" => block.block_size(words.number(key, value)?),
            "engine" => {
                let engines = [("sync", BlockEngine::Sync), ("io_uring", BlockEngine::IoUring)];
                block.engine(words.one_of(key, value, engines)?)
            }
            "cache" => {
                let caches = [("writeback", Cache::Writeback), ("writethrough", Cache::Writethrough)];
                block.cache(words.one_of(key, value, caches)?)
            }
            "bandwidth" => {
                limit.bytes = Some(Bucket::per_second(words.number(key, value)?));
                block
            }
            "iops" => {
                limit.operations = Some(Bucket::per_second(words.number(key, value)?));
                block
            }
            _ => return Err(words.unknown(key)),
        };
    }
    Ok(block.rate_limit(limit))
}

/// A network card.
pub fn net(text: &str) -> Result<Net, Error> {
    let words = Words { option: "net", text };
    let tap = words.each().find(|(key, _)| *key == "tap").ok_or_else(|| words.error("give tap=NAME"))?;
    let mut net = Net::tap(words.value("tap", tap.1)?);
    for (key, value) in words.each() {
        net = match key {
            "tap" => net,
            "mac" => {
                net.mac(mac(value).ok_or_else(|| words.error("mac: give six bytes, as 02:00:00:00:00:01"))?)
            }
            "mtu" => net.mtu(words.number(key, value)?),
            "pairs" => net.queue_pairs(words.number(key, value)?),
            "bandwidth" => {
                let limit = RateLimit {
                    bytes: Some(Bucket::per_second(words.number(key, value)?)),
                    operations: None,
                };
                net.rx_rate_limit(limit).tx_rate_limit(limit)
            }
            _ => return Err(words.unknown(key)),
        };
    }
    Ok(net)
}

/// A socket device, and its path.
pub fn vsock(text: &str) -> Result<(Vsock, PathBuf), Error> {
    let words = Words { option: "vsock", text };
    let (mut cid, mut path) = (None, None);
    for (key, value) in words.each() {
        match key {
            "cid" => cid = Some(words.number(key, value)?),
            "path" => path = Some(words.value(key, value)?),
            _ => return Err(words.unknown(key)),
        }
    }
    match (cid, path) {
        (Some(cid), Some(path)) => Ok((Vsock::unix(cid, path), path.into())),
        _ => Err(words.error("give cid=N and path=SOCKET")),
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}
