package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/testmta"
)

// TestReload changes the configuration of a milter in use: a good one takes its
// place, a bad one is logged and changes nothing, and the cache survives both.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	milter := startMilter(t, w, "policy: {nokey: accept}\n")
	mta := startMTA(t, mtas[0].start, milter.Socket)
	c := dialSMTP(t, mta)
	withKey := func() *mail {
		return &mail{from: "alice@" + withAS, fields: "X-Auth-Key: " + mustKey(t, w, "alice@"+withAS) + "\r\n"}
	}
	reply := func(m *mail) int { return sendMail(t, c, m).Final.Code }
	if code := reply(withKey()); code != 250 {
		t.Fatalf("with a key: %d", code)
	}
	if code := reply(&mail{from: "alice@" + withAS}); code != 250 {
		t.Fatalf("without a key: %d, want 250", code)
	}
	configure := func(more, logged string) {
		t.Helper()
		before := len(milter.Log())
		must(t, os.WriteFile(milter.Config, []byte(w.MilterConfig(milter.Socket)+more), 0o644))
		must(t, milter.Signal(syscall.SIGHUP))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		must(t, testdaemon.Poll(ctx, func() (bool, error) { return strings.Contains(milter.Log()[before:], logged), nil }))
	}
	configure("policy: {nokey: reject}\n", "configuration in force")
	if code := reply(&mail{from: "alice@" + withAS}); code != 550 {
		t.Errorf("after the reload: %d, want 550", code)
	}
	configure("policy: {nokey: perhaps}\nverify: {timeout: 300}\n", "configuration not reloaded")
	if code := reply(&mail{from: "alice@" + withAS}); code != 550 {
		t.Errorf("after the bad one: %d, want 550 as before", code)
	}
	if code := reply(withKey()); code != 250 {
		t.Errorf("with a key: %d, want 250", code)
	}
	if _, err := milter.WaitLog(t.Context(), "result=pass", "cached=true"); err != nil {
		t.Errorf("the cache did not survive: %v", err)
	}
}

// TestStop ends the milter while a message waits for its AS.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"answered in time", "not answered"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			release := make(chan struct{})
			milter, err := w.NewMilter(binary, "unix")
			must(t, err)
			if kind == "answered in time" {
				w.DNS.Behave(withAS, testdns.Late(release))
			} else {
				w.DNS.Behave(withAS, testdns.Silent())
				milter.Env = []string{"AUTHKEY_MILTER_DNS_TIMEOUT=1s"} // much less than there is for the end
			}
			must(t, milter.Configure("policy: {nokey: accept, temperror: accept}\n"))
			must(t, milter.StartListening(t.Context()))
			mta := startMTA(t, mtas[0].start, milter.Socket)
			c := dialSMTP(t, mta)
			m := &mail{from: "alice@" + withAS}
			answer := make(chan testmta.Outcome, 1)
			go func() {
				out, err := c.Send(m.transaction())
				if err != nil {
					t.Error(err)
				}
				answer <- out
			}()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			must(t, w.DNS.WaitQueries(ctx, withAS, 16 /* TXT */, 1))
			must(t, milter.Signal(syscall.SIGTERM))
			_, err = milter.WaitLog(ctx, "msg=stopping")
			must(t, err)
			close(release)
			if out := <-answer; out.Final.Code != 250 {
				t.Errorf("the message in flight: %d %s", out.Final.Code, out.Final.Text)
			}
			if err := milter.Stop(patience); err != nil {
				t.Errorf("it did not end well: %v\n%s", err, milter.Log())
			}
			if _, err := os.Stat(strings.TrimPrefix(milter.Socket, "unix:")); !os.IsNotExist(err) {
				t.Errorf("the socket is left behind: %v", err)
			}
			// With the milter away, milter_default_action decides: nothing passes.
			late := dialSMTP(t, mta)
			if out := sendMail(t, late, &mail{from: "alice@" + withAS}); out.Final.Code/100 != 4 {
				t.Errorf("without a milter: %d %s, want 4xx", out.Final.Code, out.Final.Text)
			}
		})
	}
}

// TestKilled leaves a stale socket, which the next start replaces; while the
// milter runs, a second one must not take its socket.
func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	milter := startMilter(t, w, "")
	out, err := exec.Command(binary, "serve", "--config", milter.Config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another process listens there") {
		t.Errorf("a second milter on the same socket: %v\n%s", err, out)
	}
	must(t, milter.Signal(syscall.SIGKILL))
	<-milter.Done()
	socket := strings.TrimPrefix(milter.Socket, "unix:")
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("no stale socket to test with: %v", err)
	}
	again := &lab.Program{Name: milter.Name, Path: milter.Path, Args: milter.Args, LogFile: milter.LogFile + ".2"}
	must(t, again.Start())
	defer func() { must(t, again.Stop(patience)) }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = again.WaitLog(ctx, "msg=listening")
	must(t, err)
	c, err := net.Dial("unix", socket)
	must(t, err)
	_ = c.Close()
}

// TestInetSocket runs the milter on TCP.
func TestInetSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	milter, err := w.StartMilter(ctx, binary, "inet", "log: {format: json}\n")
	must(t, err)
	mta := startMTA(t, mtas[0].start, milter.Socket)
	m := &mail{from: "alice@" + withAS, fields: "X-Auth-Key: " + mustKey(t, w, "alice@"+withAS) + "\r\n"}
	sendMail(t, dialSMTP(t, mta), m)
	checkContent(t, delivered(t, mta, m), m, m.fields)
	_, err = milter.WaitLog(ctx, `"msg":"message"`, `"result":"pass"`, `"action":"accept"`, `"removed":1`)
	must(t, err)
}

// TestRealResolvers has dnsmasq and unbound answer for the records.
func TestRealResolvers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _, err := w.ServeAS(withAS)
	must(t, err)
	must(t, testdns.EnsureDnsmasq(t.Context(), t.Logf))
	must(t, testdns.EnsureUnbound(t.Context(), t.Logf))
	dnsmasq, err := testdns.StartDnsmasq(t.Context(), []testdns.TXT{{Name: withAS, Strings: []string{lab.ASRecord(port)}}})
	must(t, err)
	defer dnsmasq.Stop()
	unbound, err := testdns.StartUnbound(t.Context(), testdns.UnboundOptions{Forward: w.DNS.Addr()})
	must(t, err)
	defer unbound.Stop()
	for name, addr := range map[string]string{"dnsmasq": dnsmasq.Addr(), "unbound": unbound.Addr()} {
		t.Run(name, func(t *testing.T) {
			conf := writeConfig(t, fmt.Sprintf("dns: {servers: [%q], timeout: 20s}\nverify: {timeout: 45s, connect_timeout: 20s, reply_timeout: 20s, allow_networks: [127.0.0.0/8]}\n", addr))
			out, code := runMilter(t, mustKey(t, w, "alice@"+withAS)+"\n", "verify", "--config", conf, "alice@"+withAS)
			if code != 0 || !strings.HasPrefix(out, "result    pass\n") {
				t.Errorf("verify: exit %d\n%s", code, out)
			}
			out, code = runMilter(t, "", "lookup", "--config", conf, withAS)
			if code != 0 || !strings.Contains(out, "verdict   takes part") {
				t.Errorf("lookup: exit %d\n%s", code, out)
			}
		})
	}
}

func writeConfig(t *testing.T, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "milter.yaml")
	must(t, os.WriteFile(path, []byte(yaml), 0o644))
	return path
}

// runMilter runs one command to its end.
func runMilter(t *testing.T, stdin string, args ...string) (output string, exitCode int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
