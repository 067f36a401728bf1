package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/wire"
)

// edits edits a file again and again until the test ends, or stop is called, which
// returns how often it did.
func edits(t *testing.T, every time.Duration, edit func(i int)) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	n := 0
	running.Go(func() {
		for ctx.Err() == nil {
			edit(n)
			n++
			select {
			case <-ctx.Done():
			case <-time.After(every):
			}
		}
	})
	stop = func() int {
		cancel()
		running.Wait()
		return n
	}
	t.Cleanup(func() { stop() })
	return stop
}

// TestRevocationWhileTheListIsEdited: a revoked key ends a few seconds later, however often
// the list is edited, and so does a removed one's.
func TestRevocationWhileTheListIsEdited(t *testing.T) {
	w := newWorld(t)
	program := buildServer(t)
	for _, way := range []struct {
		name  string
		edit  func(s *server, i int)
		end   func(s *server)
		every time.Duration
	}{
		{"by the tool", func(s *server, i int) { s.mustRun("address", "add", fmt.Sprintf("somebody%d@%s", i, withAS)) },
			func(s *server) { s.mustRun("address", "revoke", "alice@"+withAS) }, 300 * time.Millisecond},
		{"in place", func(s *server, i int) {
			f, err := os.OpenFile(s.list, os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = fmt.Fprintf(f, "somebody%d@%s\n", i, withAS)
			must(t, errors.Join(err, f.Close()))
		}, func(s *server) { s.mustRun("address", "remove", "alice@"+withAS) }, 300 * time.Millisecond},
		{"renamed at once", func(s *server, i int) {
			text, err := os.ReadFile(s.list)
			must(t, err)
			must(t, os.WriteFile(s.list+".mine", fmt.Appendf(text, "somebody%d@%s\n", i, withAS), 0o600))
			must(t, os.Rename(s.list+".mine", s.list))
		}, func(s *server) {}, 300 * time.Millisecond},
	} {
		t.Run(way.name, func(t *testing.T) {
			s := newServer(t, w, program, withAS)
			s.t = t
			s.start()
			alice := mustKey(t, w, "alice@"+withAS)
			s.says(wire.ValidKey, "alice@"+withAS, alice)
			var mu sync.Mutex // the tool would wait for another one; an editor would not
			stop := edits(t, way.every, func(i int) {
				mu.Lock()
				defer mu.Unlock()
				way.edit(s, i)
			})
			mu.Lock()
			way.end(s)
			if way.name == "renamed at once" {
				text, err := os.ReadFile(s.list)
				must(t, err)
				must(t, os.WriteFile(s.list+".mine", []byte(strings.Replace(string(text), "alice", "alice gen=1 #", 1)), 0o600))
				must(t, os.Rename(s.list+".mine", s.list))
			}
			mu.Unlock()
			s.eventually("the key never ends while the list is edited", func() bool { return s.verdict("alice@"+withAS, alice) == wire.InvalidKey })
			if n := stop(); n < 2 {
				t.Errorf("%d edits show nothing", n)
			}
			if n := s.logged("level=ERROR"); n > 0 {
				t.Errorf("%d errors:\n%s", n, s.process.Log())
			}
		})
	}
}

// TestPreferencesWhileTheyAreEdited: a preference counts a few seconds later, however often
// the file is renamed into place.
func TestPreferencesWhileTheyAreEdited(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.Dir, "often.yaml")
	put := func(text string) {
		must(t, os.WriteFile(path+".new", []byte(text), 0o644))
		must(t, os.Rename(path+".new", path))
	}
	put("- {recipient: bob@rcpt.test, nokey: accept}\n")
	milter := startMilter(t, w, fmt.Sprintf("preferences: {source: \"file:%s\"}\n", path))
	mta := startMTA(t, mtas[0].start, milter.Socket)
	c := dialSMTP(t, mta)
	reply := func() int {
		return sendMail(t, c, &mail{from: "alice@" + withAS, rcpts: []string{"bob@rcpt.test"}}).Final.Code
	}
	if code := reply(); code != 250 {
		t.Fatalf("%d", code)
	}
	edits(t, 300*time.Millisecond, func(i int) {
		put(fmt.Sprintf("- {recipient: bob@rcpt.test, nokey: reject}\n# %d\n", i))
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := testdaemon.Poll(ctx, func() (bool, error) { return reply() == 550, nil }); err != nil {
		t.Errorf("the preference never counts: %v\n%s", err, milter.Log())
	}
}

// TestCutOffConfiguration: a configuration of which only a beginning is left changes
// nothing, wherever it is cut, at a reload of either program.
func TestCutOffConfiguration(t *testing.T) {
	w := newWorld(t)
	milter := startMilter(t, w, "policy:\n  nokey: reject\nfrom:\n  check: \"off\"\n# the end\n")
	mta := startMTA(t, mtas[0].start, milter.Socket)
	c := dialSMTP(t, mta)
	whole, err := os.ReadFile(milter.Config)
	must(t, err)
	refused := func(log func() string, n int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := testdaemon.Poll(ctx, func() (bool, error) {
			return strings.Count(log(), "configuration not reloaded") >= n, nil
		}); err != nil {
			t.Fatalf("%d refusals: %v\n%s", n, err, log())
		}
		if strings.Count(log(), "configuration in force") != 1 {
			t.Fatalf("a configuration that is cut off is in force:\n%s", log())
		}
	}
	n := 0
	for at := range whole {
		if end := at + 1; at == 0 || whole[at] == '\n' && !strings.HasPrefix(string(whole[end:]), "#") && end < len(whole) {
			if at == 0 {
				end = 0
			}
			n++
			must(t, os.WriteFile(milter.Config, whole[:end], 0o644))
			must(t, milter.Signal(syscall.SIGHUP))
			refused(milter.Log, n)
		}
	}
	if out := sendMail(t, c, &mail{from: "alice@" + withAS}); out.Final.Code != 550 {
		t.Errorf("%d %s, want 550 as at first", out.Final.Code, out.Final.Text)
	}
	// Who means it says so, or writes another file and renames it.
	short, _, _ := strings.Cut(string(whole), "policy:")
	must(t, os.WriteFile(milter.Config, []byte(short+"...\n"), 0o644))
	must(t, milter.Signal(syscall.SIGHUP))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, testdaemon.Poll(ctx, func() (bool, error) { return strings.Count(milter.Log(), "configuration in force") == 2, nil }))
	if out := sendMail(t, c, &mail{from: "alice@" + withAS}); out.Final.Code != 250 {
		t.Errorf("%d %s, want 250", out.Final.Code, out.Final.Text)
	}
	must(t, milter.Configure("policy: {nokey: reject}\nmode: test\n"))
	must(t, milter.Signal(syscall.SIGHUP))
	must(t, testdaemon.Poll(ctx, func() (bool, error) { return strings.Count(milter.Log(), "configuration in force") == 3, nil }))
	must(t, milter.Configure("policy: {nokey: reject}\n"))
	must(t, milter.Signal(syscall.SIGHUP))
	must(t, testdaemon.Poll(ctx, func() (bool, error) { return strings.Count(milter.Log(), "configuration in force") == 4, nil }))

	s := newServer(t, w, buildServer(t), withAS)
	s.configure("limits: {connections: 5}\n")
	s.start()
	whole, err = os.ReadFile(s.config())
	must(t, err)
	short, _, _ = strings.Cut(string(whole), "limits:")
	for i, text := range []string{short, ""} {
		must(t, os.WriteFile(s.config(), []byte(text), 0o644))
		must(t, syscall.Kill(s.process.Pid(), syscall.SIGHUP))
		refused(func() string { return string(s.process.Log()) }, i+1)
	}
}

// TestCutOffAtTheStart: what cannot be compared with anything is warned of where it shows.
func TestCutOffAtTheStart(t *testing.T) {
	for text, want := range map[string]string{"": "is empty", "mode: test\npolicy: {nokey: reject}": "has no end", "mode: test\n": ""} {
		out, code := runMilter(t, "", "check", "--config", writeConfig(t, text))
		if code != 0 || (want != "") != strings.Contains(out, "warning: ") || !strings.Contains(out, want) {
			t.Errorf("%q: exit %d, %q", text, code, out)
		}
	}
}

// attachSection attaches keys of withAS, with more of the section at its end.
func attachSection(w *lab.World, more string) string {
	dir := filepath.Join(w.Dir, "domain-"+withAS)
	return fmt.Sprintf("attach:\n  domains:\n    - {domain: %s, source: \"secret:%s/secret\", addresses: \"file:%s/addresses\"}\n%s", withAS, dir, dir, more)
}

// TestAttachNeedsAUnixSocket: whoever reaches an inet socket is believed which login he
// claims, so that no keys are attached there unless that is allowed; not at the start, not
// after a reload, and not on a socket of systemd's.
func TestAttachNeedsAUnixSocket(t *testing.T) {
	w := newWorld(t)
	port, err := testdaemon.FreePort()
	must(t, err)
	for _, listen := range []string{fmt.Sprintf("inet:%d", port), fmt.Sprintf("inet:%d@127.0.0.1", port), fmt.Sprintf("inet6:%d@[::1]", port)} {
		conf := writeConfig(t, w.MilterConfig(listen)+attachSection(w, ""))
		for _, command := range []string{"check", "serve"} {
			if out, code := runMilter(t, "", command, "--config", conf); code != 78 || !strings.Contains(out, "attach.allow_inet: true") {
				t.Errorf("%s, %s: exit %d, %s", listen, command, code, out)
			}
		}
		if out, code := runMilter(t, "", "check", "--config", writeConfig(t, w.MilterConfig(listen)+attachSection(w, "  allow_inet: true\n"))); code != 0 {
			t.Errorf("%s, allowed: exit %d, %s", listen, code, out)
		}
	}

	// A socket that systemd passes counts as well.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	must(t, err)
	defer file.Close()
	conf := writeConfig(t, "submission: {networks: []}\n"+attachSection(w, ""))
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config "$1"`, binary, conf)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{file}
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 78 || !strings.Contains(string(out), "attach.allow_inet: true") {
		t.Errorf("a socket of systemd's: exit %d, %s", cmd.ProcessState.ExitCode(), out)
	}

	// Nor does a reload begin to attach, though the new file says that it listens elsewhere.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := w.StartMilter(ctx, binary, "inet", "")
	must(t, err)
	_, err = m.WaitLog(ctx, "msg=listening", `reach="every user of this machine (loopback)"`)
	must(t, err)
	m.Listen = "unix:" + filepath.Join(w.Dir, "elsewhere.sock")
	must(t, m.Configure(attachSection(w, "")))
	must(t, m.Signal(syscall.SIGHUP))
	_, err = m.WaitLog(ctx, "configuration not reloaded", "attach.allow_inet")
	must(t, err)
	must(t, m.Configure(attachSection(w, "  allow_inet: true\n")))
	must(t, m.Signal(syscall.SIGHUP))
	_, err = m.WaitLog(ctx, "attaching keys")
	must(t, err)
}

// TestInetIsLoopback: a port without a host is open to the machine itself, by both
// families, and to nobody else; and the log says who can reach a socket.
func TestInetIsLoopback(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := w.NewMilter(binary, "inet")
	must(t, err)
	_, port, err := net.SplitHostPort(m.Address)
	must(t, err)
	m.Listen = "inet:" + port
	must(t, m.Configure(""))
	must(t, m.StartListening(ctx))
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, port))
		must(t, err)
		must(t, c.Close())
		_, err = m.WaitLog(ctx, "msg=listening", net.JoinHostPort(host, port), `reach="every user of this machine (loopback)"`)
		must(t, err)
	}
	addrs, err := net.InterfaceAddrs()
	must(t, err)
	others := []string{"127.0.0.2"} // every interface would have it too
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() {
			others = append(others, ip.IP.String())
		}
	}
	for _, host := range others {
		if c, err := net.Dial("tcp", net.JoinHostPort(host, port)); err == nil {
			t.Errorf("%s:%s is open", host, port)
			_ = c.Close()
		}
	}
	everywhere, err := w.NewMilter(binary, "inet")
	must(t, err)
	everywhere.Listen = strings.Replace(everywhere.Listen, "127.0.0.1", "0.0.0.0", 1)
	must(t, everywhere.Configure(""))
	must(t, everywhere.StartListening(ctx))
	_, err = everywhere.WaitLog(ctx, "msg=listening", `reach="every host that reaches the port, through interface `, "lo")
	must(t, err)
	unixSocket := startMilter(t, w, "") // MilterConfig says 0666
	_, err = unixSocket.WaitLog(ctx, "msg=listening", `reach="every user of this machine (mode 0666)"`)
	must(t, err)
}

// TestStartThatPasses: what is right again by itself ends a start with 75, on which a
// service manager tries again; what a person has to mend, with 78.
func TestStartThatPasses(t *testing.T) {
	w := newWorld(t)
	state := t.TempDir()
	first := startMilter(t, w, "  state_dir: "+state+"\n")
	second, err := w.NewMilter(binary, "unix")
	must(t, err)
	must(t, second.Configure("  state_dir: "+state+"\n"))
	if out, code := runMilter(t, "", "serve", "--config", second.Config); code != 75 || !strings.Contains(out, "notify.state_dir") {
		t.Errorf("a state folder in use: exit %d, %s", code, out)
	}
	must(t, first.Stop(10*time.Second))

	s := newServer(t, w, buildServer(t), withAS)
	good, err := os.ReadFile(s.secret)
	must(t, err)
	milterConf := writeConfig(t, w.MilterConfig("unix:"+filepath.Join(w.Dir, "never.sock"))+strings.ReplaceAll(attachSection(w, ""),
		filepath.Join(w.Dir, "domain-"+withAS, "secret"), s.secret))
	long := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name, text string
		age        bool
		code       int
	}{
		{"empty just now", "", false, 75},
		{"half a line just now", string(good[:len(good)/2]), false, 75},
		{"empty for long", "", true, 78},
		{"half a line for long", string(good[:len(good)/2]), true, 78},
		{"a whole line that is none", "k1 nonsense\n", false, 78},
	} {
		must(t, os.WriteFile(s.secret, []byte(tt.text), 0o600))
		if tt.age {
			must(t, os.Chtimes(s.secret, long, long))
		}
		if out, code := s.run("serve"); code != tt.code {
			t.Errorf("server, %s: exit %d, want %d: %s", tt.name, code, tt.code, out)
		}
		if out, code := runMilter(t, "", "serve", "--config", milterConf); code != tt.code {
			t.Errorf("milter, %s: exit %d, want %d: %s", tt.name, code, tt.code, out)
		}
	}
}

