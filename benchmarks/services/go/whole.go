// This file does wxauth's work for a login and for `GET /v1/me`, in Go. A login stores the user, identity, unionid,
// session and event. It encrypts the session_key, makes both tokens, counts the login for its address, and logs it.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	refreshTTL      = 30 * 24 * 3600
	perMinute       = 900000000 // The login is counted as in production, but never reaches this limit.
	uniqueViolation = "23505"

	wholeTables = `
CREATE TABLE IF NOT EXISTS users (
    id uuid PRIMARY KEY,
    unionid text UNIQUE,
    nickname text,
    avatar_url text,
    phone text,
    roles text[] NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    created_at timestamptz NOT NULL,
    last_login_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS identities (
    app_id text NOT NULL,
    openid text NOT NULL,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    unionid text,
    PRIMARY KEY (app_id, openid)
);
CREATE INDEX IF NOT EXISTS identities_user_id_idx ON identities (user_id);
CREATE TABLE IF NOT EXISTS sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    app_id text NOT NULL,
    openid text NOT NULL,
    session_key bytea,
    generation integer NOT NULL DEFAULT 0,
    ip inet,
    user_agent text,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX IF NOT EXISTS sessions_user_id_id_idx ON sessions (user_id, id);
CREATE TABLE IF NOT EXISTS events (
    id uuid PRIMARY KEY,
    type text NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    user_id uuid,
    app_id text,
    ip inet,
    data jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS events_user_id_id_idx ON events (user_id, id)`
	userColumns = `
           users.id::text, users.unionid, users.nickname, users.avatar_url, users.phone, users.roles, users.status,
           users.created_at, users.last_login_at`
	opened = `
    INSERT INTO sessions
           (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
    SELECT $1::uuid, id::uuid, $2, $3, $4, $5::text::inet, $6, $7::timestamptz, $7, $7 + make_interval(secs => $8)
      FROM person WHERE status = 'active'`
	returning = `
WITH person AS (
    UPDATE users SET last_login_at = $7
      FROM identities i
     WHERE i.app_id = $2 AND i.openid = $3 AND users.id = i.user_id
    RETURNING ` + userColumns + `
), opened AS (` + opened + `
)
SELECT * FROM person`
	firstLogin = `
WITH person AS (
    INSERT INTO users (id, unionid, created_at, last_login_at) VALUES ($9::uuid, NULLIF($10, ''), $7, $7)
    ON CONFLICT (unionid) DO UPDATE SET last_login_at = excluded.last_login_at
    RETURNING ` + userColumns + `
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT $2, $3, id::uuid, $7, NULLIF($10, '') FROM person
), entered AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip)
    SELECT $11::uuid, 'user.created', $7, id, id::uuid, $2, $5::text::inet FROM person
), opened AS (` + opened + `
)
SELECT * FROM person`
	selectSession = `
SELECT u.id::text, u.unionid, u.nickname, u.avatar_url, u.phone, u.roles, u.status, u.created_at, u.last_login_at,
       s.app_id, s.openid
  FROM sessions s JOIN users u ON u.id = s.user_id
 WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3`
)

type wholeClaims struct {
	claims
	ID        string   `json:"jti"`
	ClientID  string   `json:"client_id"`
	SessionID string   `json:"sid"`
	OpenID    string   `json:"openid"`
	Roles     []string `json:"roles,omitempty"`
}

type wholeUser struct {
	ID          string    `json:"id"`
	UnionID     *string   `json:"unionid"`
	Nickname    *string   `json:"nickname"`
	AvatarURL   *string   `json:"avatar_url"`
	Phone       *string   `json:"phone"`
	Roles       []string  `json:"roles"`
	Status      string    `json:"-"`
	CreatedAt   time.Time `json:"created_at"`
	LastLoginAt time.Time `json:"last_login_at"`
	AppID       string    `json:"app_id"`
	OpenID      string    `json:"openid"`
}

func (u *wholeUser) fields() []any {
	return []any{
		&u.ID, &u.UnionID, &u.Nickname, &u.AvatarURL, &u.Phone, &u.Roles, &u.Status, &u.CreatedAt, &u.LastLoginAt,
	}
}

type logLine struct {
	Time       time.Time `json:"timestamp"`
	Level      string    `json:"level"`
	Event      string    `json:"event"`
	UserID     string    `json:"user_id"`
	AppID      string    `json:"app_id"`
	SessionID  string    `json:"session_id"`
	IsNew      bool      `json:"is_new"`
	WeChatMS   float64   `json:"wechat_ms"`
	DatabaseMS float64   `json:"database_ms"`
}

type whole struct {
	*service
	appID   string
	sealing cipher.AEAD
	macKey  []byte
	counted counts
}

// counts is the number of logins of each address within the current minute.
type counts struct {
	sync.Mutex
	minute int64
	of     map[string]int
}

func (c *counts) admit(address string, now time.Time) bool {
	c.Lock()
	defer c.Unlock()
	if minute := now.Unix() / 60; minute != c.minute {
		c.minute, c.of = minute, map[string]int{}
	}
	c.of[address]++
	return c.of[address] <= perMinute
}

