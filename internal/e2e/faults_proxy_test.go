package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/testmta"
)

// toxiproxyVersion is built where it is missing, once for a user: a Go program whose
// libraries are no concern of this module.
const toxiproxyVersion = "v2.12.0"

// A toxiproxy is a running toxiproxy server: TCP proxies that can be made to behave
// badly.
type toxiproxy struct {
	t   *testing.T
	api string
}

func ensureToxiproxy(t *testing.T) (path string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	must(t, err)
	path = filepath.Join(cache, "authkey-test", "toxiproxy-"+toxiproxyVersion)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	bin, err := os.MkdirTemp(filepath.Dir(path), "build-")
	must(t, err)
	defer os.RemoveAll(bin)
	build := exec.CommandContext(t.Context(), "go", "install", "github.com/Shopify/toxiproxy/v2/cmd/server@"+toxiproxyVersion)
	build.Dir = bin // this module's go.mod has nothing to do with it
	build.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build toxiproxy: %v\n%s", err, out)
	}
	must(t, os.Rename(filepath.Join(bin, "server"), path))
	return path
}

func startToxiproxy(t *testing.T) *toxiproxy {
	t.Helper()
	path := ensureToxiproxy(t)
	port, err := testdaemon.FreePort()
	must(t, err)
	p := &toxiproxy{t: t, api: fmt.Sprintf("http://127.0.0.1:%d", port)}
	server, err := testdaemon.Start(exec.Command(path, "-host", "127.0.0.1", "-port", strconv.Itoa(port)), filepath.Join(t.TempDir(), "log"), "")
	must(t, err)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := server.Stop(); err != nil {
			t.Errorf("stop toxiproxy: %v", err)
		}
	})
	must(t, server.Ready(t.Context(), func() bool {
		resp, err := http.Get(p.api + "/version")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}))
	return p
}

// call makes one call of the HTTP API.
func (p *toxiproxy) call(path string, body any) {
	p.t.Helper()
	b, err := json.Marshal(body)
	must(p.t, err)
	resp, err := http.Post(p.api+path, "application/json", bytes.NewReader(b))
	must(p.t, err)
	defer resp.Body.Close()
	if said, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode/100 != 2 {
		p.t.Fatalf("toxiproxy %s: %s: %s %v", path, resp.Status, said, err)
	}
}

// proxy makes a proxy on a port of 127.0.0.1.
func (p *toxiproxy) proxy(name string, port int, upstream string) {
	p.t.Helper()
	p.call("/proxies", map[string]any{"name": name, "listen": fmt.Sprintf("127.0.0.1:%d", port), "upstream": upstream, "enabled": true})
}

// poison lets a proxy misbehave, reset makes all of them behave again.
func (p *toxiproxy) poison(proxy string, x toxic) {
	p.t.Helper()
	if x.kind == "down" {
		p.call("/proxies/"+proxy, map[string]any{"enabled": false})
		return
	}
	for _, stream := range []string{"upstream", "downstream"} {
		p.call("/proxies/"+proxy+"/toxics", map[string]any{"name": stream, "type": x.kind, "stream": stream,
			"toxicity": 1, "attributes": x.attributes})
	}
}

func (p *toxiproxy) reset() {
	p.t.Helper()
	p.call("/reset", nil)
}

// A toxic is one way to misbehave, in both directions.
type toxic struct {
	name       string
	kind       string // toxiproxy's; "down" refuses connections
	attributes map[string]int
	// steady: it is slow, and still in time. harsh: some message must be seen to fail.
	steady, harsh bool
}

var toxics = []toxic{
	{name: "latency", kind: "latency", attributes: map[string]int{"latency": 50, "jitter": 20}, steady: true},
	{name: "slices", kind: "slicer", attributes: map[string]int{"average_size": 3, "size_variation": 2, "delay": 500}, steady: true},
	{name: "slowly", kind: "latency", attributes: map[string]int{"latency": 10_000}, harsh: true},
	{name: "narrow", kind: "bandwidth", attributes: map[string]int{"rate": 1}},
	{name: "reset", kind: "reset_peer", attributes: map[string]int{"timeout": 0}, harsh: true},
	{name: "reset-late", kind: "reset_peer", attributes: map[string]int{"timeout": 30}},
	{name: "half", kind: "limit_data", attributes: map[string]int{"bytes": 21}, harsh: true},
	{name: "silent", kind: "timeout", attributes: map[string]int{"timeout": 0}, harsh: true},
	{name: "down", kind: "down", harsh: true},
}

