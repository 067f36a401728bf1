package testdns

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/testdaemon"
)

// Resolver is a running dnsmasq or unbound.
type Resolver struct {
	*testdaemon.Daemon
	addr string
}

// TXT is a TXT record for dnsmasq to answer with.
type TXT struct {
	Name    string
	Strings []string // each up to 255 bytes, raw
}

// EnsureDnsmasq installs Debian's dnsmasq-base, the program without the service,
// where dnsmasq is missing; it tells logf before. It returns
// testdaemon.ErrNotInstalled where it cannot.
func EnsureDnsmasq(ctx context.Context, logf testdaemon.Logf) error {
	return testdaemon.Ensure(ctx, logf, "dnsmasq", testdaemon.Installation{Packages: []string{"dnsmasq-base"}})
}

// EnsureUnbound installs Debian's unbound where it is missing; it tells logf
// before. It returns testdaemon.ErrNotInstalled where it cannot, and under
// systemd, where the package would become a resolver of the machine.
func EnsureUnbound(ctx context.Context, logf testdaemon.Logf) error {
	return testdaemon.Ensure(ctx, logf, "unbound", testdaemon.Installation{Packages: []string{"unbound"}, Service: true})
}

// StartDnsmasq starts a dnsmasq that answers with the zone's records and refuses
// all else, unless further lines of its configuration say otherwise, such as
// "server=127.0.0.1#5300" (ask there). It returns when dnsmasq answers.
func StartDnsmasq(ctx context.Context, zone []TXT, config ...string) (*Resolver, error) {
	return start(ctx, "dnsmasq", func(dir string, port int) (string, []string) {
		lines := []string{
			"port=" + strconv.Itoa(port), "listen-address=127.0.0.1", "bind-interfaces",
			"no-resolv", "no-hosts", "no-poll", "user=root", "pid-file",
			"log-queries", "log-facility=-",
		}
		for _, txt := range zone {
			line := "txt-record=" + strings.TrimSuffix(txt.Name, ".")
			for _, s := range txt.Strings {
				line += `,"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
			}
			lines = append(lines, line)
		}
		conf := filepath.Join(dir, "dnsmasq.conf")
		return strings.Join(append(lines, config...), "\n") + "\n", []string{"-k", "-C", conf}
	})
}

// UnboundOptions say where a private unbound has its answers from.
type UnboundOptions struct {
	// Forward is "host:port" of a server to ask; empty asks nobody.
	Forward string
	// LocalData are records in zone-file syntax which unbound answers itself.
	LocalData []string
	// Config are further lines for the section "server:".
	Config []string
}

// StartUnbound starts an unbound without DNSSEC validation and returns when it
// answers.
func StartUnbound(ctx context.Context, options UnboundOptions) (*Resolver, error) {
	forward := ""
	if options.Forward != "" {
		host, port, err := net.SplitHostPort(options.Forward)
		if err != nil {
			return nil, fmt.Errorf("start unbound: forward to %q: %w", options.Forward, err)
		}
		forward = "forward-zone:\n  name: \".\"\n  forward-addr: " + host + "@" + port + "\n"
	}
	return start(ctx, "unbound", func(dir string, port int) (string, []string) {
		lines := []string{
			"server:", `username: ""`, `chroot: ""`, `directory: "` + dir + `"`, `pidfile: ""`,
			"interface: 127.0.0.1@" + strconv.Itoa(port), "access-control: 127.0.0.0/8 allow",
			"do-ip6: no", "do-not-query-localhost: no", "num-threads: 1", "use-syslog: no", `logfile: ""`,
			`module-config: "iterator"`,
			// Names for tests (RFC 6761) are ordinary ones here.
			`local-zone: "test." nodefault`, `local-zone: "invalid." nodefault`,
		}
		for _, rr := range options.LocalData {
			lines = append(lines, "local-data: '"+rr+"'")
		}
		lines = append(lines, options.Config...)
		lines = append(lines, "remote-control:", "control-enable: no")
		conf := filepath.Join(dir, "unbound.conf")
		return strings.Join(lines, "\n") + "\n" + forward, []string{"-d", "-p", "-c", conf}
	})
}

// start writes the configuration to dir/program.conf, starts the program and
// waits until it answers.
func start(ctx context.Context, program string, configure func(dir string, port int) (conf string, args []string)) (*Resolver, error) {
	port, err := testdaemon.FreePort()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	r := &Resolver{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	r.Daemon, err = testdaemon.StartDaemon(ctx, program, func(dir string) ([]string, error) {
		conf, args := configure(dir, port)
		return args, os.WriteFile(filepath.Join(dir, program+".conf"), []byte(conf), 0o644)
	}, r.answers)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Resolver) answers() bool {
	query := new(dns.Msg)
	query.SetQuestion("ready.invalid.", dns.TypeA)
	query.RecursionDesired = false // nobody else is asked for it
	client := dns.Client{Timeout: time.Second}
	_, _, err := client.Exchange(query, r.addr)
	return err == nil
}

// Addr is "127.0.0.1:port".
func (r *Resolver) Addr() string { return r.addr }
