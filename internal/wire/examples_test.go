package wire_test

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

func ExampleParseAddress() {
	for _, mailbox := range []string{"Alice@Example.COM.", `"Joe Q"@example.com`, "jürgen@bücher.example", "alice@[192.0.2.1]"} {
		address, err := wire.ParseAddress(mailbox)
		if errors.Is(err, wire.ErrDomainLiteral) {
			fmt.Println("nobody can vouch for it:", err)
			continue
		}
		fmt.Println(address, "of", address.Domain())
	}
	// Output:
	// Alice@example.com of example.com
	// "Joe%20Q"@example.com of example.com
	// j%C3%BCrgen@xn--bcher-kva.example of xn--bcher-kva.example
	// nobody can vouch for it: address has a domain literal
}

func ExampleParseSet() {
	set := wire.ParseSet([]string{
		"v=spf1 mx -all",
		"AS=as2.example.net:7425; pri=20; tls=yes",
		"AS=as.example.com:7425; tls=yes; req=yes",
		"AS=old.example.com:7425",
	})
	noShuffle := func(int, func(i, j int)) {} // rand.Shuffle outside examples
	for _, server := range set.Order(noShuffle) {
		fmt.Println(server)
	}
	for _, refused := range set.Refused {
		fmt.Printf("not used: %q: %v\n", refused.Text, refused.Why)
	}
	fmt.Println("keys required:", set.Required)
	// Output:
	// tls:as.example.com:7425
	// tls:as2.example.net:7425
	// not used: "AS=old.example.com:7425": clear text, while another record of the domain says tls=yes
	// keys required: true
}

// A VERIFY exchange, both sides.
func Example() {
	// The client takes the address from MAIL FROM and the key from the header.
	address, err := wire.ParseAddress("alice@example.com")
	if err != nil {
		fmt.Println(err)
		return
	}
	key := wire.JoinKeys(" CVQ2T7HDRWNQ5KYG4M3XIBZL5E")
	question := wire.Request{Seq: 7093169413108563713, Address: address.String(), Key: key}.Append(nil)

	// The AS reads the line, and echoes the address as it came.
	request, err := wire.ParseRequest(strings.TrimSuffix(string(question), "\r\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("asked about", request.Address, "with", request.Key)
	answer := wire.Reply{Seq: request.Seq, Address: request.Address, Verdict: wire.ValidKey, TTL: time.Hour, HasTTL: true}.Append(nil)
	fmt.Printf("%q\n", answer)

	// The client takes it for an answer if both seq and address are its own.
	reply, err := wire.ParseReply(strings.TrimSuffix(string(answer), "\r\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(reply.Verdict, "for", reply.TTL)
	// Output:
	// asked about alice@example.com with [AuthKey]
	// "VERIFY_REPLY 7093169413108563713 alice@example.com VALIDKEY ttl=3600\r\n"
	// VALIDKEY for 1h0m0s
}
