//! Bounds the connections of one port. A connection is authenticated by its first authentic message. Until then it is one of a few, and
//! the oldest of them gives way to a new one: a sender with the key authenticates within a round trip, a flood cannot keep it out.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio_util::sync::CancellationToken;

/// Connections of a port, authenticated ones apart from the others.
#[derive(Debug)]
pub struct Connections {
    max_authenticated: usize,
    max_unauthenticated: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    authenticated: usize,
    /// Oldest first.
    unauthenticated: VecDeque<Unauthenticated>,
    by_address: BTreeMap<IpAddr, usize>,
    next: u64,
}

#[derive(Debug)]
struct Unauthenticated {
    number: u64,
    address: IpAddr,
    closing: CancellationToken,
}

/// A connection of the port, until it is dropped.
#[derive(Debug)]
pub struct Connection {
    of: Arc<Connections>,
    number: u64,
    address: IpAddr,
    closing: CancellationToken,
    is_authenticated: AtomicBool,
}

impl Connections {
    pub fn new(max_authenticated: usize, max_unauthenticated: usize) -> Arc<Self> {
        Arc::new(Self { max_authenticated, max_unauthenticated, open: Mutex::default() })
    }

    /// Admits a connection. Beyond the limit, the oldest unauthenticated connection of the address with most of them must close.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Connection {
        let (address, closing) = (network(address), CancellationToken::new());
        let mut open = self.lock();
        if open.unauthenticated.len() >= self.max_unauthenticated {
            open.close_oldest();
        }
        let number = open.next;
        open.next += 1;
        open.unauthenticated.push_back(Unauthenticated { number, address, closing: closing.clone() });
        *open.by_address.entry(address).or_default() += 1;
        drop(open);
        Connection { of: Arc::clone(self), number, address, closing, is_authenticated: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every change is complete when a panic could happen.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn close_oldest(&mut self) {
        let most = self.by_address.iter().max_by_key(|(_, count)| **count).map(|(address, _)| *address);
        let oldest = self.unauthenticated.iter().find(|connection| Some(connection.address) == most);
        if let Some((number, address, closing)) = oldest.map(|c| (c.number, c.address, c.closing.clone())) {
            self.remove(number, address);
            closing.cancel();
        }
    }

    /// False: it was not among the unauthenticated connections any more.
    fn remove(&mut self, number: u64, address: IpAddr) -> bool {
        let Ok(at) = self.unauthenticated.binary_search_by_key(&number, |connection| connection.number) else {
            return false;
        };
        self.unauthenticated.remove(at);
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        true
    }
}

impl Connection {
    /// An authentic message has arrived. At the limit of authenticated connections this one must close.
    pub fn authenticate(&self) {
        if self.is_authenticated() {
            return;
        }
        let mut open = self.of.lock();
        if open.authenticated >= self.of.max_authenticated {
            self.closing.cancel();
        } else if open.remove(self.number, self.address) {
            open.authenticated += 1;
            self.is_authenticated.store(true, Relaxed);
        }
    }

    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated.load(Relaxed)
    }

    /// Returns when this connection must close.
    pub async fn must_close(&self) {
        self.closing.cancelled().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.of.lock();
        if self.is_authenticated() {
            open.authenticated -= 1;
        } else {
            open.remove(self.number, self.address);
        }
    }
}

/// One host may use any address of its IPv6 network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            v6.to_ipv4_mapped().map_or_else(|| Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(), IpAddr::V4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closing(connection: &Connection) -> bool {
        connection.closing.is_cancelled()
    }

    #[test]
    fn a_flood_closes_its_own_oldest_connections_and_no_authenticated_one() {
        let (port, flood, worker) = (Connections::new(2, 4), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let early = port.admit(flood);
        early.authenticate();
        let others: Vec<_> = std::iter::once(port.admit(worker)).chain((0..10).map(|_| port.admit(flood))).collect();
        let closing: Vec<usize> = (0..others.len()).filter(|&n| is_closing(&others[n])).collect();
        assert_eq!(closing, [1, 2, 3, 4, 5, 6, 7], "the worker's address has one connection, the flood's has three");
        others[0].authenticate();
        assert!(early.is_authenticated() && others[0].is_authenticated() && !is_closing(&early));
        others[3].authenticate();
        assert!(!others[3].is_authenticated(), "it was closing already");
        others[10].authenticate();
        assert!(is_closing(&others[10]), "two are authenticated, and that is the limit");
        drop(early);
        others[9].authenticate();
        assert!(others[9].is_authenticated());
        drop(others);
        let open = port.lock();
        assert_eq!((open.authenticated, open.unauthenticated.len(), open.by_address.len()), (0, 0, 0));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
