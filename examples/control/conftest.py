"""A fixture: the path to the server, which tests break and heal."""

import fcntl
import http.client
import json
import os
import socket

import pytest


class _Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["HALFOPEN_CONTROL"])


class Path:
    def _ask(self, method, path, **body):
        connection = _Unix("halfopen")
        connection.request(method, path, json.dumps(body))
        response = connection.getresponse()
        document = json.load(response)
        assert response.status == 200, document["error"]
        return document

    def fault(self, kind, **settings):
        return self._ask("POST", "/fault", kind=kind, **settings)

    def heal(self):
        return self._ask("POST", "/heal")

    def restore(self):
        """Heals what is broken, if anything is."""
        try:
            self.heal()
        except AssertionError as nothing_to_heal:
            assert "nothing is broken" in str(nothing_to_heal)

    def when(self):
        return self._ask("GET", "/when")["flows"]


@pytest.fixture
def path():
    if "HALFOPEN_CONTROL" not in os.environ:
        pytest.skip("run it by: halfopen exec --listen 7000 -- python3 -m pytest")
    # One fault is in force at a time: where tests run beside each other (pytest -n 2), they take turns.
    with open("/dev/shm/turn", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        path = Path()
        yield path
        # A test that has failed may have left something broken.
        path.restore()
