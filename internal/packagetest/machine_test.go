package packagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// Addresses of machines, which the world outside the tests has given to others, so that
// the milter may dial them: those of a recipient, one of them for a client that is nobody
// of ours, and that of a sender.
const (
	serverAddress = "9.9.9.10"
	clientAddress = "9.9.9.11"
	senderAddress = "9.9.9.20"
)

// world are the domains of the README, as dnsmasq is told of them: a.example has an
// Authentication Server, which is where b.example's mail is.
var world = []string{"--host-record=mx.b.example," + serverAddress, "--host-record=as.a.example," + serverAddress,
	"--txt-record=a.example,AS=as.a.example:7425"}

// patience bounds whatever is waited for on a machine.
const patience = 3 * time.Minute

// A machine is a booted Debian.
type machine struct {
	t    *testing.T
	root string // its files, from outside
	pid  int    // of its init, from outside
	dns  *testdaemon.Process
}

// boot starts the machine of a recipient, where everything is. It ends with the test.
func boot(t *testing.T, d debian) *machine {
	t.Helper()
	m := bootAt(t, d, serverAddress, clientAddress)
	m.startDNS(world)
	return m
}

// bootAt starts a machine with addresses, and without a name server.
func bootAt(t *testing.T, d debian, addresses ...string) *machine {
	t.Helper()
	m := &machine{t: t, root: newRoot(t, d)}
	must(t, os.WriteFile(filepath.Join(m.root, "etc/resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644))
	console := filepath.Join(t.TempDir(), "console")
	nspawn, err := testdaemon.Start(exec.Command("systemd-nspawn", "--boot", "--directory="+m.root, "--register=no", "--keep-unit",
		"--private-network", "--console=pipe", "--resolv-conf=off", "--timezone=off", "--quiet"), console, "")
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := m.try("journalctl --no-pager -n 200")
			t.Logf("console:\n%s\njournal:\n%s", nspawn.Log(), log)
		}
		if err := nspawn.Stop(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, nspawn.Ready(ctx, func() bool {
		if m.pid = child(nspawn.Pid()); m.pid == 0 {
			return false
		}
		// Asked too early it may get no answer.
		state, _ := m.try("timeout 10 systemctl is-system-running")
		return state == "running\n" || state == "degraded\n"
	}))
	for _, a := range addresses {
		m.run("ip address add " + a + "/32 dev lo")
	}
	t.Cleanup(m.stopDNS)
	return m
}

// connect puts a cable between two machines.
func connect(t *testing.T, m, other *machine, address, otherAddress string) {
	t.Helper()
	output(t, "ip", "link", "add", "cable", "netns", strconv.Itoa(m.pid), "type", "veth", "peer", "name", "cable", "netns", strconv.Itoa(other.pid))
	m.run("ip address add " + address + "/24 dev cable && ip link set cable up")
	other.run("ip address add " + otherAddress + "/24 dev cable && ip link set cable up")
}

// child is the first child of a process; 0: it has none.
func child(pid int) int {
	out, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(out), " ")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}

// startDNS serves records, and no others, in place of those before.
func (m *machine) startDNS(records []string) {
	m.t.Helper()
	m.stopDNS()
	dns, err := testdaemon.Start(m.command("dnsmasq", append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
		"--listen-address=127.0.0.1", "--bind-interfaces", "--user=root", "--log-facility=-",
		"--local=/example/", "--local=/com/", "--local=/in-addr.arpa/"}, records...)...), filepath.Join(m.t.TempDir(), "dns"), "")
	must(m.t, err)
	m.dns = dns
	must(m.t, dns.Ready(m.t.Context(), func() bool {
		return bytes.Contains(dns.Log(), []byte("started, version"))
	}))
}

func (m *machine) stopDNS() {
	m.t.Helper()
	if m.dns == nil {
		return
	}
	if err := m.dns.Stop(); err != nil {
		m.t.Error(err)
	}
	m.dns = nil
}

// command is a program of the machine.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--all", "--", name}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// try runs shell commands in the home of root, and returns what they printed.
func (m *machine) try(script string) (string, error) {
	cmd := m.command("sh", "-ec", "cd\n"+script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// run is try for commands that must succeed.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// value is what a command prints on one line.
func (m *machine) value(script string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run(script))
}

// put copies a file into the home of root.
func (m *machine) put(file string) {
	m.t.Helper()
	in, err := os.Open(file)
	must(m.t, err)
	defer in.Close()
	out, err := os.Create(filepath.Join(m.root, "root", filepath.Base(file)))
	must(m.t, err)
	_, err = io.Copy(out, in)
	must(m.t, errors.Join(err, out.Close()))
}

// install installs a package with dpkg, without questions.
func (m *machine) install(file string) {
	m.t.Helper()
	m.put(file)
	m.run("dpkg --force-confdef --force-confold --install ./" + filepath.Base(file))
}

// exists tells whether there is a file on the machine.
func (m *machine) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(m.root, path))
	return err == nil
}

// write makes a file.
func (m *machine) write(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	must(m.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(m.t, os.WriteFile(path, []byte(text), 0o644))
}

// await polls until shell commands succeed.
func (m *machine) await(script string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	last := ""
	err := testdaemon.Poll(ctx, func() (bool, error) {
		out, err := m.try(script)
		last = out
		return err == nil, nil
	})
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, last)
	}
}

// exposure is the score of a unit as systemd sees it.
func (m *machine) exposure(unit string) float64 {
	m.t.Helper()
	out := m.run("systemd-analyze security --no-pager " + unit)
	_, after, _ := strings.Cut(out, "Overall exposure level for "+unit+": ")
	score, err := strconv.ParseFloat(strings.Fields(after + " ?")[0], 64)
	if err != nil {
		m.t.Fatalf("no score in\n%s", out)
	}
	return score
}
