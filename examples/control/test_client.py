"""What a client does when its server goes away: the deadline is predicted, not guessed."""

import socket
import time

import pytest


@pytest.fixture
def client(path):
    s = socket.create_connection(("server", 7000))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
        s.setsockopt(socket.IPPROTO_TCP, option, value)
    s.sendall(b"x")
    assert s.recv(1) == b"x"
    yield s
    s.close()


def test_a_short_outage_is_survived(client, path):
    path.fault("flap", **{"for": "1s"})
    client.sendall(b"y")
    assert client.recv(1) == b"y"


def test_an_idle_client_is_told(client, path):
    path.fault("blackhole")
    predicted = path.when()[-1]["prediction"]["windows"][0]
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.recv(1)
    took = time.monotonic() - began
    assert predicted["outcome"] == "ETIMEDOUT"
    assert predicted["earliest_s"] - 0.1 < took < predicted["latest_s"] + 5.0
