package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// The life of the server: it answers, takes a new configuration, refuses a bad one,
// tells systemd, and ends when it is told to, with every question answered.
func TestServe(t *testing.T) {
	addr := freePort(t)
	p := newPlace(t, `listen: ["tcp:`+addr+`"]`)
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(p.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	told := func(want string) {
		t.Helper()
		_ = systemd.SetReadDeadline(time.Now().Add(timeout))
		buf := make([]byte, 4096)
		n, err := systemd.Read(buf)
		for err == nil && strings.HasPrefix(string(buf[:n]), "WATCHDOG=1\n") { // every ten seconds
			n, err = systemd.Read(buf)
		}
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Fatalf("systemd was told %q, %v, want %q", buf[:n], err, want)
		}
	}
	s := startServing(t, serveCommand(p.config, "NOTIFY_SOCKET="+systemd.LocalAddr().String()))
	told("READY=1")
	if limits := readFile(t, fmt.Sprintf("/proc/%d/limits", s.Process.Pid)); !strings.Contains(limits, "Max core file size        0                    0 ") {
		t.Errorf("core files are possible:\n%s", limits)
	}
	key := p.key(t, "bob@example.com")
	other := p.key(t, "anybody@example.org")
	c := dial(t, addr, nil)
	for i, tc := range []struct {
		address, key string
		want         wire.Verdict
		ttl          time.Duration
	}{
		{"bob@example.com", key, wire.ValidKey, time.Hour},
		{"Bob+shop@example.com", key, wire.ValidKey, time.Hour},
		{"bob@example.com", other, wire.InvalidKey, 0},
		{"mallory@example.com", key, wire.InvalidKey, 0},
		{"anybody@example.org", other, wire.ValidKey, 10 * time.Minute},
		{"bob@example.net", key, wire.Error, 0},
	} {
		r := c.ask(t, uint64(i+1), tc.address, tc.key)
		if r.Seq != uint64(i+1) || r.Verdict != tc.want || r.TTL != tc.ttl {
			t.Errorf("%s: %+v, want %s %s", tc.address, r, tc.want, tc.ttl)
		}
	}

	// A new configuration: another domain's ttl, another level. The connection stays.
	p.write(t, `listen: ["tcp:`+addr+`"]`+"\nlog: {level: debug}\nmetrics: {listen: ':9797'}")
	replaceFile(t, p.config, strings.Replace(readFile(t, p.config), "ttl: 10m", "ttl: 20m", 1))
	s.signal(syscall.SIGHUP)
	told("RELOADING=1\nMONOTONIC_USEC=")
	told("READY=1")
	s.waitLogs(2, `msg="configuration in force"`, "domains=2")
	s.waitLog("level=WARN", "no effect yet", "key=metrics.listen")
	if r := c.ask(t, 100, "anybody@example.org", other); r.TTL != 20*time.Minute {
		t.Errorf("after the reload: %+v", r)
	}
	// Bad ones: a key that is none, a secret that is not there, a list that is bad.
	good := readFile(t, p.config)
	for i, bad := range []struct{ old, new, log string }{
		{"domains:", "domans:", "domans: is not a key; want perhaps domains"},
		{p.secret + "2", p.secret + "3", "domains[1].secret_file"},
		{"addresses: any", `addresses: "file:` + p.config + `"`, "domains[1].addresses"},
		{"level: debug", "level: loud", "log.level"},
	} {
		replaceFile(t, p.config, strings.Replace(good, bad.old, bad.new, 1))
		s.signal(syscall.SIGHUP)
		told("RELOADING=1")
		told("READY=1")
		s.waitLogs(i+1, "level=ERROR", `msg="configuration not reloaded, keeping the previous one"`)
		s.waitLog("keeping the previous one", bad.log)
		if r := c.ask(t, uint64(200+i), "anybody@example.org", other); r.TTL != 20*time.Minute {
			t.Errorf("with a bad configuration: %+v", r)
		}
	}
	// What only the next start can do is said.
	replaceFile(t, p.config, strings.Replace(good, "level: debug", "level: debug, format: json", 1))
	s.signal(syscall.SIGHUP)
	s.waitLog("level=WARN", "listen and log.format take effect at the next start")

	// Questions that have arrived are answered before the end.
	told("RELOADING=1")
	told("READY=1")
	const many = 50
	var questions strings.Builder
	for i := range many {
		fmt.Fprintf(&questions, "VERIFY %d bob@example.com %s\r\n", 1000+i, key)
	}
	if _, err := io.WriteString(c, questions.String()); err != nil {
		t.Fatal(err)
	}
	if r := c.reply(t); r.Seq != 1000 || r.Verdict != wire.ValidKey { // so that they have arrived
		t.Errorf("%+v", r)
	}
	s.signal(syscall.SIGTERM)
	told("STOPPING=1")
	for i := 1; i < many; i++ {
		if r := c.reply(t); r.Seq != uint64(1000+i) || r.Verdict != wire.ValidKey {
			t.Errorf("%+v", r)
		}
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("more than the replies")
	}
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if log := s.log.String(); strings.Contains(log, key) || strings.Contains(log, other) || strings.Contains(log, "panic") {
		t.Errorf("a key or a panic in the log:\n%s", log)
	}
}

