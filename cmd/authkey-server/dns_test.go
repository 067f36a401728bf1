package main

import (
	"encoding/json"
	"fmt"
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
			`unusable "AS=as.example.com": malformed AS record`, "verdict differs"}},
		{"a port that is refused", "listen: ['tcp:443']", []string{"AS=as.example.com:443"}, 0, []string{`published "AS=as.example.com:443"`,
			`note "AS=as.example.com:443": recipients do not go there unless they are told to: port 443 is below 1024 and not allowed`, "verdict as wanted"}},
		{"TLS", secure, []string{"AS=as.example.com:7426; tls=yes"}, 0, []string{`published "AS=as.example.com:7426; tls=yes"`, "verdict as wanted"}},
		{"clear text beside TLS", secure, []string{"AS=as.example.com:7426; tls=yes", "AS=as.example.com:7425"}, 1, []string{
			`published "AS=as.example.com:7426; tls=yes"`,
			`unusable "AS=as.example.com:7425": clear text, while another record of the domain says tls=yes`, "verdict differs"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, "host: as.example.com\n"+tt.config)
			server.Remove("example.com.", dns.TypeTXT)
			var records []string
			for _, text := range tt.published {
				records = append(records, fmt.Sprintf("example.com. 60 IN TXT %q", text))
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
			if (len(c.Missing)+len(c.Unexpected)+len(c.Unusable) > 0) != (tt.code == 1) {
				t.Errorf("JSON: %+v", c)
			}
		})
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
	try(0, "as wanted", `note       "AS=192.0.2.7:7425": recipients do not go there unless they are told to: address 192.0.2.7 is not globally reachable`)
	server.Behave("example.org.", testdns.Rcode(dns.RcodeServerFailure))
	try(75, "as wanted", "cannot be told")
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
