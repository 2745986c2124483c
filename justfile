# The daily commands. `just` alone lists them.

set positional-arguments

# Show every recipe
_default:
    @just --list --unsorted

# Everything a change must pass: formatting, lints, tests
check: lint test

# The tests; those on real namespaces need root or user namespaces
test:
    cargo test --workspace

# The tests that need the virtual kernel (`just kernel`)
test-virtual:
    cargo test --package halfopen --test program -- --ignored

# Formatting and lints, warnings as errors
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings

# Build the program, as the user who called sudo if there is one
build:
    @scripts/as-caller cargo build --release --quiet

# Any halfopen command: `just halfopen list`, `just halfopen doctor`
halfopen *arguments: build
    @scripts/halfopen "$@"

# Build the kernel with virtual time, once (2 to 8 minutes): `just kernel --hz 1000`
kernel *arguments:
    @scripts/as-caller scripts/build-uml.sh "$@"

# What this machine can do
doctor: build
    @scripts/halfopen doctor

# The article's table of retransmissions for tcp_retries2 = 15
predict *arguments: build
    @scripts/halfopen predict --defaults "$@"

# The guide's reference pages and pictures of predictions, made from the program: docs/src/
reference:
    @cargo run --quiet -- reference docs/src

# The guide as web pages, in target/guide/; builds mdbook where it is missing (4 to 10 minutes)
guide:
    @command -v mdbook >/dev/null || scripts/as-caller cargo install --quiet --locked mdbook
    mdbook build docs

# Reports and the guide in headless Chromium: what is wrong with them, and pictures of them in target/pages/seen (a few minutes; needs chromium, node, `just kernel`)
pages *pages: build
    @scripts/pages/run scripts/halfopen "$@"

# Every claim of the article: short settings on the real clock, the defaults in virtual time
article *arguments: build
    @scripts/halfopen article "$@"

# Check the model against this kernel on many settings; the table is kept under results/
validate *arguments: build
    @scripts/halfopen validate --reference results "$@"

# Every experiment on both clocks with the same short settings, side by side
clocks *arguments: build
    @scripts/halfopen clocks "$@"

# On the real clock: what takes hours or a quarter of one at the defaults takes 40 s or 26 s. What a program's own
# settings make longer than the deadline is inconclusive there (3)
short := "--set sysctl.tcp_keepalive_time=20 --set sysctl.tcp_keepalive_intvl=5 --set sysctl.tcp_keepalive_probes=4 --set sysctl.tcp_retries2=6 --set deadline=60s"

# What `programs` and `proxies` need of PyPI, npm, crates and Go, into target/programs: without it they are skipped
program-needs:
    @scripts/as-caller scripts/program-needs

# Clients behind haproxy, nginx and a proxy that never answers, when their server's host loses power: as `programs`
proxies *arguments: build
    @scripts/halfopen run experiments/proxies/*.toml --defaults --clock virtual --reference results/proxies "$@" || virtual=$?; \
    scripts/halfopen run experiments/proxies/*.toml {{short}} --reference results/proxies "$@" || test $? -eq 3 && exit ${virtual:-0}

# Programs that everybody uses, when their server's host loses power, and with what mends it: the Linux defaults in virtual time, then short sysctls on the real clock
programs *arguments: build
    @scripts/halfopen run experiments/programs/*.toml --defaults --clock virtual --reference results/programs "$@" || virtual=$?; \
    scripts/halfopen run experiments/programs/*.toml {{short}} --reference results/programs "$@" || test $? -eq 3 && exit ${virtual:-0}

# Each way to lose a peer, idle with keepalive and after a write, over IPv4 and IPv6, on this machine's kernel and on older ones: results/faults (a minute; where chance decides it is inconclusive; needs `just kernel --kernel 6.1` and `--kernel 6.12`)
faults *arguments: build
    @scripts/halfopen clocks experiments/faults/*.toml --set client.traffic=idle,one-write --set family=ipv4,ipv6 \
        --kernel 6.1,6.12 --reference results/faults "$@" || test $? -eq 3 || survivor=1; \
    scripts/halfopen clocks client-power-off-idle client-power-off-keepalive client-power-off-streaming client-crash-streaming \
        --set family=ipv4,ipv6 --kernel 6.1,6.12 --reference results/faults/client-lost "$@" && exit ${survivor:-0}

# All reference results, by kernel, small enough to be kept: results/ (as root; half an hour; `just kernel` with each HZ, and with 6.1)
results: build && programs proxies faults
    #!/bin/sh
    set -eu
    # What a kernel lacks is skipped, with its reason (4).
    make() { scripts/halfopen "$@" --reference results || test $? -eq 4; }
    make article
    make validate
    make validate --samples
    for hz in 100 250 300 1000; do make validate --clock virtual --hz "$hz"; done
    make validate --clock virtual --samples
    make validate --clock virtual --kernel 6.1

# What reads foreign bytes, against damaged and random ones: `just fuzz 1000000` tries more of each
fuzz cases="20000":
    PROPTEST_CASES={{cases}} cargo test --workspace --no-fail-fast -- foreign

# A statically linked program, which runs on older distributions too
static:
    @scripts/as-caller scripts/build-static

# A Debian package of it; builds cargo-deb where it is missing (3 minutes)
deb:
    @scripts/as-caller scripts/build-deb

# What the gate has no time for; each part is a recipe of its own
nightly: msrv deny sbom test-ordinary test-package kernels (fuzz "200000")

# The oldest Rust that Cargo.toml names
msrv:
    #!/bin/sh
    set -eu
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    rustup toolchain list | grep -q "^$version" || rustup toolchain install "$version" --profile minimal
    cargo "+$version" check --locked --workspace --all-targets --target-dir target/msrv

# Licences, sources and known weaknesses of the crates that are used (deny.toml)
deny:
    @command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
    cargo deny check

# The list of everything that the program is built from (CycloneDX), in target/
sbom:
    @command -v cargo-cyclonedx >/dev/null || cargo install --quiet --locked cargo-cyclonedx
    cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename halfopen.cdx
    mv crates/halfopen/halfopen.cdx.json target/
    rm crates/*/halfopen.cdx.json

