// Command program is somebody else's: it is built as a module of its own, from the public
// packages alone. Its arguments are a name server, an address, its AuthKey, and the socket
// on which it serves an MTA until its standard input ends.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, nameServer, mailbox, key, socket string) error {
	server, err := netip.ParseAddrPort(nameServer)
	if err != nil {
		return err
	}
	v := verifier.New(verifier.Options{
		Resolvers:     []netip.AddrPort{server},
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	defer v.Close()
	if err := verify(ctx, v, mailbox, key); err != nil {
		return err
	}
	if err := discover(ctx, v, mailbox); err != nil {
		return err
	}
	decide()
	return serve(ctx, v, socket)
}

// verify asks about the right key, another one, and an address that is none.
func verify(ctx context.Context, v *verifier.Verifier, mailbox, key string) error {
	var address verifier.Address
	address, err := verifier.ParseAddress(mailbox)
	if err != nil {
		return err
	}
	right := v.Verify(ctx, verifier.Query{Address: address, Key: verifier.JoinKeys(key)})
	fmt.Println("right key:", right.Status)
	another := v.Verify(ctx, verifier.Query{Address: address, Key: verifier.JoinKeys("somebody-elses")})
	fmt.Println("another key:", another.Status, another.Reason)
	_, err = verifier.ParseAddress("postmaster")
	none := verifier.Unaddressable(err)
	fmt.Println("no address:", none.Status, none.Reason)
	return nil
}

// discover reads the records of the address's domain.
func discover(ctx context.Context, v *verifier.Verifier, mailbox string) error {
	address, err := verifier.ParseAddress(mailbox)
	if err != nil {
		return err
	}
	var d verifier.Discovery = v.Discover(ctx, address.Domain())
	if d.Err != nil {
		return d.Err
	}
	fmt.Println(d.Domain, "requires keys:", d.Required)
	for _, s := range d.Used {
		fmt.Printf("an AS at %s:%d, TLS: %t\n", s.Host, s.Port, s.TLS)
	}
	for _, r := range d.Refused {
		fmt.Printf("refused: %q\n", r.Text)
	}
	return nil
}

// decide says what becomes of a forged message to two recipients.
func decide() {
	p := policy.New(policy.Options{Defaults: policy.Actions{Fail: policy.Mark}})
	plan := p.Decide(policy.Envelope{
		Sender: policy.Fold("mallory@sender.test"),
		Recipients: []policy.Recipient{
			{Address: "bob@outside.test"},
			{Address: "carol@outside.test", Preference: policy.Preference{Actions: policy.Actions{Fail: policy.Reject}}},
		},
		Abilities: policy.Abilities{DeleteRecipient: true, AddRecipient: true}, DSNAllowed: true,
	}, verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey})
	fmt.Printf("the message: %s", plan.Action)
	for _, r := range plan.Recipients {
		fmt.Printf(", %s: %s", r.Address, r.Action)
	}
	fmt.Println()
}

// serve is a milter of its own.
func serve(ctx context.Context, v *verifier.Verifier, socket string) error {
	ln, err := milter.Listen("unix", socket, 0o600, "")
	if err != nil {
		return err
	}
	server := milter.New(slog.New(slog.DiscardHandler), &milter.Engine{
		Settings: milter.Settings{HostName: "mx.outside.test", AuthservID: "mx.outside.test"},
		Limits:   milter.Limits{Connections: 10, IdleTimeout: time.Minute, Recipients: 100},
		Verifier: v, Policy: policy.New(policy.Options{}),
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	server.Shutdown(ctx)
	return <-served
}
