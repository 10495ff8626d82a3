package wxauthguard

// Writes the guard's verdicts on each line from tests/foreign/key_documents.py.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestJudgeEachLine(t *testing.T) {
	judged, err := os.ReadFile(os.Getenv("JUDGED"))
	if err != nil {
		t.Fatal(err)
	}
	printed := ""
	for _, line := range strings.Split(strings.TrimSpace(string(judged)), "\n") {
		words := strings.Split(line, " ")
		guard := New(words[0])
		keys := guard.keys
		status := func(token string) int {
			_, err := guard.Verify(context.Background(), "Bearer "+token)
			if refused := (*Refusal)(nil); errors.As(err, &refused) {
				return refused.Status
			}
			return 200
		}
		forgetThePause := func() {
			keys.mutex.Lock()
			keys.nextAt = time.Time{}
			keys.mutex.Unlock()
		}
		printed += fmt.Sprint(status(words[1]), " ")
		forgetThePause()
		if strings.HasSuffix(words[0], "/hanging") {
			printed += fmt.Sprintln(besideStrangers(status, words))
			continue
		}
		if strings.Contains(words[0], "/old/") {
			keys.readAt = time.Now().Add(-6 * time.Minute)
		}
		printed += fmt.Sprint(status(words[2]), " ")
		forgetThePause()
		printed += fmt.Sprintln(status(words[1]))
	}
	if err := os.WriteFile(os.Getenv("JUDGED")+".out", []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Runs 300 requests with unknown keys, and then a user's request, in 16 workers.
func besideStrangers(status func(string) int, words []string) string {
	tokens, answered, refused := make(chan string), make(chan int, 1), make(chan int, 300)
	for n := 0; n < 16; n++ {
		go func() {
			for token := range tokens {
				if found := status(token); token == words[1] {
					answered <- found
				} else {
					refused <- found
				}
			}
		}()
	}
	for n := 0; n < 300; n++ {
		tokens <- words[2]
	}
	tokens <- words[1]
	user := <-answered
	answer, err := http.Get(words[0] + "/answered")
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	waits, _ := io.ReadAll(answer.Body)
	found := map[int]bool{}
	for n := 0; n < 300; n++ {
		found[<-refused] = true
	}
	return fmt.Sprint(user, " ", string(waits), " ", slices.Sorted(maps.Keys(found)))
}