// Lists and secrets are watched. What is bad never takes the place of what is good.
func TestListsAreWatched(t *testing.T) {
	t.Parallel()
	addr := freePort(t)
	p := newPlace(t, `listen: ["tcp:`+addr+`"]`)
	s := startServing(t, serveCommand(p.config))
	bob := p.key(t, "bob@example.com")
	becomes := func(address, key string, want wire.Verdict) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s is not %s", address, want), func() bool { return verdict(t, addr, address, key) == want })
	}
	stays := func(address, key string, want wire.Verdict) {
		t.Helper()
		if got := verdict(t, addr, address, key); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
	mustRun(t, "address", "add", "carol@example.com", "--config", p.config)
	becomes("carol@example.com", p.key(t, "carol@example.com"), wire.ValidKey)

	// Cut off in the midst of a line, emptied, and replaced by something else.
	whole := readFile(t, p.list)
	for i, bad := range []struct{ content, log string }{
		{whole[:strings.Index(whole, "bob")+2], "looks cut off"},
		{"", "looks cut off"},
		{"\x00\x01rubbish\xff\n", "line 1"},
		{"<html>\n<body>502</body>\n", "in quotes only"},
	} {
		writeFile(t, p.list, bad.content, 0o640)
		s.waitLogs(1, "level=ERROR", "keeping the previous one", bad.log)
		stays("bob@example.com", bob, wire.ValidKey)
		s.signal(syscall.SIGHUP) // nor on demand
		s.waitLogs(i+2, `msg="configuration in force"`)
		stays("bob@example.com", bob, wire.ValidKey)
	}
	writeFile(t, p.list, whole, 0o640)
	mustRun(t, "address", "revoke", "bob@example.com", "--config", p.config)
	becomes("bob@example.com", bob, wire.InvalidKey)
	stays("bob@example.com", p.key(t, "bob@example.com"), wire.ValidKey)
	if err := os.Remove(p.list); err != nil {
		t.Fatal(err)
	}
	s.waitLog("level=ERROR", "keeping the previous one", "no such file")
	writeFile(t, p.list, "bob gen=1\n", 0o640)
	becomes("alice@example.com", bob, wire.InvalidKey)
	stays("bob@example.com", p.key(t, "bob@example.com"), wire.ValidKey)

	// A secret that others can read is not taken up; the one in force stays.
	bob = p.key(t, "bob@example.com")
	if err := os.Chmod(p.secret, 0o644); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	s.waitLog("level=ERROR", "keeping the previous one", "readable by others (mode 0644); needs 0600: chmod 600 "+p.secret)
	stays("bob@example.com", bob, wire.ValidKey)
}

// The server starts without a list and says TEMPFAIL until there is one.
func TestServeWithoutList(t *testing.T) {
	t.Parallel()
	addr := freePort(t)
	p := newPlace(t, `listen: ["tcp:`+addr+`"]`)
	key := p.key(t, "bob@example.com")
	list := readFile(t, p.list)
	if err := os.Remove(p.list); err != nil {
		t.Fatal(err)
	}
	s := start(t, serveCommand(p.config))
	s.waitLog("level=ERROR", "domain=example.com", "no such file")
	s.waitLog(`msg="domain is served: every local part is an address" domain=example.org`)
	if got := verdict(t, addr, "bob@example.com", key); got != wire.TempFail {
		t.Errorf("%s", got)
	}
	writeFile(t, p.list, list, 0o640)
	eventually(t, "the list is not taken up", func() bool { return verdict(t, addr, "bob@example.com", key) == wire.ValidKey })
}

