package milter_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// A whole milter: Postfix is told of it with smtpd_milters = unix:/path/of/the/socket.
func Example() {
	keys := verifier.New(verifier.Options{})
	defer keys.Close()
	engine := &milter.Engine{
		Settings: milter.Settings{
			HostName:     "mx.example.net",
			LocalDomains: []string{"example.net"},
			Submission:   milter.Submission{Authenticated: true},
			MarkHeader:   "X-Spam-Flag", MarkValue: "YES",
			From: milter.FromReport, FromTimeout: verifier.DefaultTimeout,
		},
		Limits:   milter.Limits{Connections: 500, IdleTimeout: time.Hour, Recipients: 1000},
		Verifier: keys,
		Policy:   policy.New(policy.Options{}), // fail is marked, all else accepted
	}

	dir, err := os.MkdirTemp("", "milter")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ln, err := milter.Listen("unix", filepath.Join(dir, "milter.sock"), 0o660, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := milter.New(slog.Default(), engine)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()

	// Until SIGTERM. Then the messages that have begun may end.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	server.Shutdown(ctx)
	fmt.Println("served:", <-served)
	// Output: served: <nil>
}

// passing is a Verifier that has every key in its cache, and so is never asked.
type passing struct{ milter.Verifier }

func (passing) Cached(verifier.Query) (verifier.Result, bool) {
	return verifier.Result{Status: verifier.Pass, Cached: true}, true
}

func ExampleExamine() {
	engine := &milter.Engine{
		Settings: milter.Settings{HostName: "mx.example.net", MarkHeader: "X-Spam-Flag", MarkValue: "YES"},
		Limits:   milter.Limits{Connections: 1, IdleTimeout: time.Minute, Recipients: 100},
		Verifier: passing{},
		Policy:   policy.New(policy.Options{}),
	}
	e := milter.Examine(context.Background(), engine, milter.Sample{
		Client:     netip.MustParseAddr("192.0.2.1"),
		Sender:     "alice@example.com",
		Recipients: []string{"bob@example.net"},
		Header:     []milter.Field{{Name: "X-Auth-Key", Value: "k7Q"}, {Name: "From", Value: "alice@example.com"}},
	})
	fmt.Println(e.Class, e.Envelope.Status, e.Plan.Action)
	fmt.Printf("removed: %d of %d keys\n", e.Removed, e.Keys)
	fmt.Printf("%q\n", e.AuthRes)
	// Output:
	// inbound pass accept
	// removed: 1 of 1 keys
	// "mx.example.net;\n\tx-authkey=pass smtp.mailfrom=alice@example.com"
}
