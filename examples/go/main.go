package main

import (
	"fmt"
	"log"
	"net/http"
)

// Orders is the service, guarded.
func Orders(guard Guard) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("/orders", guard.Require(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, UserOf(r).OpenID)
	}))
	routes.HandleFunc("/orders/", guard.Require(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}, "clerk"))
	return routes
}

func main() {
	issuer := "http://127.0.0.1:8000"
	keys := &Keys{URL: issuer}
	guard := Guard{Issuer: issuer, Audience: "wxauth", Keys: keys.Find}
	log.Println("listening on http://127.0.0.1:8005")
	log.Fatal(http.ListenAndServe("127.0.0.1:8005", Orders(guard)))
}
