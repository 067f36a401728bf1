package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/authkey/authkey/internal/authserver"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/loopback"
)

// A world is what the filters under measurement live in: DNS and Authentication
// Servers of this process, and a folder.
type world struct{ *lab.World }

// inWorld runs f in a world of its own.
func inWorld(f func(*world) error) error {
	return lab.InWorld(func(w *lab.World) error { return f(&world{w}) })
}

// withMilter runs f in a world with benchDomain and authkey-milter, its configuration that of
// the world.
func (b *bench) withMilter(ctx context.Context, f func(w *world, d *domain, milter *contender) error) error {
	return inWorld(func(w *world) error {
		d, err := w.addDomain(benchDomain)
		if err != nil {
			return err
		}
		milter, err := w.startMilter(ctx, b.binary, milterName, "unix", "")
		if err != nil {
			return err
		}
		return f(w, d, milter)
	})
}

// A domain has an Authentication Server of its own, for which every address is
// one. All addresses that begin with "user" and a "+" have the same key.
type domain struct {
	name   string
	key    string
	socket string // of its server, host:port
	server *authserver.Server
}

// benchDomain is the domain of the world that most scenarios need.
const benchDomain = "bench.test"

// addDomain makes a domain, its server and its record. The server answers as many
// questions as come: one client alone asks them all.
func (w *world) addDomain(name string) (*domain, error) {
	keys, _, err := w.openKeys(name)
	if err != nil {
		return nil, err
	}
	key, err := loopback.Key(keys, "user@"+name)
	if err != nil {
		return nil, err
	}
	limits := authserver.DefaultLimits()
	limits.PerClient = authserver.Rate{}
	as, err := loopback.StartAS(nil, limits, keys)
	if err != nil {
		return nil, err
	}
	w.OnClose(as.Close)
	return &domain{name: name, key: key, socket: loopbackAt(as.Port), server: as.Server}, w.Publish(name, lab.ASRecord(as.Port))
}

// openKeys makes a folder and a secret for a domain of which every address is one.
func (w *world) openKeys(name string) (keys *keyring.Domain, secret string, err error) {
	dir := filepath.Join(w.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, "", err
	}
	secret = filepath.Join(dir, "secret")
	keys, err = loopback.OpenDomain(name, secret, "any")
	return keys, secret, err
}

// asked returns how many questions about valid keys the domain's server has answered.
func (d *domain) asked() int { return int(d.server.Stats().Valid) }

// message is one whose copies all come from the same address.
func (d *domain) message() *message { return &message{sender: "user@" + d.name, key: d.key} }

// messages is one whose copies come from addresses of their own.
func (d *domain) messages() *message {
	return &message{sender: "user+" + numberMark + "@" + d.name, key: d.key}
}

// addSilent makes a domain whose server takes connections and never answers.
func (w *world) addSilent(name string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			open = append(open, c)
		}
		for _, c := range open {
			c.Close()
		}
	}()
	w.OnClose(func() error {
		err := ln.Close()
		<-done
		return err
	})
	return w.Publish(name, lab.ASRecord(ln.Addr().(*net.TCPAddr).Port))
}

// addRefusing makes a domain whose server is not there.
func (w *world) addRefusing(name string) error {
	port, err := w.RefusingPort()
	if err != nil {
		return err
	}
	return w.Publish(name, lab.ASRecord(port))
}

// milterConfig is what a milter of this world is told: everything as it comes, but
// for DNS and for loopback, which it would not dial and not verify.
func (w *world) milterConfig(listen string) string {
	return fmt.Sprintf(`listen: [%q]
socket: {mode: "0666"}
authserv_id: mx.test
dns: {servers: [%q]}
verify: {allow_networks: ["127.0.0.0/8"]}
submission: {networks: []}
`, listen, w.DNS.Addr())
}
