//! What a caller says about a network card, and how it becomes a device.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::control::Pairs;
use super::features;
use super::tap::{Mode, NAME_LEN, Tap};
use super::worker::{First, Link, Pair};
use super::{Directions, HEADER_LEN};
use crate::clock::Clock;
use crate::rate_limit::{Limiter, RateLimit, RateLimitError};
use crate::throttle::{Limit, Throttle};
use crate::virtio::{Card, Device, Kind};

/// Entries of the queues that carry frames, and of the control queue.
const QUEUE_SIZE: u16 = 256;
const CONTROL_QUEUE_SIZE: u16 = 64;

const MAX_PAIRS: u16 = 16;
/// What the standard asks of a device, and of IPv4.
const MIN_MTU: u16 = 68;

/// The link status in the configuration.
pub(super) const CONFIG_STATUS: usize = 6;
const LINK_UP: u16 = 1;
pub(super) const LINK_DOWN: u16 = 0;

/// A network card: a TAP interface on the host's side.
///
/// The interface's address, its being up and what it is connected to are the host's to configure.
#[derive(Debug)]
#[must_use]
pub struct Net {
    taps: Taps,
    mac: Option<[u8; 6]>,
    mtu: Option<u16>,
    pairs: Option<u16>,
    limits: Directions<RateLimit>,
}

#[derive(Debug)]
enum Taps {
    Named(String),
    Given(Vec<OwnedFd>),
}

/// Why a network card cannot be made as it is described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// No interface can have this name.
    #[error("{name:?} is no name of an interface: 1 to 15 bytes, without '/', ':', '%' or white space")]
    Name {
        /// The name.
        name: String,
    },
    /// A group's address, or none.
    #[error(
        "{} is no card's address: it is a group's, or zero",
        mac.map(|byte| format!("{byte:02x}")).join(":")
    )]
    Mac {
        /// The address.
        mac: [u8; 6],
    },
    /// Too small.
    #[error("an MTU of {mtu} is not in the range {MIN_MTU} to 65535")]
    Mtu {
        /// The MTU.
        mtu: u16,
    },
    /// Too few, or too many.
    #[error("{pairs} pairs of queues are not in the range 1 to {MAX_PAIRS}")]
    QueuePairs {
        /// How many.
        pairs: usize,
    },
    /// A rate limit that lets nothing pass, or does not limit.
    #[error("the rate limit of {direction} frames cannot be")]
    RateLimit {
        /// Received or sent.
        direction: &'static str,
        /// What is wrong with it.
        source: RateLimitError,
    },
    /// Each pair needs a descriptor of its own, and each descriptor is for a pair.
    #[error("{given} TAP descriptors do not fit {pairs} pairs of queues")]
    Descriptors {
        /// How many were given.
        given: usize,
        /// How many pairs were asked for.
        pairs: u16,
    },
    /// The host has no TAP, or not for us.
    #[error("/dev/net/tun cannot be opened for interface {name}")]
    Open {
        /// The interface.
        name: String,
        /// What the host said.
        source: io::Error,
    },
    /// The interface is another user's, or is not there and may not be created.
    #[error("interface {name} may not be used, or not be created")]
    Permission {
        /// The interface.
        name: String,
        /// What the host said.
        source: io::Error,
    },
    /// Another process has the interface.
    #[error("interface {name} is in use")]
    Busy {
        /// The interface.
        name: String,
        /// What the host said.
        source: io::Error,
    },
    /// There is such an interface, but not such a one.
    #[error(
        "interface {name} exists, and is not {} TAP interface",
        if *multi_queue { "a multi-queue" } else { "a single-queue" }
    )]
    Mode {
        /// The interface.
        name: String,
        /// Whether several queues were asked for.
        multi_queue: bool,
        /// What the host said.
        source: io::Error,
    },
    /// Something else that the host refuses.
    #[error("interface {name} cannot be attached")]
    Attach {
        /// The interface.
        name: String,
        /// What the host said.
        source: io::Error,
    },
    /// A descriptor that was given is none of a TAP interface.
    #[error("TAP descriptor {position} is not attached to a TAP interface")]
    NoTap {
        /// Which of them.
        position: usize,
        /// What the host said.
        source: io::Error,
    },
    /// A descriptor that was given is attached in a way that does not do.
    #[error("TAP descriptor {position} of interface {name} {what}")]
    Descriptor {
        /// Which of them.
        position: usize,
        /// The interface it is attached to.
        name: String,
        /// What it lacks.
        what: &'static str,
    },
    /// The host refuses what every TAP interface can do.
    #[error("interface {name} cannot be set up")]
    SetUp {
        /// The interface.
        name: String,
        /// What the host said.
        source: io::Error,
    },
}