// TestToxiproxy puts toxiproxy between the milter and the AS, and between another
// milter and DNS.
func TestToxiproxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxies := startToxiproxy(t)
	milters := make(map[string]*lab.Milter)
	for _, name := range []string{"as", "dns"} {
		var err error
		milters[name], err = w.NewMilter(binary, "unix")
		must(t, err)
	}
	// What toxics hold back for ever, or for 10 s, comes too late; what is only slow
	// takes a tenth of a second.
	milters["as"].Env = []string{"AUTHKEY_MILTER_VERIFY_REPLY_TIMEOUT=5s", "AUTHKEY_MILTER_VERIFY_CONNECT_TIMEOUT=5s"}
	milters["dns"].Env = []string{"AUTHKEY_MILTER_DNS_TIMEOUT=3s"}
	postfix := startFaultPostfix(t, milters["as"].Socket,
		testmta.Listener{Name: "dns", Options: []string{"smtpd_milters=" + milters["dns"].Socket}})

	as := &stage{t: t, ctx: t.Context(), w: w, milter: milters["as"], postfix: postfix}
	opened := as.poisonedServers(proxies)
	(&stage{t: t, ctx: t.Context(), w: w, milter: milters["dns"], postfix: postfix}).poisonedDNS(proxies)
	as.recovered(opened)
}

// asPause is for how long the milter leaves a failing AS alone at first.
const asPause = 30 * time.Second

// poisonedServers gives every toxic an AS of its own, and returns when they have
// all failed and recovered; the milter then leaves those alone which failed too
// often.
func (s *stage) poisonedServers(proxies *toxiproxy) (since time.Time) {
	t, w := s.t, s.w
	var kinds []letterKind
	names := func(x toxic) (domain, requiring string) {
		return x.name + ".proxied.test", "req." + x.name + ".proxied.test"
	}
	for _, x := range toxics {
		domain, requiring := names(x)
		must(t, w.AddDomain(domain, "alice"))
		must(t, w.AddDomain(requiring, "alice"))
		port, _, err := w.ServeAS(domain, requiring)
		must(t, err)
		proxy, err := testdaemon.FreePort()
		must(t, err)
		proxies.proxy(x.name, proxy, fmt.Sprintf("127.0.0.1:%d", port))
		must(t, w.Publish(domain, lab.ASRecord(proxy)))
		must(t, w.Publish(requiring, lab.ASRecord(proxy, "req=yes")))
		for _, kind := range append(ofDomain(domain), ofDomain(requiring)...) {
			kind.steady = x.steady
			kind.deferred = strings.HasSuffix(kind.oneOfEach.from, "@"+requiring)
			kinds = append(kinds, kind)
		}
	}
	// Nothing is to come from the cache of keys.
	must(t, s.milter.Configure("cache: {max_ttl: 1ns}\n"))
	must(t, s.milter.StartListening(s.ctx))
	s.load = newLoad(t, w, s.postfix.SMTPAddr(), 2*len(toxics), kinds)
	s.load.send(len(kinds))
	s.load.disturb()
	for _, x := range toxics {
		proxies.poison(x.name, x)
	}
	s.load.send(6 * len(kinds))
	since = time.Now()
	proxies.reset()
	return since
}

// recovered waits until the milter asks every AS again, and then expects every
// message to be verified.
func (s *stage) recovered(since time.Time) {
	must(s.t, testdaemon.Poll(s.ctx, func() (bool, error) { return time.Since(since) > asPause, nil }))
	s.load.send(len(s.load.kinds))
	s.load.calm()
	s.load.send(2 * len(s.load.kinds))
	met := make(map[string]int)
	for _, m := range s.load.reckon(s.postfix) {
		if m.unverified() {
			met[strings.TrimPrefix(strings.TrimPrefix(m.mail.from, "alice@"), "req.")]++
		}
	}
	for _, x := range toxics {
		if n := met[x.name+".proxied.test"]; x.harsh && n == 0 || x.steady && n > 0 {
			s.t.Errorf("%s: %d messages met it", x.name, n)
		}
	}
	s.end()
}

