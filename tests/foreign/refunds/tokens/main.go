// Prints what Go's guard says of each token, which is in base64. See tests/foreign/test_attacks.py.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/wxauth/wxauth/clients/go/wxauthguard"
)

func main() {
	quiet := wxauthguard.Logger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	guards := []*wxauthguard.Guard{
		wxauthguard.New(os.Args[1], quiet), wxauthguard.New(os.Args[1], quiet, wxauthguard.Websites()),
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		authorization, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		said := []any{}
		for _, guard := range guards {
			user, err := guard.Verify(context.Background(), string(authorization))
			if err != nil {
				said = append(said, err.(*wxauthguard.Refusal).Code)
				continue
			}
			scope, roles := user.Scope, user.Roles
			if scope == nil {
				scope = []string{}
			}
			if roles == nil {
				roles = []string{}
			}
			said = append(said, []any{user.ID, user.SessionID, user.AppID, user.OpenID, user.ExternalID, roles, scope})
		}
		document, _ := json.Marshal(said)
		fmt.Println(string(document))
	}
}