# The tests without root
test-ordinary *arguments:
    @scripts/test-ordinary "$@"

# The package and the static program in bare roots; needs root and mmdebstrap
test-package: deb
    cargo test --package halfopen --test package -- --ignored

# The model and the catalogue on each virtual kernel, old and new, at each HZ
kernels versions="6.1 6.12" hz="100 250 300 1000":
    #!/bin/sh
    set -eu
    just build
    disagrees=0
    for version in {{versions}}; do for hz in {{hz}}; do
        just kernel --kernel "$version" --hz "$hz"
        for what in "validate --repeat 1" "run --defaults $(ls experiments/*.toml | grep -v path-loses-a-third | tr '\n' ' ')"; do
            # What a kernel lacks is skipped (4), and a trial can be spoilt (3): each with its reason.
            scripts/halfopen $what --clock virtual --kernel "$version" --hz "$hz" --out "target/nightly/$version-$hz" \
                || case $? in 3|4) ;; *) disagrees=1 ;; esac
        done
    done; done
    exit $disagrees

# The client's process is killed while the server sends without a pause: what is the server told?
client-crash-streaming *arguments: build
    @scripts/halfopen run client-crash-streaming "$@"

# The client's host loses power before the server answers: when does the server's kernel give up?
client-power-off-answering *arguments: build
    @scripts/halfopen run client-power-off-answering "$@"

# The client's host loses power while the server waits for a request: does the server ever find out?
client-power-off-idle *arguments: build
    @scripts/halfopen run client-power-off-idle "$@"

# The client's host loses power while the server waits with keepalive: when does the server find out?
client-power-off-keepalive *arguments: build
    @scripts/halfopen run client-power-off-keepalive "$@"

# The client's host loses power while the server sends without a pause: when does the server find out?
client-power-off-streaming *arguments: build
    @scripts/halfopen run client-power-off-streaming "$@"

# The server hangs when the client closes: how long does the client's kernel remember the connection?
close-frozen-server *arguments: build
    @scripts/halfopen run close-frozen-server "$@"

# tcp_fin_timeout is 61 s and not 60: how long does the client's kernel remember the connection now?
close-frozen-server-61 *arguments: build
    @scripts/halfopen run close-frozen-server-61 "$@"

# The server's host loses power and the client closes: how long does its kernel go on without it?
close-host-crash *arguments: build
    @scripts/halfopen run close-host-crash "$@"

# The same with SO_LINGER: does a close that waits change how long the kernel tries?
close-linger *arguments: build
    @scripts/halfopen run close-linger "$@"

# The server process is killed before the client connects: when is the client told, and what?
connect-closed-port *arguments: build
    @scripts/halfopen run connect-closed-port "$@"

