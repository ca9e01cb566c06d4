//! Datagrams that the kernel dropped: the last column of /proc/net/udp, by the socket's inode.

use std::os::fd::AsRawFd as _;

use prometheus::IntCounter;
use tokio::net::UdpSocket;

#[derive(Debug)]
pub(crate) struct Drops {
    /// `None`: the kernel does not show it, and drops are not counted.
    inode: Option<String>,
    seen: u64,
    counter: IntCounter,
}

impl Drops {
    pub(crate) fn of(socket: &UdpSocket, counter: IntCounter) -> Self {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()));
        let inode = link.ok().and_then(|link| {
            // `socket:[12345]`
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        });
        if inode.is_none() {
            tracing::warn!("cannot find the socket in /proc: dropped datagrams are not counted");
        }
        Self { inode, seen: 0, counter }
    }

    pub(crate) fn update(&mut self) {
        let Some(inode) = &self.inode else { return };
        let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].map(|file| std::fs::read_to_string(file).ok());
        if let Some(drops) = tables.iter().flatten().find_map(|table| drops(table, inode)) {
            self.counter.inc_by(drops.saturating_sub(self.seen));
            self.seen = drops;
        }
    }
}

/// Of the socket with this inode; the table has a socket per line, with the inode in the tenth column and the drops in the last.
fn drops(table: &str, inode: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.split_ascii_whitespace().nth(9) == Some(inode))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_by_its_inode() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
                     99: 0100007F:1388 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n \
                     100: 0100007F:1389 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 17\n";
        assert_eq!((drops(table, "4711"), drops(table, "4712"), drops(table, "1")), (Some(0), Some(17), None));
    }

    /// More than fits into the receive buffer, none of which is read.
    #[tokio::test]
    async fn what_the_kernel_drops_is_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
        let nginx = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        nginx.connect(socket.local_addr().unwrap()).await.unwrap();
        let counter = IntCounter::new("dropped", "dropped").unwrap();
        let mut drops = Drops::of(&socket, counter.clone());
        for _ in 0..100 {
            nginx.send(&[0; 500]).await.unwrap();
        }
        drops.update();
        assert!(counter.get() > 0);
    }
}
