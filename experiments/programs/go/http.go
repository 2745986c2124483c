// A download by Go's net/http, as it comes or with a Timeout.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
)

func main() {
	log.SetFlags(0)
	timeout := flag.Duration("timeout", 0, "http.Client's Timeout; 0: as it comes")
	flag.Parse()
	client := http.Client{Timeout: *timeout}
	response, err := client.Get("http://server:8080/")
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
	}
	log.Fatal(err)
}