impl Net {
    /// A card on the TAP interface of this name, which is created if there is none and the process may.
    pub fn tap(name: impl Into<String>) -> Self {
        Self::on(Taps::Named(name.into()))
    }

    /// A card on TAP descriptors that somebody else has opened and attached, all to one interface with
    /// `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`: one for each pair of queues, with `IFF_MULTI_QUEUE` where
    /// there are several. They do not block from then on, for whoever shares them too.
    ///
    /// The kernel does not say whether a descriptor has `IFF_NO_PI`. Through one that lacks it no frame comes
    /// or goes as it should.
    pub fn fds(fds: Vec<OwnedFd>) -> Self {
        Self::on(Taps::Given(fds))
    }

    fn on(taps: Taps) -> Self {
        Self { taps, mac: None, mtu: None, pairs: None, limits: Directions::default() }
    }

    /// The card's address; without one the driver takes one at random.
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    /// The longest packet that the driver is to send: 68 to 65535 bytes. Does not change the host's side.
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Pairs of receive and transmit queues, 1 to 16, each with a thread of its own. A driver starts with
    /// one and says how many it uses.
    pub fn queue_pairs(mut self, pairs: u16) -> Self {
        self.pairs = Some(pairs);
        self
    }

    /// How much the driver may receive. What comes faster waits in the TAP, and is lost where that is full.
    pub fn rx_rate_limit(mut self, limit: RateLimit) -> Self {
        self.limits.receive = limit;
        self
    }

    /// How much the driver may send. What it sends faster waits in its queues.
    pub fn tx_rate_limit(mut self, limit: RateLimit) -> Self {
        self.limits.transmit = limit;
        self
    }

    /// Opens the interface and makes the device.
    ///
    /// # Errors
    /// What is wrong with the description, or the host refuses.
    pub fn build(self) -> Result<Device, NetError> {
        self.check()?;
        let limiters = limiters(self.limits)?;
        let (taps, name) = match self.taps {
            Taps::Named(name) => (open(&name, self.pairs.unwrap_or(1))?, name),
            Taps::Given(fds) => adopt(fds, self.pairs)?,
        };
        let set_up = |source| NetError::SetUp { name: name.clone(), source };
        let host = prepare(&taps).map_err(set_up)?;
        Parts { taps, host, mac: self.mac, mtu: self.mtu, limiters }.assemble().map_err(set_up)
    }

    fn check(&self) -> Result<(), NetError> {
        if let Some(mac) = self.mac.filter(|mac| mac[0] & 1 != 0 || *mac == [0; 6]) {
            return Err(NetError::Mac { mac });
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(NetError::Mtu { mtu });
        }
        let pairs = match (&self.taps, self.pairs) {
            (_, Some(pairs)) => pairs.into(),
            (Taps::Named(_), None) => 1,
            (Taps::Given(fds), None) => fds.len(),
        };
        if pairs == 0 || pairs > MAX_PAIRS.into() {
            return Err(NetError::QueuePairs { pairs });
        }
        match &self.taps {
            Taps::Named(name) if !is_name(name) => Err(NetError::Name { name: name.clone() }),
            _ => Ok(()),
        }
    }
}

/// A device's parts, opened and checked.
pub(super) struct Parts {
    pub(super) taps: Vec<Tap>,
    /// The offloads that the host takes, as feature bits.
    pub(super) host: u64,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: Option<u16>,
    pub(super) limiters: Directions<Option<Limiter>>,
}

/// The rate limits that there are.
pub(super) fn limiters(limits: Directions<RateLimit>) -> Result<Directions<Option<Limiter>>, NetError> {
    let limiter = |direction, limit| {
        Limiter::of(limit, Instant::now()).map_err(|source| NetError::RateLimit { direction, source })
    };
    Ok(Directions {
        receive: limiter("received", limits.receive)?,
        transmit: limiter("sent", limits.transmit)?,
    })
}