// TestEmptyList: a list of nothing is not believed, unless it says that it is meant.
func TestEmptyList(t *testing.T) {
	w := newWorld(t)
	s := newServer(t, w, buildServer(t), withAS)
	alice := mustKey(t, w, "alice@"+withAS)
	must(t, os.WriteFile(s.list, nil, 0o600))
	if out, code := s.run("check"); code != 78 || !strings.Contains(out, "# empty") {
		t.Errorf("check: exit %d, %s", code, out)
	}
	var err error
	s.process, err = testdaemon.Start(exec.Command(s.program, "serve", "--config", s.config()), filepath.Join(s.dir, "log"), "")
	must(t, err)
	defer func() { must(t, s.process.Stop()) }()
	s.waitLog(1, "level=ERROR", "# empty")
	s.says(wire.TempFail, "alice@"+withAS, alice)
	must(t, os.WriteFile(s.list, []byte("# nobody yet\n# empty\n"), 0o600))
	if out, code := s.run("check"); code != 0 || strings.Contains(out, "warning") {
		t.Errorf("check of one that is meant: exit %d, %s", code, out)
	}
	s.eventually("the list is not taken up", func() bool { return s.verdict("alice@"+withAS, alice) == wire.InvalidKey })
	must(t, os.WriteFile(s.list, []byte("# nobody yet\n"), 0o600))
	if out, code := s.run("check"); code != 0 || !strings.Contains(out, "warning: ") || !strings.Contains(out, "# empty") {
		t.Errorf("check of one that only has comments: exit %d, %s", code, out)
	}
	s.mustRun("address", "add", "alice@"+withAS)
	s.eventually("the address is not taken up", func() bool { return s.verdict("alice@"+withAS, alice) == wire.ValidKey })
	must(t, os.WriteFile(s.list, []byte("# nobody yet\n"), 0o600))
	s.waitLog(1, "level=ERROR", "looks cut off", "# empty")
	s.says(wire.ValidKey, "alice@"+withAS, alice)
}

// TestSecretOfAContainer: a secret that everybody may read is taken where that is said.
func TestSecretOfAContainer(t *testing.T) {
	w := newWorld(t)
	s := newServer(t, w, buildServer(t), withAS)
	must(t, os.Chmod(s.secret, 0o444))
	if out, code := s.run("check"); code != 78 || !strings.Contains(out, "needs 0600") {
		t.Errorf("exit %d, %s", code, out)
	}
	s.configure("allow_open_secrets: true\n")
	s.mustRun("check")
	s.start()
	s.says(wire.ValidKey, "alice@"+withAS, s.key("alice@"+withAS))
	dir := filepath.Join(w.Dir, "domain-"+withAS)
	must(t, os.Chmod(filepath.Join(dir, "secret"), 0o444))
	for more, want := range map[string]int{"": 78, "  allow_open_secrets: true\n": 0} {
		if out, code := runMilter(t, "", "check", "--config", writeConfig(t, attachSection(w, more))); code != want {
			t.Errorf("%q: exit %d, want %d: %s", more, code, want, out)
		}
	}
	must(t, os.Chmod(filepath.Join(dir, "secret"), 0o600))
}
