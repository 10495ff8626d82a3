package main

import (
	"cmp"
	"encoding/json"
	"log"
	"net/http"
	"os"

	"github.com/wxauth/wxauth/clients/go/wxauthguard"
)

// Orders returns the handler of the service. All its routes require a valid token.
func Orders(guard *wxauthguard.Guard) http.Handler {
	whoami := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := wxauthguard.UserFrom(r.Context())
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"sub": user.ID, "openid": user.OpenID, "app_id": user.AppID, "external_id": user.ExternalID,
		})
	})
	routes := http.NewServeMux()
	routes.Handle("GET /whoami", guard.Middleware(whoami))
	routes.Handle("GET /staff", guard.Middleware(whoami, "staff"))
	routes.Handle("GET /orders", guard.Middleware(whoami))
	routes.Handle("POST /refund", guard.Current().Middleware(whoami, "clerk"))
	return routes
}

func main() {
	issuer := cmp.Or(os.Getenv("WXAUTH_ISSUER"), "http://127.0.0.1:8000")
	guard := wxauthguard.New(issuer, wxauthguard.Audience(cmp.Or(os.Getenv("WXAUTH_AUDIENCE"), "wxauth")))
	address := "127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "8010")
	log.Println("listening on http://" + address)
	log.Fatal(http.ListenAndServe(address, Orders(guard)))
}
