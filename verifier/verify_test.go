package verifier

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/stubdns"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/wire"
)

// closedPort returns a port on loopback where nobody listens.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestVerify: what a domain publishes and a message carries, and what comes of it.
func TestVerify(t *testing.T) {
	as := startAS(t, nil, honest)
	notServed := startAS(t, nil, func(s *session) {
		for {
			req, ok := s.next()
			if !ok {
				return
			}
			s.say("ERROR %d notserved\r\n", req.Seq)
		}
	})
	gullible := startAS(t, nil, func(s *session) {
		for {
			req, ok := s.next()
			if !ok {
				return
			}
			s.answer(req, wire.ValidKey)
		}
	})
	refusing := fmt.Sprintf("AS=127.0.0.1:%d", closedPort(t))
	ns := startDNS(t,
		"plain.test. 300 IN TXT "+as.record(""),
		"plain.test. 300 IN TXT \"v=spf1 -all\"",
		"req.test. 300 IN TXT "+as.record("; req=yes"),
		`split.test. 300 IN TXT "AS=127.0.0.1:" "`+fmt.Sprint(as.port)+`" "; pri=1"`,
		"spf.test. 300 IN TXT \"v=spf1 -all\"",
		"addr.test. 300 IN A 192.0.2.1",
		"bad.test. 300 IN TXT \"AS=nowhere\"",
		"mixed.test. 300 IN TXT \"AS=nowhere\"",
		"mixed.test. 300 IN TXT "+as.record(""),
		"v2.test. 300 IN TXT \"AS=127.0.0.1:7425; v=2\"",
		"alias.test. 300 IN CNAME alias2.test.",
		"alias2.test. 300 IN CNAME plain.test.",
		"dangling.test. 300 IN CNAME nowhere.test.",
		"named.test. 300 IN TXT "+strings.Replace(as.record(""), "127.0.0.1", "as.test", 1),
		"as.test. 300 IN A 127.0.0.1",
		"hostfail.test. 300 IN TXT \"AS=broken.test:7425\"",
		"nohost.test. 300 IN TXT \"AS=nohost.example.test:7425\"",
		"noaddr.test. 300 IN TXT \"AS=spf.test:7425\"",
		"lowport.test. 300 IN TXT \"AS=127.0.0.1:25\"",
		"private.test. 300 IN TXT \"AS=10.0.0.1:7425\"",
		"private6.test. 300 IN TXT \"AS=[fd00::1]:7425\"",
		"privatename.test. 300 IN TXT \"AS=inside.test:7425\"",
		"inside.test. 300 IN A 192.168.1.1",
		"inside.test. 300 IN AAAA ::ffff:10.0.0.1",
		"refused.test. 300 IN TXT \""+refusing+"; req=yes\"",
		"notserved.test. 300 IN TXT "+notServed.record(""),
		"exhausted.test. 300 IN TXT "+notServed.record("; pri=2"),
		"exhausted.test. 300 IN TXT \""+refusing+"; pri=1\"",
		"permanent.test. 300 IN TXT "+notServed.record("; pri=1"),
		"permanent.test. 300 IN TXT \"AS=10.0.0.1:7425; pri=2\"",
		"failover.test. 300 IN TXT \""+refusing+"; pri=1\"",
		"failover.test. 300 IN TXT \"AS=10.0.0.1:7425; pri=2\"",
		"failover.test. 300 IN TXT "+notServed.record("; pri=3"),
		"failover.test. 300 IN TXT "+as.record("; pri=4"),
		"failover.test. 300 IN TXT "+gullible.record("; pri=5"),
	)
	ns.Behave("servfail.test", testdns.Rcode(dns.RcodeServerFailure))
	ns.Behave("silent.test", testdns.Silent())
	ns.Behave("broken.test", testdns.Rcode(dns.RcodeServerFailure))
	const none, bad = "", "two words"
	tests := []struct {
		domain, key string
		status      Status
		reason      Reason
		required    bool
	}{
		{"plain.test", "good", Pass, "", false},
		{"plain.test", "bogus", Fail, ReasonInvalidKey, false},
		{"plain.test", none, NoKey, "", false},
		{"plain.test", bad, Fail, ReasonBadKey, false},
		{"PLAIN.test", "good", Pass, "", false},
		{"req.test", "good", Pass, "", true},
		{"req.test", none, Fail, ReasonRequired, true},
		{"req.test", bad, Fail, ReasonBadKey, true},
		{"split.test", "good", Pass, "", false},
		{"spf.test", "good", None, ReasonNoAS, false},
		{"spf.test", none, None, ReasonNoAS, false},
		{"spf.test", bad, None, ReasonNoAS, false},
		{"addr.test", "good", None, ReasonNoAS, false},
		{"nxdomain.test", "good", None, ReasonNoAS, false},
		{"bad.test", "good", PermError, ReasonASRecord, false},
		{"bad.test", none, PermError, ReasonASRecord, false},
		{"bad.test", bad, Fail, ReasonBadKey, false},
		{"mixed.test", "good", Pass, "", false},
		{"v2.test", "good", None, ReasonNoAS, false},
		{"alias.test", "good", Pass, "", false},
		{"dangling.test", "good", None, ReasonNoAS, false},
		{"named.test", "good", Pass, "", false},
		{"nohost.test", "good", PermError, ReasonASNoHost, false},
		{"noaddr.test", "good", PermError, ReasonASNoHost, false},
		{"lowport.test", "good", PermError, ReasonASForbidden, false},
		{"lowport.test", none, NoKey, "", false},
		{"private.test", "good", PermError, ReasonASForbidden, false},
		{"private6.test", "good", PermError, ReasonASForbidden, false},
		{"privatename.test", "good", PermError, ReasonASForbidden, false},
		{"refused.test", "good", TempError, ReasonASRefused, true},
		{"notserved.test", "good", PermError, ReasonASNotServed, false},
		{"exhausted.test", "good", TempError, ReasonASRefused, false},
		{"permanent.test", "good", PermError, ReasonASForbidden, false},
		{"failover.test", "good", Pass, "", false},
		{"failover.test", "bogus", Fail, ReasonInvalidKey, false},
		{"servfail.test", "good", TempError, ReasonDNSFailure, false},
		{"servfail.test", none, TempError, ReasonDNSFailure, false},
		{"servfail.test", bad, TempError, ReasonDNSFailure, false},
		{"silent.test", "good", TempError, ReasonDNSTimeout, false},
		{"hostfail.test", "good", TempError, ReasonDNSFailure, false},
	}
	v := startVerifier(t, options(ns.Addr()))
	o := options(ns.Addr())
	o.DNSTimeout = soon
	hasty := startVerifier(t, o)
	for _, tt := range tests {
		t.Run(tt.domain+" "+tt.key, func(t *testing.T) {
			v := v
			if tt.reason == ReasonDNSTimeout {
				v = hasty
			}
			r := check(t, v, query(t, "u@"+tt.domain, tt.key), tt.status, tt.reason)
			if r.Required != tt.required && !r.Cached {
				t.Errorf("required is %v", r.Required)
			}
		})
	}
	if asked := gullible.asked.Load(); asked != 0 {
		t.Errorf("asked %d times after another server had given a verdict", asked)
	}
	if r := v.Verify(t.Context(), Query{}); r.Status != None || r.Reason != ReasonBadAddress {
		t.Errorf("no address: %+v", r)
	}
}

