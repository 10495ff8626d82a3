// Package wxauth verifies access tokens of wxauth.
package wxauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	freshFor = 5 * time.Minute
	keptFor  = 24 * time.Hour // while wxauth is unavailable
)

var errNoKeys = errors.New("the keys cannot be read")

// Keys reads the public keys that wxauth publishes, and keeps them in memory.
type Keys struct {
	URL      string // the issuer's URL, or wxauth's address in your internal network
	mutex    sync.Mutex
	keys     map[string]*ecdsa.PublicKey
	readAt   time.Time
	ended    chan struct{} // closed when the current read ends; nil if no read is in progress
	nextAt   time.Time     // no read begins before this time
	failures int           // the number of failed reads since the last success
}

// Find is a jwt.Keyfunc. If the key is unknown, or the keys are ten minutes old, the request that starts a read waits
// for it. Other requests use the keys in memory. Otherwise, an attacker could block the service with unknown keys while
// wxauth does not respond. Only the very first read makes all requests wait. wxauth publishes a key six minutes before
// it signs, so only keys older than five minutes can lack one that signs.
func (k *Keys) Find(token *jwt.Token) (any, error) {
	kid, _ := token.Header["kid"].(string)
	k.mutex.Lock()
	key, age := k.keys[kid], time.Since(k.readAt)
	isBegun := k.ended == nil && (key == nil || age > freshFor) && time.Now().After(k.nextAt)
	if isBegun {
		k.ended = make(chan struct{})
		go k.read()
	}
	ended, isFirst := k.ended, k.keys == nil && k.failures == 0
	k.mutex.Unlock()
	if ended != nil && (isFirst || isBegun && (key == nil || age > 2*freshFor)) {
		<-ended
		k.mutex.Lock()
		key, age = k.keys[kid], time.Since(k.readAt)
		k.mutex.Unlock()
	}
	if age > keptFor || key == nil && age > freshFor {
		return nil, errNoKeys
	}
	if key == nil {
		return nil, errors.New("an unknown key")
	}
	return key, nil
}

func (k *Keys) read() {
	keys, err := fetch(k.URL + "/.well-known/jwks.json")
	k.mutex.Lock()
	defer k.mutex.Unlock()
	pause := 10 * time.Second
	if err != nil {
		log.Printf("the keys could not be read: %v", err)
		if k.keys == nil {
			pause = 2 * time.Second
		}
		pause <<= k.failures
		if pause < time.Minute {
			k.failures++
		} else {
			pause = time.Minute
		}
	} else {
		k.keys, k.readAt, k.failures = keys, time.Now(), 0
	}
	k.nextAt = time.Now().Add(pause)
	close(k.ended)
	k.ended = nil
}

func fetch(url string) (map[string]*ecdsa.PublicKey, error) {
	client := http.Client{Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", answer.StatusCode)
	}
	var set struct {
		Keys []json.RawMessage
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 256*1024)).Decode(&set); err != nil {
		return nil, err
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, document := range set.Keys {
		key := struct{ Kid, Kty, Crv, X, Y, Use, Alg string }{Use: "sig", Alg: "ES256"}
		if json.Unmarshal(document, &key) != nil {
			continue
		}
		x, errX := base64.RawURLEncoding.DecodeString(key.X)
		y, errY := base64.RawURLEncoding.DecodeString(key.Y)
		public := &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(x), Y: new(big.Int).SetBytes(y)}
		isForES256 := key.Kty == "EC" && key.Crv == "P-256" && key.Use == "sig" && key.Alg == "ES256"
		isWhole := key.Kid != "" && errX == nil && errY == nil && len(x) == 32 && len(y) == 32
		if isForES256 && isWhole && public.Curve.IsOnCurve(public.X, public.Y) {
			keys[key.Kid] = public
		}
	}
	if len(keys) == 0 { // the response might come from a gateway that returns 200 during maintenance
		return nil, errors.New("there is no usable key")
	}
	return keys, nil
}
