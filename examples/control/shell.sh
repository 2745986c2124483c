#!/bin/sh
# The server answers; the path goes away, and it does not; the path is healed, and it does again.
set -eu
order() { curl --silent --fail --unix-socket "$HALFOPEN_CONTROL" --data "$2" "http://halfopen/$1"; }
# halfopen's own server sends back what it gets.
answers() { python3 -c 'import socket; s = socket.create_connection(("server", 7000), 2); s.sendall(b"x"); s.recv(1)' 2>/dev/null; }

answers
order fault '{"kind": "blackhole"}'
if answers; then echo "the server answers through a blackhole" >&2; exit 1; fi
order heal ''
answers