impl Parts {
    pub(super) fn assemble(self) -> io::Result<Device> {
        let Self { taps, host, mac, mtu, limiters } = self;
        let count = u16::try_from(taps.len()).unwrap_or(MAX_PAIRS);
        let several = count > 1;
        let mut features = host | features::MRG_RXBUF | features::STATUS;
        let optional = [
            (mac.is_some(), features::MAC),
            (mtu.is_some(), features::MTU),
            (several, features::CTRL_VQ | features::MQ),
        ];
        for (offered, feature) in optional {
            features |= if offered { feature } else { 0 };
        }
        let mut config = Vec::from(mac.unwrap_or_default());
        for field in [LINK_UP, count, mtu.unwrap_or_default()] {
            config.extend(field.to_le_bytes());
        }
        let mut queue_sizes = vec![QUEUE_SIZE; usize::from(count).saturating_mul(2)];
        let control = count.saturating_mul(2);
        if several {
            queue_sizes.push(CONTROL_QUEUE_SIZE);
        }
        let others = taps.iter().skip(1).map(Tap::try_clone).collect::<io::Result<Vec<_>>>()?;
        let limited = limiters.receive.is_some() || limiters.transmit.is_some();
        // Shared by all pairs.
        let (mut limits, mut pairs) = (Directions::default(), None);
        if several || limited {
            let clock = Arc::new(Clock::new()?);
            limits = limiters.map(|limiter| Some(Arc::new(Limit::new(limiter?, Arc::clone(&clock)))));
            pairs = several.then(|| Pairs::new(others, clock));
        }
        let mut first = Some(First { offloads: 0, pairs });
        let link = Arc::new(Link::default());
        let mut cards: Vec<(Vec<u16>, Box<dyn Card>)> = Vec::new();
        for (index, tap) in (0..).zip(taps) {
            let index: u16 = index;
            let receive = index.saturating_mul(2);
            let mut queues = vec![receive, receive.saturating_add(1)];
            if several && first.is_some() {
                queues.push(control);
            }
            let throttles = limits.clone().map(Throttle::new);
            let pair = Pair::new((index, count), tap, mtu, Arc::clone(&link), first.take(), throttles)?;
            cards.push((queues, Box::new(pair)));
        }
        Ok(Device { kind: Kind::Net, features, config, writable: None, queue_sizes, cards, back_end: None })
    }
}

/// Whether the kernel takes it as a name, and as no pattern to make a name of.
fn is_name(name: &str) -> bool {
    let refused = |byte: u8| matches!(byte, b'/' | b':' | b'%' | 0) || byte.is_ascii_whitespace();
    !name.is_empty() && name.len() < NAME_LEN && name != "." && name != ".." && !name.bytes().any(refused)
}

/// The mode that a card with so many pairs needs.
fn mode(several: bool) -> Mode {
    let mode = Mode::TAP.and(Mode::NO_PACKET_INFO).and(Mode::VNET_HEADER);
    if several { mode.and(Mode::MULTI_QUEUE) } else { mode }
}

/// Attaches to an interface as often as there are pairs.
fn open(name: &str, pairs: u16) -> Result<Vec<Tap>, NetError> {
    let multi_queue = pairs > 1;
    let attach = |_| {
        let tap = Tap::open().map_err(|source| NetError::Open { name: name.into(), source })?;
        tap.attach(name, mode(multi_queue)).map_err(|source| {
            let name = name.into();
            match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => NetError::Permission { name, source },
                Some(libc::EBUSY) => NetError::Busy { name, source },
                Some(libc::EINVAL) => NetError::Mode { name, multi_queue, source },
                _ => NetError::Attach { name, source },
            }
        })?;
        Ok(tap)
    };
    (0..pairs).map(attach).collect()
}

/// Takes over descriptors that are attached already. Returns them with the interface's name.
fn adopt(fds: Vec<OwnedFd>, pairs: Option<u16>) -> Result<(Vec<Tap>, String), NetError> {
    let given = fds.len();
    if let Some(pairs) = pairs.filter(|pairs| usize::from(*pairs) != given) {
        return Err(NetError::Descriptors { given, pairs });
    }
    let mut taps = Vec::new();
    let mut interface = None;
    for (position, fd) in fds.into_iter().enumerate() {
        let no_tap = |source| NetError::NoTap { position, source };
        let tap = Tap::given(fd).map_err(no_tap)?;
        let (name, mode) = tap.attached().map_err(no_tap)?;
        let lacks = [
            (!mode.has(Mode::TAP), "is a TUN's, which carries no Ethernet frames"),
            (!mode.has(Mode::VNET_HEADER), "lacks IFF_VNET_HDR"),
            (mode.has(Mode::DISABLED), "is of a disabled queue"),
            (given > 1 && !mode.has(Mode::MULTI_QUEUE), "lacks IFF_MULTI_QUEUE"),
            (
                interface.as_ref().is_some_and(|first| *first != name),
                "is of another interface than the first",
            ),
        ];
        if let Some((_, what)) = lacks.into_iter().find(|(lacking, _)| *lacking) {
            return Err(NetError::Descriptor { position, name, what });
        }
        interface.get_or_insert(name);
        taps.push(tap);
    }
    Ok((taps, interface.unwrap_or_default()))
}

/// Gives an interface's frames the header of ours, and disables all queues but the first. Returns the
/// offloads that the host takes.
fn prepare(taps: &[Tap]) -> io::Result<u64> {
    let header_len = HEADER_LEN.try_into().map_err(io::Error::other)?;
    taps.iter().try_for_each(|tap| tap.set_header_len(header_len))?;
    taps.iter().skip(1).try_for_each(|tap| tap.set_enabled(false))?;
    taps.first().map_or(Ok(0), features::probe)
}
