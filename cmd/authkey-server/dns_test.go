package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/wire"
)

// The comparison of what is wanted with what a real DNS server says.
func TestDNS(t *testing.T) {
	server, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	const plain, secure = `listen: ["tcp:7425", "tcp:127.0.0.1:7425"]`, "listen: ['tcp:7425', 'tls:7426']\ntls: {cert: /c, key: /k}"
	tests := []struct {
		name, config string
		published    []string // nil: no such name
		code         int
		want         []string // lines, blanks collapsed, but for domain and wanted
	}{
		{"as wanted", plain, []string{"AS=as.example.com:7425"}, 0, []string{`published "AS=as.example.com:7425"`, "verdict as wanted"}},
		{"in other words", plain, []string{"as=AS.Example.COM:7425;req=yes ; pri=20; x=y", "v=spf1 -all"}, 0,
			[]string{`published "AS=as.example.com:7425; pri=20; req=yes"`, "verdict as wanted"}},
		{"with other servers", plain, []string{"AS=as.example.com:7425", "AS=as2.example.net:7425"}, 0,
			[]string{`published "AS=as.example.com:7425"`, `other "AS=as2.example.net:7425": another server`, "verdict as wanted"}},
		{"nothing", plain, nil, 1, []string{`missing "AS=as.example.com:7425"`, "verdict differs"}},
		{"only SPF", plain, []string{"v=spf1 -all"}, 1, []string{`missing "AS=as.example.com:7425"`, "verdict differs"}},
		{"another port", plain, []string{"AS=as.example.com:7424"}, 1, []string{`missing "AS=as.example.com:7425"`,
			`unexpected "AS=as.example.com:7424": this server does not listen so`, "verdict differs"}},
		{"TLS that is not there", plain, []string{"AS=as.example.com:7425; tls=yes"}, 1, []string{`missing "AS=as.example.com:7425"`,
			`unexpected "AS=as.example.com:7425; tls=yes": this server does not listen so`, "verdict differs"}},
		{"malformed", plain, []string{"AS=as.example.com:7425", "AS=as.example.com"}, 1, []string{`published "AS=as.example.com:7425"`,
			`unusable "AS=as.example.com": malformed AS record`,
			`near miss "AS=as.example.com" looks like an AS record, but there is no port; right would be "AS=as.example.com:PORT"`, "verdict differs"}},
		{"near miss", plain, []string{"AS=as.example.com:7425", "\u201cAS = as.example.com:7425; tls=yes\u201d"}, 1, []string{`published "AS=as.example.com:7425"`,
			"near miss \"\u201cAS = as.example.com:7425; tls=yes\u201d\"" + ` looks like an AS record, but there are quotation marks in it (U+201C); ` +
				`there are quotation marks in it (U+201D); there is a blank beside the = of AS=; right would be "AS=as.example.com:7425; tls=yes"`, "verdict differs"}},
		{"a name without address", "host: none.example.com\n" + plain, []string{"AS=none.example.com:7425"}, 1, []string{`published "AS=none.example.com:7425"`,
			`leads to "AS=none.example.com:7425": the name has no address`, "verdict published, but a server cannot be reached"}},
		{"a name that DNS fails for", "host: lame.example.com\n" + plain, []string{"AS=lame.example.com:7425"}, 75, []string{`published "AS=lame.example.com:7425"`,
			"verdict unknown: DNS fails for the name of a server"}},
		{"a private address", "host: private.example.com\n" + plain, []string{"AS=private.example.com:7425"}, 0, []string{`published "AS=private.example.com:7425"`,
			`note "AS=private.example.com:7425": recipients do not connect there by default: address 10.0.0.1 is not globally reachable`,
			`leads to "AS=private.example.com:7425": 10.0.0.1, not used: address 10.0.0.1 is not globally reachable`,
			"verdict as wanted, but recipients do not connect there by default"}},
		{"another server's name without address", plain, []string{"AS=as.example.com:7425", "AS=none.example.com:7425"}, 1, []string{`published "AS=as.example.com:7425"`,
			`other "AS=none.example.com:7425": another server`, `leads to "AS=none.example.com:7425": the name has no address`,
			"verdict published, but a server cannot be reached"}},
		{"a port that is refused", "listen: ['tcp:443']", []string{"AS=as.example.com:443"}, 0, []string{`published "AS=as.example.com:443"`,
			`note "AS=as.example.com:443": recipients do not connect there by default: port 443 is below 1024 and not allowed`,
			"verdict as wanted, but recipients do not connect there by default"}},
		{"TLS", secure, []string{"AS=as.example.com:7426; tls=yes"}, 0, []string{`published "AS=as.example.com:7426; tls=yes"`, "verdict as wanted"}},
		{"clear text beside TLS", secure, []string{"AS=as.example.com:7426; tls=yes", "AS=as.example.com:7425"}, 1, []string{
			`published "AS=as.example.com:7426; tls=yes"`,
			`unusable "AS=as.example.com:7425": clear text, while another record of the domain says tls=yes`, "verdict differs"}},
	}
	if err := server.Set("as.example.com. 60 IN A 9.9.9.9", "as2.example.net. 60 IN A 9.9.9.9", "private.example.com. 60 IN A 10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	server.Behave("lame.example.com.", testdns.Rcode(dns.RcodeServerFailure))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := tt.config
			if !strings.HasPrefix(config, "host:") {
				config = "host: as.example.com\n" + config
			}
			p := newPlace(t, config)
			server.Remove("example.com.", dns.TypeTXT)
			var records []string
			for _, text := range tt.published {
				records = append(records, "example.com. 60 IN TXT "+presentation(text))
			}
			if err := server.Set(records...); err != nil {
				t.Fatal(err)
			}
			args := []string{"dns", "--config", p.config, "--resolver", server.Addr(), "EXAMPLE.com"}
			code, out, errOut := run(t, "", args...)
			if code != tt.code || errOut != "" {
				t.Errorf("exit %d, want %d\n%s", code, tt.code, errOut)
			}
			var got []string
			for line := range strings.Lines(out) {
				line = strings.Join(strings.Fields(line), " ")
				if strings.HasSuffix(line, ": 9.9.9.9") || strings.HasPrefix(line, "leads to") && strings.Contains(line, "gave a usable answer") {
					continue
				}
				if before, _, ok := strings.Cut(line, wire.ErrMalformed.Error()); ok { // why is package wire's to say
					line = before + wire.ErrMalformed.Error()
				}
				if !strings.HasPrefix(line, "domain ") && !strings.HasPrefix(line, "wanted ") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			code, out, _ = run(t, "", append(args, "--json")...)
			var c comparison
			if err := json.Unmarshal([]byte(out), &c); err != nil || code != tt.code || c.Domain != "example.com" || c.Resolver != server.Addr() {
				t.Errorf("JSON: exit %d, %v, %+v", code, err, c)
			}
			reached := !strings.Contains(c.Verdict, "cannot be reached")
			if (len(c.Missing)+len(c.Unexpected)+len(c.Unusable)+len(c.Misses) > 0 || !reached) != (tt.code == 1) {
				t.Errorf("JSON: %+v", c)
			}
		})
	}
}