// TestNameServers: those of the options, or else of the system, are asked.
func TestNameServers(t *testing.T) {
	o := options("192.0.2.1:5353")
	if got := NameServers(o); !slices.Equal(got, o.Resolvers) {
		t.Errorf("configured %v, asked %v", o.Resolvers, got)
	}
	if len(NameServers(Options{})) == 0 {
		t.Error("the system has no name server")
	}
}

// TestRequireTLS: a clear-text AS is a permanent fault then, and no fall-back.
func TestRequireTLS(t *testing.T) {
	as := startAS(t, nil, honest)
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
	o := options(ns.Addr())
	o.RequireTLS = true
	check(t, startVerifier(t, o), query(t, "u@a.test", "good"), PermError, ReasonASClearText)
	if as.conns.Load() != 0 {
		t.Error("it was dialled")
	}
}

// TestOrder: lower pri first, equals take turns by chance.
func TestOrder(t *testing.T) {
	var servers [3]*authServer
	var lines []string
	for i := range servers {
		servers[i] = startAS(t, nil, honest)
		lines = append(lines, "a.test. 300 IN TXT "+servers[i].record([]string{"; pri=20", "", ""}[i]))
	}
	ns := startDNS(t, lines...)
	v := startVerifier(t, options(ns.Addr()))
	for i := range 60 {
		check(t, v, query(t, fmt.Sprintf("u%d@a.test", i), "good"), Pass, "")
	}
	if n := servers[0].asked.Load(); n != 0 {
		t.Errorf("the server of higher pri was asked %d times", n)
	}
	for _, s := range servers[1:] {
		if n := s.asked.Load(); n < 5 { // by chance: once in 10^10 runs
			t.Errorf("a server was asked %d times of 60", n)
		}
	}
}