func newWhole(s *service) *whole {
	secret, err := base64.StdEncoding.DecodeString(os.Getenv("JWT_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	block, err := aes.NewCipher(derived(secret, "seal"))
	if err != nil {
		log.Fatal(err)
	}
	sealing, err := cipher.NewGCM(block)
	if err != nil {
		log.Fatal(err)
	}
	return &whole{service: s, appID: os.Getenv("APP_ID"), sealing: sealing, macKey: derived(secret, "refresh-token")}
}

func (s *whole) logIn(w http.ResponseWriter, r *http.Request) {
	ip, now := address(r), time.Now()
	if !s.counted.admit(ip, now) {
		http.Error(w, "too many logins", http.StatusTooManyRequests)
		return
	}
	wechat, ok := s.exchange(w, r)
	if !ok {
		return
	}
	exchanged := time.Now()
	sealed, err := s.seal(wechat)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	sessionID := newID(now)
	session := []any{sessionID, s.appID, wechat.OpenID, sealed, ip, r.UserAgent(), now, float64(refreshTTL)}
	found, isNew, err := s.enter(r.Context(), session, wechat.UnionID, now)
	if err != nil {
		log.Print(err)
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	if found.Status != "active" {
		http.Error(w, "banned", http.StatusForbidden)
		return
	}
	stored := time.Now()
	found.AppID, found.OpenID = s.appID, wechat.OpenID
	access, err := s.accessToken(found, sessionID, now.Unix())
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	writeLog(logLine{
		Time: stored, Level: "info", Event: "logged_in", UserID: found.ID, AppID: s.appID,
		SessionID: uuidText(sessionID), IsNew: isNew,
		WeChatMS: milliseconds(exchanged.Sub(now)), DatabaseMS: milliseconds(stored.Sub(exchanged)),
	})
	writeJSON(w, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": ttl,
		"refresh_token": s.refreshToken(sessionID, 0), "refresh_expires_in": refreshTTL,
		"session_id": uuidText(sessionID), "is_new_user": isNew, "user": found,
	})
}

// enter finds or creates the user, and begins the session. If two first logins of a user arrive at once, the second one
// finds the identity that the first one has stored.
func (s *whole) enter(
	ctx context.Context, session []any, unionID string, now time.Time,
) (found *wholeUser, isNew bool, err error) {
	for attempt := 0; attempt < 5; attempt++ {
		found = &wholeUser{}
		err = s.pool.QueryRow(ctx, returning, session...).Scan(found.fields()...)
		if !errors.Is(err, pgx.ErrNoRows) {
			return found, false, err
		}
		more := append(session[:len(session):len(session)], newID(now), unionID, newID(now))
		err = s.pool.QueryRow(ctx, firstLogin, more...).Scan(found.fields()...)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != uniqueViolation {
			return found, true, err
		}
	}
	return nil, false, err
}

func (s *whole) readMe(w http.ResponseWriter, r *http.Request) {
	var said wholeClaims
	if err := s.verify(bearer(r), &said); err != nil || !said.areGood() {
		http.Error(w, "invalid token", http.StatusUnauthorized)
		return
	}
	var found wholeUser
	row := s.pool.QueryRow(r.Context(), selectSession, said.SessionID, said.Subject, time.Now())
	err := row.Scan(append(found.fields(), &found.AppID, &found.OpenID)...)
	if err != nil || found.Status != "active" {
		http.Error(w, "no such session", http.StatusUnauthorized)
		return
	}
	writeJSON(w, found)
}

// seal encrypts the session_key, and binds it to its identity. It uses AES-GCM, because the standard library doesn't
// contain AES-GCM-SIV.
func (s *whole) seal(wechat wechatUser) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(wechat.SessionKey)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, s.sealing.NonceSize(), s.sealing.NonceSize()+len(key)+s.sealing.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	place := []byte("session_key\x00" + s.appID + "\x00" + wechat.OpenID)
	return s.sealing.Seal(nonce, nonce, key, place), nil
}

func (s *whole) accessToken(found *wholeUser, sessionID [16]byte, now int64) (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	return s.sign(wholeClaims{
		claims: claims{issuer, audience, found.ID, now, now + ttl}, ID: hex.EncodeToString(id[:]),
		ClientID: s.appID, SessionID: uuidText(sessionID), OpenID: found.OpenID, Roles: found.Roles,
	})
}

func (s *whole) refreshToken(sessionID [16]byte, generation uint32) string {
	raw := make([]byte, 20, 52)
	copy(raw, sessionID[:])
	binary.BigEndian.PutUint32(raw[16:], generation)
	mac := hmac.New(sha256.New, s.macKey)
	mac.Write(raw)
	return "wxr_" + base64url.EncodeToString(mac.Sum(raw))
}

func derived(secret []byte, purpose string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// address returns the client's address, as the reverse proxy forwards it.
func address(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if peer := net.ParseIP(host); peer == nil || !peer.IsLoopback() {
		return host
	}
	forwarded := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
	if client := net.ParseIP(strings.TrimSpace(forwarded[len(forwarded)-1])); client != nil {
		return client.String()
	}
	return host
}

// newID returns a new UUIDv7.
func newID(now time.Time) (id [16]byte) {
	if _, err := rand.Read(id[6:]); err != nil {
		panic(err)
	}
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(now.UnixMilli()))
	copy(id[:6], at[2:])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id
}

func uuidText(id [16]byte) string {
	text := hex.EncodeToString(id[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

func milliseconds(took time.Duration) float64 {
	return float64(took.Microseconds()) / 1000
}

func writeLog(line logLine) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Print(err)
		return
	}
	os.Stderr.Write(append(text, '\n'))
}