// presentation is a text as a zone file has it.
func presentation(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, "\\%03d", c)
		} else {
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}

// With --connect the published servers are connected to, wherever they are: they are
// the caller's own. Others' are only where recipients go.
func TestDNSConnect(t *testing.T) {
	server, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if err := server.Set("as.example.com. 60 IN A 127.0.0.1", "other.example.net. 60 IN A 127.0.0.1",
		fmt.Sprintf(`example.com. 60 IN TXT "AS=as.example.com:%d"`, port), fmt.Sprintf(`example.com. 60 IN TXT "AS=other.example.net:%d"`, port)); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, fmt.Sprintf("host: as.example.com\nlisten: ['tcp:%d']", port))
	args := []string{"dns", "--config", p.config, "--resolver", server.Addr(), "--connect", "example.com"}
	connected := fmt.Sprintf(`leads to   "AS=as.example.com:%d": 127.0.0.1, not used: address 127.0.0.1 is not globally reachable, connected in `, port)
	code, out, errOut := run(t, "", args...)
	if code != 0 || !strings.Contains(out, connected) || !strings.Contains(out, "as wanted, but recipients do not connect there") || strings.Count(out, "connected in") != 1 {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	ln.Close()
	code, out, errOut = run(t, "", args...)
	if code != 1 || !strings.Contains(out, "no connection: connect to as.example.com") || !strings.Contains(out, "a server cannot be reached") {
		t.Errorf("nobody listens: exit %d\n%s%s", code, out, errOut)
	}
}

// The worst of several domains decides, and the wanted lines are a zone's.
func TestDNSOfAllDomains(t *testing.T) {
	server, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p := newPlace(t, "")
	args := []string{"dns", "--config", p.config, "--resolver", server.Addr(), "--host", "192.0.2.7"}
	try := func(want int, parts ...string) {
		t.Helper()
		code, out, errOut := run(t, "", args...)
		if code != want {
			t.Errorf("exit %d, want %d\n%s%s", code, want, out, errOut)
		}
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("no %q in\n%s", part, out)
			}
		}
	}
	const com, org = `example.com. 3600 IN TXT "AS=192.0.2.7:7425"`, `example.org. 3600 IN TXT "AS=192.0.2.7:7425"`
	try(1, "wanted     "+com+"\n", "wanted     "+org+"\n", "differs")
	if err := server.Set(com); err != nil {
		t.Fatal(err)
	}
	try(1, "as wanted", "differs")
	if err := server.Set(org); err != nil { // what wanted says is what a zone takes
		t.Fatal(err)
	}
	try(0, "as wanted", `note       "AS=192.0.2.7:7425": recipients do not connect there by default: address 192.0.2.7 is not globally reachable`)
	server.Behave("example.org.", testdns.Rcode(dns.RcodeServerFailure))
	try(75, "as wanted", "verdict    unknown: ")
	server.Behave("example.org.", testdns.Rcode(dns.RcodeSuccess))
}

func TestHostName(t *testing.T) {
	p := newPlace(t, "host: 2001:DB8::1")
	_, out, _ := run(t, "", "dns", "--config", p.config, "--resolver", "127.0.0.1:1", "example.com")
	if want := `wanted     example.com. 3600 IN TXT "AS=[2001:db8::1]:7425"`; !strings.Contains(out, want) {
		t.Errorf("no %s in\n%s", want, out)
	}
	if machineName() == "" { // as in most containers
		p.write(t, "")
		code, _, errOut := run(t, "", "dns", "--config", p.config, "--resolver", "127.0.0.1:1")
		if code != 78 || !strings.Contains(errOut, "Set host in the configuration, or --host") {
			t.Errorf("exit %d, %s", code, errOut)
		}
	}
}
