package main

import (
	"cmp"
	"encoding/json"
	"log"
	"net/http"
	"os"

	"example.com/orders/wxauth"
)

// Orders returns the handler of the service. All its routes require a valid token.
func Orders(guard wxauth.Guard) http.Handler {
	whoami := func(w http.ResponseWriter, r *http.Request) {
		user := wxauth.UserOf(r)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"sub": user.Subject, "openid": user.OpenID, "app_id": user.AppID, "external_id": user.ExternalID,
		})
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /whoami", guard.Require(whoami))
	routes.HandleFunc("GET /staff", guard.Require(whoami, "staff"))
	routes.HandleFunc("GET /orders", guard.Require(whoami))
	return routes
}

func main() {
	issuer := cmp.Or(os.Getenv("WXAUTH_ISSUER"), "http://127.0.0.1:8000")
	keys := &wxauth.Keys{URL: issuer}
	guard := wxauth.Guard{Issuer: issuer, Audience: cmp.Or(os.Getenv("WXAUTH_AUDIENCE"), "wxauth"), Keys: keys.Find}
	address := "127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "8010")
	log.Println("listening on http://" + address)
	log.Fatal(http.ListenAndServe(address, Orders(guard)))
}