// TestCached: a valid key is not asked about again, an invalid one is, and evicts
// nothing; a new valid one replaces the old.
func TestCached(t *testing.T) {
	as := startAS(t, nil, honest)
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
	o := options(ns.Addr())
	v := startVerifier(t, o)
	steps := []struct {
		key    string
		status Status
		cached bool
		asked  int64 // so far
	}{
		{"good1", Pass, false, 1},
		{"good1", Pass, true, 1},
		{"bogus", Fail, false, 2},
		{"bogus", Fail, false, 3},
		{"good1", Pass, true, 3},
		{"good2", Pass, false, 4},
		{"good2", Pass, true, 4},
		{"good1", Pass, false, 5},
	}
	for i, step := range steps {
		r := v.Verify(t.Context(), query(t, "u@a.test", step.key))
		if r.Status != step.status || r.Cached != step.cached || as.asked.Load() != step.asked {
			t.Errorf("step %d: %+v, asked %d times", i, r, as.asked.Load())
		}
		if r.Status == Pass && (r.TTL <= 0 || r.TTL > DefaultTTL) {
			t.Errorf("step %d: TTL %v", i, r.TTL)
		}
	}
	// The cache outlives the Verifier.
	next := startVerifier(t, o)
	if r := check(t, next, query(t, "u@a.test", "good1"), Pass, ""); !r.Cached {
		t.Error("the successor asked again")
	}
	if !o.Cache.Flush(address(t, "u@a.test")) || o.Cache.Flush(address(t, "u@a.test")) {
		t.Error("Flush forgets once")
	}
	if r := check(t, next, query(t, "u@a.test", "good1"), Pass, ""); r.Cached {
		t.Error("flushed and still known")
	}
}

// TestCachedOnly: Cached asks nobody and says nothing of what it does not know.
func TestCachedOnly(t *testing.T) {
	as := startAS(t, nil, honest)
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
	v := startVerifier(t, options(ns.Addr()))
	q := query(t, "u@a.test", "good")
	if _, ok := v.Cached(q); ok || ns.Queries("a.test", dns.TypeTXT).Total() != 0 {
		t.Error("known before it was asked about")
	}
	check(t, v, q, Pass, "")
	if r, ok := v.Cached(q); !ok || r.Status != Pass || !r.Cached || r.TTL <= 0 {
		t.Errorf("%+v %v", r, ok)
	}
	for _, q := range []Query{{}, query(t, "u@a.test", ""), query(t, "u@a.test", "two words"), query(t, "u@a.test", "good2"), query(t, "v@a.test", "good")} {
		if r, ok := v.Cached(q); ok || r != (Result{}) {
			t.Errorf("%v: %+v", q.Address, r)
		}
	}
}

func TestUnaddressable(t *testing.T) {
	for mailbox, want := range map[string]Result{
		"":                                    {Status: Skipped, Reason: ReasonNullSender},
		"postmaster":                          {Status: None, Reason: ReasonNoDomain},
		"u@[192.0.2.1]":                       {Status: None, Reason: ReasonDomainLiteral},
		"u@" + strings.Repeat("x", 64) + ".x": {Status: None, Reason: ReasonBadDomain},
		"@a.test":                             {Status: None, Reason: ReasonBadAddress},
	} {
		_, err := wire.ParseAddress(mailbox)
		if got := Unaddressable(err); got != want {
			t.Errorf("%q (%v): %+v, want %+v", mailbox, err, got, want)
		}
	}
}