// The certificate is taken up when its files change and on SIGHUP; a bad pair
// leaves the old one in force. verify asks over TLS as a recipient would.
func TestCertificate(t *testing.T) {
	t.Parallel()
	plain, secure := freePort(t), freePort(t)
	dir := t.TempDir()
	first := writePair(t, dir, 1)
	p := newPlace(t, fmt.Sprintf("listen: ['tls:%s', 'tcp:%s']\ntls: {cert: %s/cert.pem, key: %s/key.pem}", secure, plain, dir, dir))
	s := startServing(t, serveCommand(p.config))
	key := p.key(t, "bob@example.com")
	serial := func() int64 {
		t.Helper()
		c := dial(t, secure, &tls.Config{InsecureSkipVerify: true})
		if got := c.ask(t, 1, "bob@example.com", key).Verdict; got != wire.ValidKey {
			t.Errorf("%s", got)
		}
		return c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("serial %d", got)
	}
	if got := verdict(t, plain, "bob@example.com", key); got != wire.ValidKey {
		t.Errorf("in clear text: %s", got)
	}
	old := dial(t, secure, &tls.Config{MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true})
	if err := old.Conn.(*tls.Conn).Handshake(); err == nil {
		t.Error("TLS 1.1 is spoken")
	}

	// verify takes the first socket of the configuration, and checks its certificate.
	ask := func(roots string) *process {
		t.Helper()
		cmd := programCommand([]string{"SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=" + p.dir}, os.Args[0], "verify", "--config", p.config, "bob@example.com")
		cmd.Stdin = strings.NewReader(key + "\n")
		return start(t, cmd)
	}
	if v := ask(filepath.Join(dir, "cert.pem")); v.wait() != 0 {
		t.Errorf("verify: exit %d\n%s", v.wait(), v.log.String())
	}
	if v := ask("/dev/null"); v.wait() != 75 {
		t.Errorf("verify of a certificate that nobody vouches for: exit %d", v.wait())
	}

	// A pair that does not fit together, then nonsense: the old one stays.
	good := readFile(t, filepath.Join(dir, "key.pem"))
	writePair(t, dir, 2)
	fresh := readFile(t, filepath.Join(dir, "key.pem"))
	replaceFile(t, filepath.Join(dir, "key.pem"), good)
	s.waitLog("level=ERROR", `msg="certificate not reloaded, keeping the previous one"`, "does not match")
	if got := serial(); got != 1 && got != 2 { // 2 if it was seen whole for a moment
		t.Errorf("serial %d", got)
	}
	replaceFile(t, filepath.Join(dir, "key.pem"), "nonsense")
	s.waitLog("level=ERROR", `msg="certificate not reloaded, keeping the previous one"`, "failed to find any PEM data")
	replaceFile(t, filepath.Join(dir, "key.pem"), fresh)
	eventually(t, "the new certificate is not taken up", func() bool { return serial() == 2 })

	// On SIGHUP, at once; and one under another name.
	other := t.TempDir()
	writePair(t, other, 3)
	p.write(t, fmt.Sprintf("listen: ['tls:%s', 'tcp:%s']\ntls: {cert: %s/cert.pem, key: %s/key.pem}", secure, plain, other, other))
	s.signal(syscall.SIGHUP)
	s.waitLogs(2, `msg="configuration in force"`)
	eventually(t, "the other certificate is not taken up", func() bool { return serial() == 3 })
	p.write(t, fmt.Sprintf("listen: ['tls:%s', 'tcp:%s']\ntls: {cert: %s/none.pem, key: %s/key.pem}", secure, plain, other, other))
	s.signal(syscall.SIGHUP)
	s.waitLog("configuration not reloaded", "tls.cert", "none.pem: no such file")
	if got := serial(); got != 3 {
		t.Errorf("serial %d", got)
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	roots := x509.NewCertPool()
	roots.AddCert(first)
	if _, err := first.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		t.Errorf("the test's own certificate: %v", err)
	}
}

// Sockets from systemd come first, the one named tls speaks TLS, and listen counts
// only where it is set.
func TestSocketsFromSystemd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writePair(t, dir, 1)
	pair := fmt.Sprintf("tls: {cert: %s/cert.pem, key: %s/key.pem}", dir, dir)
	p := newPlace(t, pair)
	key := p.key(t, "bob@example.com")
	start := func() (s *process, plain, secure string) {
		var files []*os.File
		for range 2 {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			file, err := ln.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			files = append(files, file)
			plain, secure = secure, ln.Addr().String()
		}
		// LISTEN_PID is the process's own number, which the shell has before it.
		cmd := programCommand([]string{"LISTEN_FDS=2", "LISTEN_FDNAMES=plain:tls"},
			"/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config "$1"`, os.Args[0], p.config)
		cmd.ExtraFiles = files
		return startServing(t, cmd), plain, secure
	}
	s, plain, secure := start()
	if got := verdict(t, plain, "bob@example.com", key); got != wire.ValidKey {
		t.Errorf("in clear text: %s", got)
	}
	if got := dial(t, secure, &tls.Config{InsecureSkipVerify: true}).ask(t, 1, "bob@example.com", key).Verdict; got != wire.ValidKey {
		t.Errorf("over TLS: %s", got)
	}
	if n := strings.Count(s.log.String(), "msg=listening"); n != 2 {
		t.Errorf("%d sockets", n)
	}
	addr := freePort(t)
	p.write(t, pair+"\nlisten: ['tcp:"+addr+"']")
	start()
	if got := verdict(t, addr, "bob@example.com", key); got != wire.ValidKey {
		t.Errorf("on the socket of the configuration: %s", got)
	}
}