# The server's host loses power before the client connects: how many SYNs until connect gives up?
connect-host-down *arguments: build
    @scripts/halfopen run connect-host-down "$@"

# On a LAN nobody answers for the server's address: when does connect give up, and with which error?
connect-no-such-neighbour *arguments: build
    @scripts/halfopen run connect-no-such-neighbour "$@"

# A firewall rejects the SYN with an ICMP host unreachable: is that the end of the attempt?
connect-rejected *arguments: build
    @scripts/halfopen run connect-rejected "$@"

# TCP_USER_TIMEOUT is half a second: does connect give up by then?
connect-user-timeout *arguments: build
    @scripts/halfopen run connect-user-timeout "$@"

# A firewall drops everything silently: is that the same as a server without power?
firewall-drop-sending *arguments: build
    @scripts/halfopen run firewall-drop-sending "$@"

# A firewall rejects with an ICMP host unreachable: does the client find out sooner?
firewall-reject-sending *arguments: build
    @scripts/halfopen run firewall-reject-sending "$@"

# The server lives and answers every request: is it ever given up by mistake?
heartbeat-host-alive *arguments: build
    @scripts/halfopen run heartbeat-host-alive "$@"

# The server's host loses power and the client asks for answers: does it find out sooner?
heartbeat-host-crash *arguments: build
    @scripts/halfopen run heartbeat-host-crash "$@"

# The server lives and says nothing: does keepalive leave the connection alone?
host-alive-keepalive *arguments: build
    @scripts/halfopen run host-alive-keepalive "$@"

# The server's host loses power while the client is idle with keepalive: when does it find out?
host-crash-idle-keepalive *arguments: build
    @scripts/halfopen run host-crash-idle-keepalive "$@"

# Only the sysctls are set, not SO_KEEPALIVE: does keepalive happen?
host-crash-idle-keepalive-sysctl-only *arguments: build
    @scripts/halfopen run host-crash-idle-keepalive-sysctl-only "$@"

# The server's host loses power while the client is idle with keepalive and TCP_USER_TIMEOUT: which counts?
host-crash-idle-keepalive-user-timeout *arguments: build
    @scripts/halfopen run host-crash-idle-keepalive-user-timeout "$@"

# The server's host loses power while the client is idle without keepalive: does it ever find out?
host-crash-idle-no-keepalive *arguments: build
    @scripts/halfopen run host-crash-idle-no-keepalive "$@"

# The server's host loses power while the client is idle with TCP_USER_TIMEOUT alone: is it told?
host-crash-idle-user-timeout *arguments: build
    @scripts/halfopen run host-crash-idle-user-timeout "$@"

# The client writes again while its first data are unacknowledged: does it wait longer?
host-crash-second-write *arguments: build
    @scripts/halfopen run host-crash-second-write "$@"

# The server's host loses power and the client writes once: when does its kernel give up?
host-crash-sending *arguments: build
    @scripts/halfopen run host-crash-sending "$@"

# The dead server is behind a router: what does the router's ICMP change?
host-crash-sending-behind-router *arguments: build
    @scripts/halfopen run host-crash-sending-behind-router "$@"

# On a path with a long round trip, how many retransmissions fit before the threshold?
host-crash-sending-high-rtt *arguments: build
    @scripts/halfopen run host-crash-sending-high-rtt "$@"

# On a LAN where ARP is not pinned, which error ends the connection, and when?
host-crash-sending-lan *arguments: build
    @scripts/halfopen run host-crash-sending-lan "$@"

# The same with TCP_USER_TIMEOUT: does the kernel give up when it says?
host-crash-sending-user-timeout *arguments: build
    @scripts/halfopen run host-crash-sending-user-timeout "$@"

# tcp_retries2 is lowered while the client retransmits: does it give up sooner?
host-crash-sysctl-changed *arguments: build
    @scripts/halfopen run host-crash-sysctl-changed "$@"

# The server's host reboots while the client is idle: what does the first probe find?
host-reboot-idle-keepalive *arguments: build
    @scripts/halfopen run host-reboot-idle-keepalive "$@"

# The host that comes back has another MAC address: how long until the client reaches it?
host-reboot-new-mac *arguments: build
    @scripts/halfopen run host-reboot-new-mac "$@"

# The server's host reboots and the client writes meanwhile: what does a retransmission find?
host-reboot-sending *arguments: build
    @scripts/halfopen run host-reboot-sending "$@"

# Keepalive has begun to probe a host that is gone, and then the program writes: which timer ends it?
keepalive-then-write *arguments: build
    @scripts/halfopen run keepalive-then-write "$@"

