// A service whose refunds need a guard that asks wxauth, or accepts the token during an outage.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/wxauth/wxauth/clients/go/wxauthguard"
)

func main() {
	issuer, internalURL, port := os.Args[1], os.Args[2], os.Args[3]
	guard := wxauthguard.New(issuer, wxauthguard.OrOffline(), wxauthguard.InternalURL(internalURL))
	http.Handle("/refund", guard.Current().Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]bool{"current": wxauthguard.UserFrom(r.Context()).IsCurrent})
	}), "clerk"))
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("running")
	log.Fatal(http.Serve(listener, nil))
}
