"""TCP's own word on a connection (Linux, TCP_INFO): whether it is open, and what of it has been acknowledged.

The kernel counts all bytes of a connection, TLS included. A request begins where everything written so far ends: the
acknowledged bytes plus those that the socket still holds. It has arrived once the bytes up to the end of its headers
are acknowledged. In numbers: 900 bytes acknowledged and 60 of the TLS handshake held make 960; headers of 300 bytes
have arrived when 1,260 are acknowledged.

TLS wraps them in records of at most 16 KiB, and what is in a record is readable only when all of it is there. So with
TLS either a whole record more must be acknowledged, or nothing that was written may be outstanding.
"""

import socket
import struct
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple, Protocol

if sys.platform == "linux":
    from fcntl import ioctl

# Positions in Linux's `struct tcp_info` (linux/tcp.h): the state is the first byte; 8 bytes and 24 numbers of 4 bytes
# stand before two of 8 bytes for pacing and `tcpi_bytes_acked`, which kernels have counted since 4.1.
_BYTES_ACKED = struct.Struct("=Q")
_AT = 120
_SIZE = _AT + _BYTES_ACKED.size
_ESTABLISHED = 1
# The ioctl that returns how many bytes of a socket are written and not acknowledged (linux/sockios.h).
_SIOCOUTQ = 0x5411
# A TLS record with its frame (RFC 8446, 5.1 and 5.2).
_RECORD = 16 * 1024 + 256 + 5

Arrived = Callable[[], bool | None]


class Wire(Protocol):
    """What is asked of a transport: asyncio's and uvloop's have it."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are written and not with the kernel yet."""
        ...


class TcpState(NamedTuple):
    """A connection at one moment, in bytes since it was opened."""

    is_open: bool  # neither side has closed it
    acknowledged: int
    held: int  # written, not acknowledged


def tcp_state(transport: Wire | None) -> TcpState | None:
    """Return the state of a connection, None where it cannot be asked: another system, no TCP, closed here."""
    if sys.platform != "linux" or transport is None:
        return None
    sock = transport.get_extra_info("socket")
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
        if len(info) < _SIZE:  # a kernel before 4.1
            return None
        held = ioctl(sock.fileno(), _SIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError, AttributeError):
        return None
    acknowledged: int = _BYTES_ACKED.unpack_from(info, _AT)[0]
    return TcpState(info[0] == _ESTABLISHED, acknowledged, int.from_bytes(held, sys.byteorder))


def watch_arrival(transport: Wire, before: TcpState | None = None, headers: int = 0) -> Arrived:
    """Return a function that says whether a request has arrived.

    Args:
        transport: that of its connection, straight to the server: behind a proxy it is the proxy's word.
        before: its state just before an upload was written, whose headers arrive long before its end; None for a
            request that is written at once: then all of it must be acknowledged, and nothing is asked until then.
        headers: how many bytes the headers of an upload have.

    Returns:
        A function that returns True when the headers are acknowledged, False when they are not yet, None when the
        connection cannot be asked any more.
    """
    start = 0 if before is None else before.acknowledged + before.held + transport.get_write_buffer_size()

    def arrived() -> bool | None:
        now = tcp_state(transport)
        if now is None:
            return None
        if before is None:
            if not is_direct(transport):  # asked late: most requests are answered before
                return None
            return now.held == 0 and transport.get_write_buffer_size() == 0
        slack = 0 if transport.get_extra_info("ssl_object") is None else _RECORD
        return has_arrived(now.acknowledged, now.held, end=start + headers, slack=slack)

    return arrived


def is_direct(transport: Wire) -> bool:
    """Tell whether what acknowledges a connection's bytes may be the server itself.

    On a loopback address it is this machine: a tunnel, a sidecar or a relay that acknowledges at once, and may deliver
    much later.
    """
    peer = transport.get_extra_info("peername")
    try:
        return not ip_address(str(peer[0]).partition("%")[0]).is_loopback
    except (TypeError, IndexError, ValueError):  # a socket of the file system, or none any more
        return False


def watch_progress(moved: Callable[[], int]) -> Arrived:
    """Return a function that says whether an upload moves on, for connections whose TCP says nothing of the server.

    It is asked when the request was written seconds ago: what the buffers on the way take at once, they have taken.
    Bytes that still leave after that are bytes that are read at the other end, and the headers stood before them.

    Args:
        moved: a number that changes as long as bytes leave.

    Returns:
        A function that returns False when it is asked first, then True when bytes have left since, None when not.
    """
    before: int | None = None

    def arrived() -> bool | None:
        nonlocal before
        now = moved()
        if before is None:
            before = now
            return False
        return True if now != before else None

    return arrived


def has_arrived(acknowledged: int, held: int, *, end: int, slack: int) -> bool:
    """Judge by the bytes of a connection that are acknowledged, and those that are written and not.

    `end` is where the headers end before TLS; `slack` is what TLS may add until they can be read, 0 without TLS.
    """
    return acknowledged >= end + slack or (acknowledged >= end and held == 0)


def headers_size(method: str, target: str, headers: Mapping[str, str]) -> int:
    """Return how many bytes a request line and headers have (RFC 9112, 3 and 5)."""
    lines = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
    return len(method) + len(target) + len("  HTTP/1.1\r\n") + lines + 2