// TestOneQuestion: the same key is asked about once at a time, and whoever leaves
// does not end it for the others.
func TestOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, release := 0, make(chan struct{})
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) {
			for r := bufio.NewReader(c); ; asked++ {
				text, err := r.ReadString('\n')
				if err != nil {
					return
				}
				<-release
				req, _ := wire.ParseRequest(strings.TrimSuffix(text, "\r\n"))
				fmt.Fprintf(c, "VERIFY_REPLY %d %s VALIDKEY\r\n", req.Seq, req.Address)
			}
		}}}
		v := inBubble(t, oneAS(), n, Options{})
		q := query(t, "u@a.test", "good")
		leaving, leave := context.WithCancel(t.Context())
		left := make(chan Result)
		go func() { left <- v.Verify(leaving, q) }()
		synctest.Wait() // the question is asked
		const others = 50
		results := make(chan Result, others)
		for range others {
			go func() { results <- v.Verify(context.Background(), q) }()
		}
		synctest.Wait() // all of them wait for the answer
		leave()
		if r := <-left; r.Status != TempError || r.Reason != ReasonCancelled {
			t.Errorf("the one who left: %+v", r)
		}
		close(release)
		for range others {
			if r := <-results; r.Status != Pass {
				t.Errorf("another: %+v", r)
			}
		}
		synctest.Wait()
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// TestPipelining: a thousand questions share two connections, and their replies
// come in any order.
func TestPipelining(t *testing.T) {
	const n = 1000
	as := startAS(t, nil, func(s *session) {
		lines := make(chan wire.Request, 2*n)
		go func() {
			defer close(lines)
			for {
				req, ok := s.next()
				if !ok {
					return
				}
				lines <- req
			}
		}()
		for first := range lines {
			batch := []wire.Request{first}
			for len(lines) > 0 {
				batch = append(batch, <-lines)
			}
			for i := len(batch) - 1; i >= 0; i-- {
				s.answer(batch[i], wire.ValidKey)
			}
		}
	})
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
	o := options(ns.Addr())
	o.Cache = NewCache(2 * n)
	v := startVerifier(t, o)
	// Without a key DNS alone is asked. Whoever finds nothing remembered just before the
	// answer comes would ask it once more.
	check(t, v, query(t, "u@a.test", ""), NoKey, "")
	var wg sync.WaitGroup
	for i := range n {
		q := query(t, fmt.Sprintf("u%d@a.test", i), "good")
		wg.Go(func() { check(t, v, q, Pass, "") })
	}
	wg.Wait()
	if c := as.conns.Load(); c > maxConns {
		t.Errorf("%d connections", c)
	}
	if asked, known, lookups := as.asked.Load(), v.cache.Len(), ns.Queries("a.test", dns.TypeTXT).Total(); asked != n || known != n || lookups != 1 {
		t.Errorf("%d questions, %d keys in the cache, %d lookups", asked, known, lookups)
	}
}

// TestStuckServersDoNotSlowOthers: messages of domains whose AS or DNS hangs leave
// the others alone.
func TestStuckServersDoNotSlowOthers(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	stuck, good := startAS(t, nil, func(*session) { <-release }), startAS(t, nil, honest)
	ns := startDNS(t, "stuck.test. 300 IN TXT "+stuck.record(""), "good.test. 300 IN TXT "+good.record(""))
	hung := startSilentDNS(t)
	o := options(ns.Addr())
	o.Resolvers = append(options(hung.Addr()).Resolvers, o.Resolvers...)
	o.Timeout, o.ReplyTimeout, o.DNSTimeout = 10*patience, 10*patience, 10*patience // they end when the test says so
	v := startVerifier(t, o)
	leaving, leave := context.WithCancel(t.Context())
	defer leave()
	check(t, v, query(t, "first@good.test", "good"), Pass, "") // learns who hangs
	const n = 300
	var wg sync.WaitGroup
	for i := range n {
		ns.Behave(fmt.Sprintf("d%d.lame.test", i), testdns.Silent())
		a, b := query(t, fmt.Sprintf("u%d@stuck.test", i), "good"), query(t, fmt.Sprintf("u@d%d.lame.test", i), "good")
		wg.Go(func() { v.Verify(context.Background(), a) })
		wg.Go(func() { v.Verify(leaving, b) })
	}
	eventually(t, "they hang", func() bool { return asked(v) > n && len(v.underway) == 2*n })
	for i := range 20 {
		check(t, v, query(t, fmt.Sprintf("u%d@good.test", i), "good"), Pass, "")
	}
	if now := len(v.underway); now != 2*n {
		t.Errorf("of %d that hang, only %d did so all the while", 2*n, now)
	}
	close(release)
	leave()
	wg.Wait()
	// By and by the stuck one is left alone.
	for range breakAfter {
		v.Verify(t.Context(), query(t, "again@stuck.test", "good"))
	}
	check(t, v, query(t, "again@stuck.test", "good"), TempError, ReasonASLeftAlone)
}