# Packets over 1400 bytes to the client vanish, and nobody is told. The server answers with 4000 bytes: when does it find out?
mtu-large-answer *arguments: build
    @scripts/halfopen run mtu-large-answer "$@"

# Packets over 1400 bytes vanish on the way, and nobody is told. The client writes 4000 bytes: what ends it, and when?
mtu-large-write *arguments: build
    @scripts/halfopen run mtu-large-write "$@"

# Packets over 1400 bytes vanish on the way, and tcp_mtu_probing is on: does a write of 4000 bytes get through, and when?
mtu-probing-saves *arguments: build
    @scripts/halfopen run mtu-probing-saves "$@"

# Packets over 1400 bytes vanish on the way, and nobody is told. The client asks for small answers: does it notice?
mtu-small-request *arguments: build
    @scripts/halfopen run mtu-small-request "$@"

# A router with connection tracking (NAT, a load balancer) has forgotten the idle connection: what does the next write meet?
nat-forgets-idle *arguments: build
    @scripts/halfopen run nat-forgets-idle "$@"

# Keepalive asks less often than the router forgets: what do its probes find?
nat-forgets-keepalive-late *arguments: build
    @scripts/halfopen run nat-forgets-keepalive-late "$@"

# Keepalive asks more often than the router forgets: does the connection live on?
nat-forgets-keepalive-saves *arguments: build
    @scripts/halfopen run nat-forgets-keepalive-saves "$@"

# The router answers what it has forgotten with a reset: when is an idle client with keepalive told, and what?
nat-forgets-reset *arguments: build
    @scripts/halfopen run nat-forgets-reset "$@"

# A single keepalive probe is lost, and the user timeout is shorter than the time to the next: does the connection outlive it?
one-lost-probe-kills *arguments: build
    @scripts/halfopen run one-lost-probe-kills "$@"

# A single keepalive probe is lost, and the user timeout leaves time for the next ones: does the connection outlive it?
one-lost-probe-survived *arguments: build
    @scripts/halfopen run one-lost-probe-survived "$@"

# First the path goes away, then the server's process dies: what is the idle client told once the path is back, and when?
path-away-process-crash *arguments: build
    @scripts/halfopen run path-away-process-crash "$@"

# The path goes away and comes back before the threshold: is anything lost?
path-flap-sending *arguments: build
    @scripts/halfopen run path-flap-sending "$@"

# The path comes back too late: does a working link save the connection?
path-flap-too-long *arguments: build
    @scripts/halfopen run path-flap-too-long "$@"

# The path goes away twice, each time for less than keepalive waits: do the probes of both times add up?
path-flaps-twice *arguments: build
    @scripts/halfopen run path-flaps-twice "$@"

# The path loses the next four packets of a connection and then works again: does a write get through?
path-loses-a-few *arguments: build
    @scripts/halfopen run path-loses-a-few "$@"

# The path loses three packets of ten: does keepalive take a living server for dead?
path-loses-a-third *arguments: build
    @scripts/halfopen run path-loses-a-third "$@"

# The server answers every keepalive probe, and its answers are lost on the way back: when is the client told?
path-one-way-keepalive *arguments: build
    @scripts/halfopen run path-one-way-keepalive "$@"

# The server receives everything, and its answers are lost on the way back: when does a client that sends find out?
path-one-way-to-client *arguments: build
    @scripts/halfopen run path-one-way-to-client "$@"

# The path loses what goes to the server, and what comes from it still arrives: when does a client that sends find out?
path-one-way-to-server *arguments: build
    @scripts/halfopen run path-one-way-to-server "$@"

# The path goes away under a write, and when it is back the server's process dies: which of the two is the client told of?
path-then-process-crash *arguments: build
    @scripts/halfopen run path-then-process-crash "$@"

# The server process is killed while the client is idle: what is the client told, and when?
process-crash-idle *arguments: build
    @scripts/halfopen run process-crash-idle "$@"

# The server process is killed while the client's data are on their way: FIN or RST?
process-crash-in-flight *arguments: build
    @scripts/halfopen run process-crash-in-flight "$@"

# The server is killed, but a forked child holds the connection too: is the client told?
process-crash-inherited-socket *arguments: build
    @scripts/halfopen run process-crash-inherited-socket "$@"

# The killed server had set SO_LINGER to 0: what does the client see instead of a FIN?
process-crash-linger *arguments: build
    @scripts/halfopen run process-crash-linger "$@"