// freshPerToxic is how many domains are asked about under one toxic.
const freshPerToxic = 36

// poisonedDNS has DNS answer over TCP only, through a proxy: UDP, which toxiproxy
// does not know, goes past it and is always told to come again over TCP.
func (s *stage) poisonedDNS(proxies *toxiproxy) {
	t, w := s.t, s.w
	fresh := newDomains(t, w, freshPerToxic*(2*len(toxics)+1))
	port, err := testdaemon.FreePort()
	must(t, err)
	proxies.proxy("dns", port, w.DNS.Addr())
	startUDPRelay(t, fmt.Sprintf("127.0.0.1:%d", port), w.DNS.Addr())
	w.DNS.Behave("*", testdns.Truncated())
	defer w.DNS.Behave("*")
	s.milter.Env = append(s.milter.Env, fmt.Sprintf("AUTHKEY_MILTER_DNS_SERVERS=127.0.0.1:%d", port))
	must(t, s.milter.Configure(""))
	must(t, s.milter.StartListening(s.ctx))
	s.load = newLoad(t, w, s.postfix.Listener("dns"), 12, fresh)
	s.load.send(freshPerToxic)
	for _, x := range toxics {
		if !x.steady {
			s.load.disturb()
		}
		proxies.poison("dns", x)
		s.load.send(freshPerToxic)
		proxies.reset()
		if !x.steady {
			s.load.calm()
		}
		s.load.send(freshPerToxic)
	}
	met := make(map[int]int) // by the number of the send
	for i, m := range s.load.reckon(s.postfix) {
		if m.unverified() {
			met[i/freshPerToxic]++
		}
	}
	for i, x := range toxics {
		if n := met[2*i+1]; x.harsh && n == 0 || x.steady && n > 0 {
			t.Errorf("%s between the milter and DNS: %d messages met it", x.name, n)
		}
	}
	s.end()
}

// newDomains makes so many domains with one AS, and a message from each, with the
// right key and with a wrong one in turns: DNS has to be asked for every one.
func newDomains(t *testing.T, w *lab.World, n int) []letterKind {
	t.Helper()
	var names []string
	for i := range n {
		name := fmt.Sprintf("d%d.fresh.test", i)
		must(t, w.AddDomain(name, "alice"))
		names = append(names, name)
	}
	port, _, err := w.ServeAS(names...)
	must(t, err)
	var kinds []letterKind
	for i, name := range names {
		must(t, w.Publish(name, lab.ASRecord(port)))
		kinds = append(kinds, ofDomain(name)[i%2])
	}
	return kinds
}

// A udpRelay passes questions from an address of its own on to a DNS server.
type udpRelay struct {
	asked atomic.Int64
	close func()
}

const relayPatience = 3 * time.Second

func startUDPRelay(t *testing.T, listen, upstream string) *udpRelay {
	t.Helper()
	pc, err := net.ListenPacket("udp", listen)
	must(t, err)
	r := new(udpRelay)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			question := make([]byte, 4096)
			n, from, err := pc.ReadFrom(question)
			if err != nil {
				return
			}
			r.asked.Add(1)
			all.Go(func() {
				up, err := net.DialTimeout("udp", upstream, relayPatience)
				if err != nil {
					return
				}
				defer up.Close()
				_ = up.SetDeadline(time.Now().Add(relayPatience))
				if _, err := up.Write(question[:n]); err != nil {
					return
				}
				answer := make([]byte, 4096)
				if n, err := up.Read(answer); err == nil {
					_, _ = pc.WriteTo(answer[:n], from) // who asked may be gone
				}
			})
		}
	})
	r.close = sync.OnceFunc(func() {
		_ = pc.Close()
		all.Wait()
	})
	t.Cleanup(r.close)
	return r
}
