// A socket of Go's: it waits, or with -writes writes every second.
package main

import (
	"flag"
	"log"
	"net"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	writes := flag.Bool("writes", false, "write every second")
	keepAlive := flag.Duration("keep-alive", 0, "net.Dialer's KeepAlive; 0: as it comes")
	userTimeout := flag.Int("user-timeout", 0, "TCP_USER_TIMEOUT, milliseconds")
	flag.Parse()
	dialer := net.Dialer{KeepAlive: *keepAlive}
	if *userTimeout > 0 {
		dialer.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				// unix.TCP_USER_TIMEOUT; the package syscall has no name for it.
				if err := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, 18, *userTimeout); err != nil {
					log.Fatal(err)
				}
			})
		}
	}
	server, err := dialer.Dial("tcp", "server:7000")
	for err == nil {
		if _, err = server.Write([]byte("x")); err != nil {
			break
		}
		if *writes {
			time.Sleep(time.Second)
			continue
		}
		for err == nil {
			_, err = server.Read(make([]byte, 1))
		}
	}
	log.Fatal(err)
}