# The server process is killed while the client goes on sending: when does it find out?
process-crash-sending *arguments: build
    @scripts/halfopen run process-crash-sending "$@"

# The server process is killed before it has read what the client sent: FIN or RST?
process-crash-unread *arguments: build
    @scripts/halfopen run process-crash-unread "$@"

# The server process is killed with a full send buffer: does the client still get all of it?
process-crash-unsent *arguments: build
    @scripts/halfopen run process-crash-unsent "$@"

# The server process hangs: does keepalive notice?
process-freeze-idle-keepalive *arguments: build
    @scripts/halfopen run process-freeze-idle-keepalive "$@"

# The server process hangs while the client sends: is the client told anything?
process-freeze-sending *arguments: build
    @scripts/halfopen run process-freeze-sending "$@"

# Behind a proxy with keepalive the server's host loses power: who tells the client, and when?
proxy-host-crash *arguments: build
    @scripts/halfopen run proxy-host-crash "$@"

# The client has keepalive, and the host of the server behind its proxy loses power: does the client find out?
proxy-host-crash-client-keepalive *arguments: build
    @scripts/halfopen run proxy-host-crash-client-keepalive "$@"

# The proxy's host loses power: when do the client and the server find out?
proxy-lost *arguments: build
    @scripts/halfopen run proxy-lost "$@"

# The server's process behind a proxy is killed: how long after the proxy is the client told?
proxy-process-crash *arguments: build
    @scripts/halfopen run proxy-process-crash "$@"

# The client asks, is not answered within 2 s and closes: when does its kernel let go?
request-unanswered *arguments: build
    @scripts/halfopen run request-unanswered "$@"

# The server's host loses power and the client shuts down its side: is it ever told?
shutdown-host-crash *arguments: build
    @scripts/halfopen run shutdown-host-crash "$@"

# Another host takes the server's address over while the client is idle with keepalive: when is the client told, and what?
takeover-idle-keepalive *arguments: build
    @scripts/halfopen run takeover-idle-keepalive "$@"

# The client's entry for the server is pinned to the old link-layer address when another host takes the address over: does its announcement help?
takeover-pinned *arguments: build
    @scripts/halfopen run takeover-pinned "$@"

# Another host takes the server's address over and says so: what does a client that is sending find there?
takeover-sending *arguments: build
    @scripts/halfopen run takeover-sending "$@"

# Another host takes the server's address over and does not say so: how long does the client go on sending to the one that is gone?
takeover-unannounced *arguments: build
    @scripts/halfopen run takeover-unannounced "$@"

# The client writes again and again to a host that is gone: does each write buy time?
two-writes *arguments: build
    @scripts/halfopen run two-writes "$@"

# The one cable between two hosts is pulled: is that the same as a server without power?
unplug-sending *arguments: build
    @scripts/halfopen run unplug-sending "$@"

# The host of a web server's client loses power: what does keepalive_timeout close, and what not?
web-server-client-lost *arguments: build
    @scripts/halfopen run web-server-client-lost "$@"

# The client of a web server (nginx) stays idle: when is the connection closed?
web-server-idle *arguments: build
    @scripts/halfopen run web-server-idle "$@"

# The client of a web server makes another request in time: when is the connection closed then?
web-server-new-request *arguments: build
    @scripts/halfopen run web-server-new-request "$@"

# The client writes just before its keepalive timer is due: does keepalive still probe?
write-before-keepalive *arguments: build
    @scripts/halfopen run write-before-keepalive "$@"

# The client writes while the window of a lost host is closed: does that change when it finds out?
write-into-closed-window *arguments: build
    @scripts/halfopen run write-into-closed-window "$@"

# The client writes and closes while its data are unacknowledged: how long does the kernel go on?
write-then-close *arguments: build
    @scripts/halfopen run write-then-close "$@"

# The client writes, shuts down its direction and waits: is it told when the host is gone?
write-then-shutdown *arguments: build
    @scripts/halfopen run write-then-shutdown "$@"

# The server lives and does not read: does its closed window ever end the connection?
zero-window-alive *arguments: build
    @scripts/halfopen run zero-window-alive "$@"

# The server's window is closed when its host loses power: who notices, and when?
zero-window-host-crash *arguments: build
    @scripts/halfopen run zero-window-host-crash "$@"

# The server lives and does not read: does TCP_USER_TIMEOUT end the connection all the same?
zero-window-user-timeout *arguments: build
    @scripts/halfopen run zero-window-user-timeout "$@"