// TestDeadline: DNS, connecting and every AS share one deadline.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const dnsTime, timeout = 100 * time.Millisecond, 500 * time.Millisecond
		answer := stubdns.Answer{TTL: time.Hour}
		n := &network{script: make(map[string]func(net.Conn))}
		for i := range 6 {
			host := fmt.Sprintf("8.8.8.%d", i)
			answer.Texts = append(answer.Texts, fmt.Sprintf("AS=%s:7425; pri=%d", host, i))
			n.script[host] = mute
		}
		b := &book{texts: func(string) (stubdns.Answer, error) {
			time.Sleep(dnsTime)
			return answer, nil
		}}
		v := inBubble(t, b, n, Options{Timeout: timeout, ReplyTimeout: 150 * time.Millisecond})
		began := time.Now()
		r := check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASTimeout)
		if took := time.Since(began); took != timeout {
			t.Errorf("took %v", took)
		}
		if r.ASTime != timeout-dnsTime || r.DNSTime != dnsTime || len(n.dialed) != 3 {
			t.Errorf("DNS %v, AS %v, %d dials", r.DNSTime, r.ASTime, len(n.dialed))
		}
	})
}

// TestClose: what is under way is answered, what comes later is not.
func TestClose(t *testing.T) {
	asked := make(chan struct{})
	release := make(chan struct{})
	as := startAS(t, nil, func(s *session) {
		req, _ := s.next()
		close(asked)
		<-release
		s.answer(req, wire.ValidKey)
		hold(s)
	})
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
	v := New(options(ns.Addr()))
	result := make(chan Result)
	q := query(t, "u@a.test", "good")
	go func() { result <- v.Verify(context.Background(), q) }()
	<-asked
	closed := make(chan struct{})
	go func() { v.Close(); close(closed) }()
	eventually(t, "Close has begun", func() bool {
		v.life.mu.Lock()
		defer v.life.mu.Unlock()
		return v.life.closing
	})
	check(t, v, query(t, "late@a.test", "good"), TempError, ReasonCancelled)
	check(t, v, query(t, "late@a.test", ""), TempError, ReasonCancelled)
	close(release)
	if r := <-result; r.Status != Pass {
		t.Errorf("the question under way: %+v", r)
	}
	<-closed
	v.Close()
	if n := len(connections(v)); n != 0 {
		t.Errorf("%d connections are open", n)
	}
	if r := check(t, v, q, Pass, ""); !r.Cached { // memory needs no network
		t.Errorf("%+v", r)
	}
	v.Prefetch(address(t, "u@other.test"))
	if d := v.Discover(context.Background(), "a.test"); d.Err == nil {
		t.Error("Discover after Close")
	}
}

// TestOverload: more verifications than may be under way are refused at once.
func TestOverload(t *testing.T) {
	release := make(chan struct{})
	as := startAS(t, nil, func(s *session) {
		<-release
		honest(s)
	})
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
	v := startVerifier(t, options(ns.Addr()))
	v.underway = make(chan struct{}, 1)
	first := make(chan Result)
	q := query(t, "u@a.test", "good")
	go func() { first <- v.Verify(context.Background(), q) }()
	eventually(t, "the first is under way", func() bool { return asked(v) == 1 })
	if r := check(t, v, query(t, "v@a.test", "good"), TempError, ReasonOverload); r.Required {
		t.Error("required, though nothing says so")
	}
	close(release)
	if r := <-first; r.Status != Pass {
		t.Errorf("the first: %+v", r)
	}
}

