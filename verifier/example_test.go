package verifier_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/verifier"
)

// A milter has the envelope sender and the X-Auth-Key fields of each message.
func ExampleVerifier_Verify() {
	nameServer, end := exampleDomain()
	defer end()

	v := verifier.New(verifier.Options{
		// Leave both out, to ask the name servers of /etc/resolv.conf, and to connect to
		// public addresses only. Those of this example are on this machine.
		Resolvers:     []netip.AddrPort{nameServer},
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	defer v.Close()

	for _, message := range []struct {
		from string   // of MAIL FROM
		keys []string // of X-Auth-Key fields
	}{
		{"alice@sender.test", []string{"alices-key"}},
		{"alice@sender.test", []string{"alices-key"}}, // again, within the time to live
		{"alice@sender.test", []string{"mallorys-key"}},
		{"alice@sender.test", nil},
		{"bob@other.test", nil},
		{"postmaster", nil},
	} {
		var r verifier.Result
		address, err := verifier.ParseAddress(message.from)
		if err != nil {
			r = verifier.Unaddressable(err)
		} else {
			r = v.Verify(context.Background(), verifier.Query{Address: address, Key: verifier.JoinKeys(message.keys...)})
		}
		fmt.Println(message.from, message.keys, r.Status, r.Reason, r.Cached)
	}
	// Output:
	// alice@sender.test [alices-key] pass  false
	// alice@sender.test [alices-key] pass  true
	// alice@sender.test [mallorys-key] fail invalid-key false
	// alice@sender.test [] fail required false
	// bob@other.test [] none no-as false
	// postmaster [] none no-domain false
}

// Discover shows what a domain publishes, and what is wrong with it.
func ExampleVerifier_Discover() {
	nameServer, end := exampleDomain()
	defer end()

	v := verifier.New(verifier.Options{
		Resolvers:     []netip.AddrPort{nameServer},
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	defer v.Close()

	for _, domain := range []string{"sender.test", "other.test", "untidy.test"} {
		d := v.Discover(context.Background(), domain)
		if errors.Is(d.Err, verifier.ErrDNSTimeout) || errors.Is(d.Err, verifier.ErrDNSFailure) {
			fmt.Println(domain, "try later:", d.Err)
			continue
		}
		fmt.Println(d.Domain, "publishes:", d.Published, "requires keys:", d.Required)
		for _, record := range d.Used {
			fmt.Println("  used:", record.Host, "pri", record.Pri, "TLS", record.TLS)
		}
		for _, refused := range d.Refused {
			fmt.Printf("  refused: %q malformed: %v\n", refused.Text, errors.Is(refused.Why, verifier.ErrMalformed))
		}
		for _, miss := range d.Misses() {
			fmt.Printf("  %q probably means %q\n", miss.Text, miss.Right)
		}
	}
	// Output:
	// sender.test publishes: true requires keys: true
	//   used: 127.0.0.1 pri 10 TLS false
	// other.test publishes: false requires keys: false
	// untidy.test publishes: true requires keys: false
	//   used: as.untidy.test pri 5 TLS true
	//   refused: "AS=as2.untidy.test" malformed: true
	//   "AS=as2.untidy.test" probably means "AS=as2.untidy.test:PORT"
}

// exampleDomain starts a name server and the Authentication Server of sender.test, where
// alices-key is the only valid key, on this machine.
func exampleDomain() (nameServer netip.AddrPort, end func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
	dns, err := testdns.Start()
	if err != nil {
		panic(err)
	}
	err = dns.Set(
		fmt.Sprintf(`sender.test. 300 IN TXT "AS=%s; req=yes"`, listener.Addr()),
		`other.test. 300 IN TXT "v=spf1 -all"`,
		`untidy.test. 300 IN TXT "AS=as.untidy.test:7425; pri=5; tls=yes"`,
		`untidy.test. 300 IN TXT "AS=as2.untidy.test"`)
	if err != nil {
		panic(err)
	}
	return netip.MustParseAddrPort(dns.Addr()), func() {
		listener.Close()
		dns.Close()
	}
}

// answer answers "VERIFY <seq> <address> <key>" until the verifier hangs up.
func answer(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		request := strings.Fields(lines.Text())
		verdict := "INVALIDKEY"
		if request[3] == "alices-key" {
			verdict = "VALIDKEY"
		}
		fmt.Fprintf(conn, "VERIFY_REPLY %s %s %s\r\n", request[1], request[2], verdict)
	}
}
