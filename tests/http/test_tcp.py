"""Whether a request has arrived, by what TCP has acknowledged: the rule (real sockets: tests/e2e/test_arrival.py)."""

from typing import Any

import pytest

from comfycontrol_async._http._tcp import has_arrived, headers_size, is_direct, tcp_state, watch_progress

RECORD = 16_645


@pytest.mark.parametrize(
    ("acknowledged", "held", "slack", "arrived"),
    [
        pytest.param(1000, 300, 0, False, id="nothing-acknowledged"),
        pytest.param(1299, 1, 0, False, id="one-byte-missing"),
        pytest.param(1300, 0, 0, True, id="all"),
        pytest.param(1300, 90_000, 0, True, id="headers-of-an-upload"),
        pytest.param(1000, 0, 0, False, id="not-written-yet"),
        pytest.param(1322, 0, RECORD, True, id="tls-all"),
        pytest.param(1310, 12, RECORD, False, id="tls-part-of-the-record"),
        pytest.param(1300 + RECORD, 90_000, RECORD, True, id="tls-a-record-more"),
        pytest.param(1299 + RECORD, 90_000, RECORD, False, id="tls-less-than-a-record-more"),
    ],
)
def test_rule(acknowledged: int, held: int, slack: int, arrived: bool) -> None:
    """A request whose headers end at byte 1300 has arrived once they, and with TLS their record, are acknowledged."""
    assert has_arrived(acknowledged, held, end=1300, slack=slack) is arrived


def test_headers_size() -> None:
    """The size is that of the bytes on the wire."""
    wire = "GET /v1/user?page=1 HTTP/1.1\r\nHost: a.test\r\nX-Own: \u00fc\r\n\r\n"
    assert headers_size("GET", "/v1/user?page=1", {"Host": "a.test", "X-Own": "\u00fc"}) == len(wire.encode())


class _Hidden:
    """A transport that shows no socket, or one that is no TCP socket."""

    def __init__(self, sock: object) -> None:
        self._sock = sock

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return it."""
        return self._sock if name == "socket" else default

    def get_write_buffer_size(self) -> int:
        """Return nothing written."""
        return 0


@pytest.mark.parametrize("transport", [None, _Hidden(None), _Hidden(object())], ids=["none", "hidden", "no-tcp"])
def test_cannot_be_asked(transport: _Hidden | None) -> None:
    """Where TCP cannot be asked nothing is said, rather than guessed."""
    assert tcp_state(transport) is None


class Peer:
    """A transport of which only the other end's address is known."""

    def __init__(self, peername: object) -> None:
        self.peername = peername

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.peername if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("peername", "direct"),
    [
        (("203.0.113.5", 443), True),
        (("10.0.0.5", 80), True),
        (("2001:db8::5", 443, 0, 0), True),
        (("fe80::1%eth0", 443, 0, 2), True),
        (("127.0.0.1", 8080), False),
        (("127.8.9.10", 8080), False),
        (("::1", 8080, 0, 0), False),
        ("/run/relay.sock", False),
        (None, False),
    ],
    ids=str,
)
def test_direct(peername: object, direct: bool) -> None:
    """What acknowledges on this machine is not the server."""
    assert is_direct(Peer(peername)) is direct


def test_progress() -> None:
    """What still moves when it is asked a second time is read at the other end; what does not, says nothing."""
    moved = iter([5, 9, 9])
    arrived = watch_progress(lambda: next(moved))
    assert arrived() is False
    assert arrived() is True
    still = watch_progress(lambda: 5)
    assert still() is False
    assert still() is None
