package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A Milter is an authkey-milter serve.
type Milter struct {
	Program
	Socket string // as smtpd_milters has it
	Config string // path of its configuration
	Listen string // its listen, as Configure writes it
	// Network and Address are to dial it.
	Network, Address string

	world *World
}

// MilterConfig is what every milter of a World needs in its configuration: this
// world's DNS, permission to dial loopback, loopback clients counted as strangers,
// and Told as the place for notices. Its timeouts are such that what answers at all
// answers in time, however busy the machine is. listen is a value of the configuration's
// listen. notify is the last section, so that more of it can be added on indented lines.
func (w *World) MilterConfig(listen string) string {
	return fmt.Sprintf(`listen: [%q]
socket: {mode: "0666"}
dns: {servers: [%q], timeout: 20s}
verify: {timeout: 45s, connect_timeout: 20s, reply_timeout: 20s, allow_networks: ["127.0.0.0/8"]}
submission: {networks: []}
notify:
  smtp: %q
  rate: {per_sender: 1000/1s, per_recipient: 1000/1s, global: 10000/1s}
`, listen, w.DNS.Addr(), w.Told.Addr())
}

// StartMilter runs a built authkey-milter with MilterConfig and more YAML behind
// it, on network "unix" or "inet", and returns when it listens.
func (w *World) StartMilter(ctx context.Context, binary, network, more string) (*Milter, error) {
	m, err := w.NewMilter(binary, network)
	if err != nil {
		return nil, err
	}
	if err := m.Configure(more); err != nil {
		return nil, err
	}
	return m, m.StartListening(ctx)
}

// NewMilter chooses where a milter will be. It neither configures nor starts it.
func (w *World) NewMilter(binary, network string) (*Milter, error) {
	dir, err := os.MkdirTemp(w.Dir, "milter-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "milter.yaml")
	m := &Milter{
		Program: Program{Name: "authkey-milter", Path: binary, Args: []string{"serve", "--config", config}, LogFile: filepath.Join(dir, "milter.log")},
		Config:  config, Network: "unix", Address: filepath.Join(dir, "milter.sock"), world: w,
	}
	m.Listen = "unix:" + m.Address
	m.Socket = m.Listen
	if network == "inet" {
		port, err := testdaemon.FreePort()
		if err != nil {
			return nil, err
		}
		m.Network, m.Address = "tcp", fmt.Sprintf("127.0.0.1:%d", port)
		m.Listen = fmt.Sprintf("inet:%d@127.0.0.1", port)
		m.Socket = "inet:" + m.Address
	}
	w.OnClose(func() error {
		if !m.Started() || m.Ended() {
			return nil // somebody wanted that
		}
		return m.Stop(time.Minute)
	})
	return m, nil
}

// Configure puts MilterConfig and more YAML behind it in place of the configuration
// there was, in one step. A running milter is not told.
func (m *Milter) Configure(more string) error {
	return testdaemon.Replace(m.Config, []byte(m.world.MilterConfig(m.Listen)+more), 0o644)
}

// StartListening starts the process, for the first time or after its end, and
// returns when it listens.
func (m *Milter) StartListening(ctx context.Context) error {
	if err := m.Start(); err != nil {
		return err
	}
	return m.Ready(ctx, func() bool { return testdaemon.Listens(m.Network, m.Address) })
}

// Dial connects to it.
func (m *Milter) Dial() (net.Conn, error) { return net.Dial(m.Network, m.Address) }
