package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// resolverHost is an address on loopback where no resolver of the machine's own
// listens, and no other run of this test: resolv.conf cannot name a port.
func resolverHost() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
}

// freshPerStep is how many domains are asked about in each step.
const freshPerStep = 24

// TestResolvConf changes the resolv.conf of a milter without dns.servers, in a mount
// namespace where the file is a test's own, and restarts the resolver that it names.
func TestResolvConf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	firstResolver, secondResolver := resolverHost(), resolverHost()
	fresh := newDomains(t, w, 16*freshPerStep) // until takes some too
	conf := filepath.Join(w.Dir, "resolv.conf")
	var changes int
	name := func(content string) {
		t.Helper()
		must(t, os.WriteFile(conf, []byte(content), 0o644))
		// A change within the clock's tick and of the same size would not show.
		changes++
		when := time.Now().Add(time.Duration(changes) * time.Second)
		must(t, os.Chtimes(conf, when, when))
	}
	relay := func(host string) *udpRelay { return startUDPRelay(t, host+":53", w.DNS.Addr()) }

	milter, err := w.NewMilter(binary, "unix")
	must(t, err)
	milter.Args = append([]string{"--mount", "--propagation", "private",
		"sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, conf, milter.Path}, milter.Args...)
	milter.Path = "unshare"
	milter.Env = []string{"AUTHKEY_MILTER_DNS_SERVERS="}
	first := relay(firstResolver)
	name("# the first\nnameserver " + firstResolver + "\nsearch rcpt.test\n")
	must(t, milter.Configure(""))
	must(t, milter.StartListening(t.Context()))
	s := &stage{t: t, ctx: t.Context(), w: w, milter: milter, postfix: startFaultPostfix(t, milter.Socket)}
	s.load = newLoad(t, w, s.postfix.SMTPAddr(), loadClients, fresh)
	s.load.send(freshPerStep)
	if n := first.asked.Load(); n < freshPerStep {
		t.Fatalf("%d questions to the resolver of resolv.conf", n)
	}

	// Both resolvers are there: nobody notices.
	second := relay(secondResolver)
	name("nameserver " + secondResolver + "\n")
	until := func(r *udpRelay) {
		t.Helper()
		before := r.asked.Load()
		must(t, testdaemon.Poll(t.Context(), func() (bool, error) {
			s.load.send(1)
			return r.asked.Load() > before, nil
		}))
	}
	until(second)
	first.close()
	s.load.send(freshPerStep)

	// The resolver is restarted.
	s.load.disturb()
	second.close()
	s.load.send(freshPerStep / 2)
	second = relay(secondResolver)
	s.load.calm()
	s.load.send(freshPerStep)

	// It is gone, and the file names nobody; then the first one again.
	s.load.disturb()
	second.close()
	name("options timeout:1\n")
	s.load.send(freshPerStep / 2)
	first = relay(firstResolver)
	name(fmt.Sprintf("nameserver %s\nnameserver %s\n", firstResolver, secondResolver))
	until(first)
	s.load.calm()
	s.load.send(freshPerStep)

	met := 0
	for _, m := range s.load.reckon(s.postfix) {
		if m.unverified() {
			met++
		}
	}
	if met == 0 {
		t.Error("no message met a resolver that was gone")
	}
	s.end()
}