// What cannot start says why, with the right code.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := newPlace(t, `listen: ["tcp:`+taken.Addr().String()+`"]`)
	s := start(t, serveCommand(p.config))
	if code := s.wait(); code != 75 || !strings.Contains(s.log.String(), "address already in use") {
		t.Errorf("exit %d\n%s", code, s.log.String())
	}
	if err := os.Chmod(p.secret, 0o644); err != nil {
		t.Fatal(err)
	}
	s = start(t, serveCommand(p.config))
	if code := s.wait(); code != 78 || !strings.Contains(s.log.String(), "chmod 600 "+p.secret) {
		t.Errorf("exit %d\n%s", code, s.log.String())
	}
	s = start(t, serveCommand(p.config, "AUTHKEY_SERVER_LIMITS_CONECTIONS=1"))
	if code := s.wait(); code != 78 || !strings.Contains(s.log.String(), "perhaps AUTHKEY_SERVER_LIMITS_CONNECTIONS") {
		t.Errorf("exit %d\n%s", code, s.log.String())
	}
}

// Whatever instant a writer is killed at, the list is the old one or the new one, and a
// server that watches it never sees anything else.
func TestKilledWhileAdding(t *testing.T) {
	t.Parallel()
	addr := freePort(t)
	p := newPlace(t, `listen: ["tcp:`+addr+`"]`)
	var list strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&list, "user%05d@example.com # of a department with a long name\n", i)
	}
	writeFile(t, p.list, list.String(), 0o640)
	server := startServing(t, serveCommand(p.config))
	known := p.key(t, "user00000@example.com")
	add := func(i int) *process {
		return start(t, programCommand(nil, os.Args[0], "address", "add", "--config", p.config, fmt.Sprintf("new%d@example.com", i)))
	}
	begin := time.Now()
	if s := add(0); s.wait() != 0 {
		t.Fatal(s.log.String())
	}
	whole := time.Since(begin) // that of the last one that was not killed
	want, killed := readFile(t, p.list), 0
	instants := rand.New(rand.NewPCG(30, 1))
	for i := 1; i <= 30; i++ {
		begin := time.Now()
		s := add(i)
		select {
		case <-s.done:
		case <-time.After(time.Duration(instants.Int64N(int64(whole) * 6 / 5))):
			s.signalIfRunning(syscall.SIGKILL)
		}
		code := s.wait()
		next := want + fmt.Sprintf("new%d@example.com\n", i)
		switch got := readFile(t, p.list); {
		case got == next:
			want = next
		case got != want:
			t.Fatalf("after a kill the list is neither the old nor the new one: %d octets, want %d or %d", len(got), len(want), len(next))
		case code == 0:
			t.Fatal("an address that was added is not there")
		}
		if code != 0 {
			killed++
		} else {
			whole = time.Since(begin)
		}
		if info, err := os.Stat(p.list); err != nil || info.Mode().Perm() != 0o640 {
			t.Fatalf("mode %v, %v", info.Mode(), err)
		}
		if got := verdict(t, addr, "user00000@example.com", known); got != wire.ValidKey {
			t.Fatalf("the server says %s", got)
		}
	}
	t.Logf("%d of 30 were killed before their end, which takes %s", killed, whole)
	if killed == 0 {
		t.Error("nobody was killed: the test shows nothing")
	}
	// And what they left behind is not in the way.
	if s := add(31); s.wait() != 0 {
		t.Error(s.log.String())
	}
	last := p.key(t, "new31@example.com")
	eventually(t, "the list is not taken up", func() bool { return verdict(t, addr, "new31@example.com", last) == wire.ValidKey })
	if strings.Contains(server.log.String(), "level=ERROR") {
		t.Errorf("the server's log:\n%s", server.log.String())
	}
	for path := range snapshot(t, p.dir) {
		if strings.HasPrefix(path, "list") && path != "list" && path != "list.lock" {
			t.Errorf("left behind: %s", path)
		}
	}
	count := 0
	err := keyring.ListFile{Path: p.list, Form: keyring.Form{Domain: "example.com"}}.Each(func(keyring.Entry) error { count++; return nil })
	if err != nil || count < 20_002 {
		t.Errorf("%d addresses, %v", count, err)
	}
}

// signalIfRunning is signal for a process that may have just ended.
func (p *process) signalIfRunning(sig os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}
