//! Devices as the command line describes them: `--block path=FILE,ro` and the like.

use std::str::FromStr;

use firecrest_vmm::{Block, BlockEngine, Bucket, Cache, Net, RateLimit, Vsock};
use lexopt::Error;

/// The words of one option, each `key` or `key=value`, separated by commas.
struct Words<'a> {
    option: &'static str,
    text: &'a str,
}

impl<'a> Words<'a> {
    fn each(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.text.split(',').map(|word| word.split_once('=').unwrap_or((word, "")))
    }

    fn error(&self, what: &str) -> Error {
        Error::Custom(format!("--{} {}: {what}", self.option, self.text).into())
    }

    fn unknown(&self, key: &str) -> Error {
        self.error(&format!("there is no `{key}`"))
    }

    fn number<T: FromStr>(&self, key: &str, value: &str) -> Result<T, Error> {
        value.parse().map_err(|_| self.error(&format!("{key}: `{value}` is not a number it can take")))
    }

    /// The value that a word must have.
    fn value(&self, key: &str, value: &'a str) -> Result<&'a str, Error> {
        if value.is_empty() { Err(self.error(&format!("{key} needs a value"))) } else { Ok(value) }
    }

    fn one_of<T>(&self, key: &str, value: &str, known: [(&str, T); 2]) -> Result<T, Error> {
        let names = known.each_ref().map(|(name, _)| *name).join(" or ");
        let found = known.into_iter().find(|(name, _)| *name == value);
        found.map(|(_, known)| known).ok_or_else(|| self.error(&format!("{key}: give {names}")))
    }
}

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

/// A socket device.
pub fn vsock(text: &str) -> Result<Vsock, Error> {
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
        (Some(cid), Some(path)) => Ok(Vsock::unix(cid, path)),
        _ => Err(words.error("give cid=N and path=SOCKET")),
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}
