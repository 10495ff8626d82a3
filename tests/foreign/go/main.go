// The guard that docs/languages.md shows, served, with the issuer's keys as they are at the start.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"

	"github.com/golang-jwt/jwt/v5"
)

type keySet struct {
	Keys []struct{ Kid, X, Y string }
}

func readKeys(url string) (map[string]*ecdsa.PublicKey, error) {
	answer, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var set keySet
	if err := json.NewDecoder(answer.Body).Decode(&set); err != nil {
		return nil, err
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, key := range set.Keys {
		keys[key.Kid] = &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(key.X), Y: number(key.Y)}
	}
	return keys, nil
}

func number(text string) *big.Int {
	bytes, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		log.Fatal(err)
	}
	return new(big.Int).SetBytes(bytes)
}

func main() {
	issuer := os.Args[1]
	keys, err := readKeys(issuer + "/.well-known/jwks.json")
	if err != nil {
		log.Fatal(err)
	}
	guard := Guard{Issuer: issuer, Audience: "wxauth", Keys: func(token *jwt.Token) (interface{}, error) {
		kid, _ := token.Header["kid"].(string)
		if key, found := keys[kid]; found {
			return key, nil
		}
		return nil, errors.New("an unknown key")
	}}
	http.HandleFunc("/orders", guard.Require(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, UserOf(r).OpenID)
	}))
	http.HandleFunc("/orders/", guard.Require(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}, "clerk"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