func TestPrefetch(t *testing.T) {
	as := startAS(t, nil, honest)
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""), "b.test. 300 IN TXT "+as.record(""))
	v := startVerifier(t, options(ns.Addr()))
	v.Prefetch(wire.Address{})
	v.Prefetch(address(t, "u@a.test"))
	eventually(t, "the domain is known", func() bool { return v.records.domains.len() == 1 })
	check(t, v, query(t, "u@a.test", "good"), Pass, "")
	v.Prefetch(address(t, "other@a.test"))              // domain known
	check(t, v, query(t, "u@b.test", "good"), Pass, "") // key known
	v.records.domains.remove("b.test")                  // but not the domain:
	v.Prefetch(address(t, "u@b.test"))                  // nothing to fetch
	for _, domain := range []string{"a.test", "b.test"} {
		if n := ns.Queries(domain, dns.TypeTXT).Total(); n != 1 {
			t.Errorf("%s was looked up %d times", domain, n)
		}
	}
	// More than may be under way are not waited for.
	silent := startSilentDNS(t)
	o := options(silent.Addr())
	o.DNSTimeout = soon
	v = startVerifier(t, o)
	for i := range 2 * maxPrefetches {
		v.Prefetch(address(t, fmt.Sprintf("u@d%d.test", i)))
	}
	eventually(t, "they end", func() bool { return len(v.prefetches) == 0 })
	lookups := 0
	for i := range 2 * maxPrefetches {
		if silent.Queries(fmt.Sprintf("d%d.test", i), dns.TypeTXT).Total() > 0 {
			lookups++
		}
	}
	if lookups == 2*maxPrefetches || lookups < maxPrefetches/2 {
		t.Errorf("%d lookups", lookups)
	}
}

// Ask asks the server that it is given, and nobody else: not DNS, not the cache.
func TestAsk(t *testing.T) {
	as := startAS(t, nil, honest)
	busy := startAS(t, nil, func(s *session) {
		for req, ok := s.next(); ok; req, ok = s.next() {
			s.say("ERROR %d busy\r\n", req.Seq)
		}
	})
	at := func(port uint16) wire.Server { return wire.Server{Host: "127.0.0.1", Port: port} }
	ns := startDNS(t)
	v := startVerifier(t, options(ns.Addr()))
	for _, tc := range []struct {
		name   string
		server wire.Server
		query  Query
		status Status
		reason Reason
	}{
		{"valid", at(as.port), query(t, "bob@a.example", "good"), Pass, ""},
		{"again", at(as.port), query(t, "bob@a.example", "good"), Pass, ""},
		{"invalid", at(as.port), query(t, "bob@a.example", "bad"), Fail, ReasonInvalidKey},
		{"busy", at(busy.port), query(t, "bob@a.example", "good"), TempError, ReasonASBusy},
		{"refused", at(closedPort(t)), query(t, "bob@a.example", "good"), TempError, ReasonASRefused},
		{"forbidden", wire.Server{Host: "192.168.1.1", Port: 7425}, query(t, "bob@a.example", "good"), PermError, ReasonASForbidden},
		{"bad key", at(as.port), Query{Address: address(t, "bob@a.example"), Key: wire.JoinKeys("a b")}, Fail, ReasonBadKey},
		{"no key", at(as.port), Query{Address: address(t, "bob@a.example")}, NoKey, ""},
		{"no address", at(as.port), Query{}, None, ReasonBadAddress},
	} {
		got := v.Ask(context.Background(), tc.server, tc.query)
		if got.Status != tc.status || got.Reason != tc.reason || got.Cached {
			t.Errorf("%s: %+v, want %s %s", tc.name, got, tc.status, tc.reason)
		}
	}
	if n, m := ns.Queries("a.example", dns.TypeTXT).Total(), v.cache.Len(); n != 0 || m != 0 {
		t.Errorf("DNS was asked %d times, and %d keys are in the cache", n, m)
	}
	closed := New(Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	closed.Close()
	if got := closed.Ask(context.Background(), at(as.port), query(t, "bob@a.example", "good")); got.Status != TempError || got.Reason != ReasonCancelled {
		t.Errorf("closed: %+v", got)
	}
}
