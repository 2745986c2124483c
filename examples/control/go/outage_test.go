// go test -exec "halfopen exec --listen 7000 --" ./...
package client

import (
	"net"
	"os/exec"
	"testing"
)

func TestWhatIsWrittenInAnOutageIsAnsweredAfterIt(t *testing.T) {
	client, err := net.Dial("tcp", "server:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if said, err := exec.Command("halfopen", "fault", "flap", "--for", "1s").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := client.Read(answer); err != nil || answer[0] != 'x' {
		t.Fatalf("%v: %q", err, answer)
	}
}
