package testmta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/authkey/authkey/internal/testdaemon"
)

// SendmailOptions say how a private Sendmail differs from the usual one.
type SendmailOptions struct {
	// Prefix is where EnsureSendmail has unpacked Sendmail.
	Prefix string
	// Hostname is Sendmail's own and only local domain; default mx.test. Mail
	// for all other domains is accepted and passed on to the sink.
	Hostname string
	// Milters are "inet:127.0.0.1:PORT" or "unix:/path", as for Postfix.
	Milters []string
	// DefaultAction is what happens while a milter is away: tempfail (default),
	// reject or accept.
	DefaultAction string
	// Aliases are lines for aliases(5), "name: a@rcpt.test, b@rcpt.test", for
	// addresses name@Hostname.
	Aliases []string
	// Passwords by login, "alice@a.test" or "alice": for AUTH PLAIN and LOGIN, by the
	// SASL library with a data base of its own. A login without @ has the Hostname as
	// its realm.
	Passwords map[string]string
	// MC are further lines for the m4 configuration, before MAILER.
	MC []string
}

// Sendmail is a running private Sendmail, whose outgoing mail ends in a Sink of
// this program. Its methods are safe for concurrent use.
type Sendmail struct {
	options SendmailOptions
	dir     string
	addr    string
	sink    *Sink
	guard   *testdaemon.Guard // of the folder
	process *testdaemon.Process
	stop    sync.Once
}

// StartSendmail starts a private Sendmail and returns when it answers. ctx
// bounds the start only; Stop ends Sendmail, and it ends by itself when this
// program dies.
func StartSendmail(ctx context.Context, options SendmailOptions) (*Sendmail, error) {
	s, err := startSendmail(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("start Sendmail: %w", err)
	}
	return s, nil
}

func startSendmail(ctx context.Context, options SendmailOptions) (*Sendmail, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if _, err := os.Stat(sendmailBinary(options.Prefix)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSendmail, err)
	}
	if options.Hostname == "" {
		options.Hostname = DefaultHostname
	}
	dir, err := testdaemon.TempDir("authkey-sendmail-")
	if err != nil {
		return nil, err
	}
	// The process has a guard too; this one covers the time before its start.
	guard, err := testdaemon.NewGuard(`rm -rf "$1"`, dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s := &Sendmail{options: options, dir: dir, guard: guard}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Sendmail) start(ctx context.Context) error {
	var err error
	if s.sink, err = StartSink(); err != nil {
		return err
	}
	port, err := testdaemon.FreePort()
	if err != nil {
		return err
	}
	s.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := s.configure(ctx, port); err != nil {
		return err
	}
	if len(s.options.Aliases) > 0 {
		if out, err := s.command(ctx, "-bi").CombinedOutput(); err != nil {
			return fmt.Errorf("aliases: %w: %s", err, out)
		}
	}
	daemon := s.command(ctx, "-bD", "-q1s", "-X", s.transcript())
	// The start's context must not end the daemon.
	cmd := exec.Command(daemon.Path, daemon.Args[1:]...)
	cmd.Dir = daemon.Dir
	s.process, err = testdaemon.Start(cmd, filepath.Join(s.dir, "log"), s.dir)
	if err != nil {
		return err
	}
	return s.process.Ready(ctx, func() bool {
		c, err := Dial(s.addr)
		return err == nil && c.Quit() == nil
	})
}

// command runs sendmail under a host name of its own: without a dotted one it
// sleeps for a minute first.
func (s *Sendmail) command(ctx context.Context, args ...string) *exec.Cmd {
	const script = `hostname "$1"; shift; exec "$@"`
	args = append([]string{"-u", "sh", "-c", script, "sh", s.options.Hostname,
		sendmailBinary(s.options.Prefix), "-C", s.file("sendmail.cf")}, args...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Dir = s.dir
	return cmd
}

func (s *Sendmail) file(name string) string { return filepath.Join(s.dir, name) }
func (s *Sendmail) queueDir() string        { return s.file("queue") }
func (s *Sendmail) transcript() string      { return s.file("transcript") }

// Name is "sendmail".
func (s *Sendmail) Name() string { return "sendmail" }

// SMTPAddr is host:port of the listener that asks the milters.
func (s *Sendmail) SMTPAddr() string { return s.addr }

// Deliveries are the messages that have reached the sink, oldest first.
func (s *Sendmail) Deliveries() ([]Message, error) { return s.sink.Deliveries() }

// WaitDelivered waits for a message at the sink that match accepts.
func (s *Sendmail) WaitDelivered(ctx context.Context, match func(Message) bool) (Message, error) {
	return waitDelivered(ctx, s.Deliveries, match, s.Log)
}

// WaitIdle waits until nothing but quarantined mail is queued.
func (s *Sendmail) WaitIdle(ctx context.Context) error {
	return waitIdle(ctx, s.Queue, s.Log)
}

// Log is the transcript of all SMTP sessions, incoming and outgoing (-X), after
// what Sendmail wrote to standard error: it logs through syslog only.
func (s *Sendmail) Log() string {
	var log []byte
	if s.process != nil {
		log = s.process.Log()
	}
	if b, err := os.ReadFile(s.transcript()); err == nil {
		log = append(log, b...)
	}
	return string(log)
}

// Stop ends all processes of this Sendmail and its sink, and removes its folder.
func (s *Sendmail) Stop() (err error) {
	s.stop.Do(func() {
		if s.process != nil {
			err = s.process.Stop()
		}
		if s.sink != nil {
			err = errors.Join(err, s.sink.Close())
		}
		err = errors.Join(err, s.guard.Release(), os.RemoveAll(s.dir))
	})
	return err
}
