package testmta

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/authkey/authkey/internal/testdaemon"
)

// PostfixOptions say how a private Postfix differs from the usual one.
type PostfixOptions struct {
	// Hostname is myhostname; default mx.test.
	Hostname string
	// RecipientDomains are accepted from everyone; default rcpt.test. Clients
	// at 127.0.0.2 may send to any domain (mynetworks).
	RecipientDomains []string
	// Milters are the values of smtpd_milters: "inet:127.0.0.1:PORT" or
	// "unix:/path", where the user postfix must be able to reach the path
	// (see testdaemon.TempDir) and to write to the socket.
	Milters []string
	// MilterProtocol is milter_protocol; 0 stands for 6.
	MilterProtocol int
	// DefaultAction is milter_default_action; default tempfail.
	DefaultAction string
	// Discard throws all mail away instead of delivering it, for load tests.
	Discard bool
	// Listeners are SMTP listeners beside that of SMTPAddr.
	Listeners []Listener
	// Main are parameters of main.cf; they win over what is set otherwise.
	Main map[string]string
	// Master are further lines of master.cf.
	Master []string
}

// A Listener is an additional SMTP listener of a private Postfix.
type Listener struct {
	Name string // for Postfix.Listener, and in the log as postfix/Name
	// Options are "parameter=value", as after -o in master.cf, blanks allowed.
	Options []string
}

// RelayListener asks no milter and takes mail for any domain from loopback: a
// place to hand notices and delivery status notifications to.
func RelayListener(name string) Listener {
	return Listener{Name: name, Options: []string{"smtpd_milters=", "mynetworks=127.0.0.0/8"}}
}

// smtpListener is the name of the listener of SMTPAddr.
const smtpListener = "smtp"

// Postfix is a running private Postfix. Its methods are safe for concurrent use.
type Postfix struct {
	options   PostfixOptions
	layout    layout
	addrs     map[string]string // by listener name
	masterPid int
	stop      sync.Once
	reload    sync.Mutex

	mu     sync.Mutex
	parsed map[string]deliveredFile
}

type deliveredFile struct {
	message Message
	when    int64 // modification time in nanoseconds
}

// StartPostfix starts a private Postfix and returns when it answers, which takes
// about two seconds. ctx bounds the start only; Stop ends Postfix, and it ends
// by itself when this program dies. See EnsurePostfix.
func StartPostfix(ctx context.Context, options PostfixOptions) (*Postfix, error) {
	p, err := startPostfix(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("start Postfix: %w", err)
	}
	return p, nil
}

func startPostfix(ctx context.Context, options PostfixOptions) (*Postfix, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if err := options.complete(); err != nil {
		return nil, err
	}
	l, err := newLayout(ctx)
	if err != nil {
		return nil, err
	}
	p := &Postfix{options: options, layout: l, addrs: map[string]string{}, parsed: map[string]deliveredFile{}}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Postfix) start(ctx context.Context) error {
	for _, l := range p.options.Listeners {
		port, err := testdaemon.FreePort()
		if err != nil {
			return err
		}
		p.addrs[l.Name] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	if err := p.writeConfiguration(); err != nil {
		return err
	}
	// Not ended with ctx: what a half-done start would leave, Stop cannot find.
	if _, err := p.run(context.WithoutCancel(ctx), "flock", p.layout.dir, p.layout.postfix, "-c", p.layout.etc(), "start"); err != nil {
		return fmt.Errorf("%w; the log ends:\n%s", err, tail(p.Log()))
	}
	var err error
	if p.masterPid, err = p.readPid(); err != nil {
		return err
	}
	for _, addr := range p.addrs {
		err := testdaemon.Poll(ctx, func() (bool, error) {
			c, err := Dial(addr)
			if err != nil {
				return false, nil
			}
			return true, c.Quit()
		})
		if err != nil {
			return fmt.Errorf("no SMTP greeting at %s: %w; the log ends:\n%s", addr, err, tail(p.Log()))
		}
	}
	return nil
}

func (p *Postfix) readPid() (int, error) {
	b, err := os.ReadFile(filepath.Join(p.layout.queue(), "pid", "master.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// run runs one of Postfix's commands and returns its standard output.
func (p *Postfix) run(ctx context.Context, command string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(command), strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// Name is "postfix".
func (p *Postfix) Name() string { return "postfix" }

// Dir is the folder of this Postfix: etc, queue, data, mail, mail.log.
func (p *Postfix) Dir() string { return p.layout.dir }

// SMTPAddr is host:port of the listener that asks the milters.
func (p *Postfix) SMTPAddr() string { return p.addrs[smtpListener] }

// Listener is host:port of one of PostfixOptions.Listeners, or "".
func (p *Postfix) Listener(name string) string { return p.addrs[name] }

// Deliveries are the messages delivered so far, oldest first.
func (p *Postfix) Deliveries() ([]Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	dir := filepath.Join(p.layout.mail(), mailbox, "new")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files := make([]deliveredFile, 0, len(entries))
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		f, ok := p.parsed[name]
		if !ok {
			if f, err = readDelivered(name); err != nil {
				return nil, err
			}
			p.parsed[name] = f
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b deliveredFile) int {
		return cmp.Or(cmp.Compare(a.when, b.when), cmp.Compare(a.message.File, b.message.File))
	})
	messages := make([]Message, len(files))
	for i, f := range files {
		messages[i] = f.message
	}
	return messages, nil
}

func readDelivered(name string) (deliveredFile, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return deliveredFile{}, err
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return deliveredFile{}, err
	}
	return deliveredFile{parseDelivered(name, raw), fi.ModTime().UnixNano()}, nil
}

// WaitDelivered waits for a delivered message that match accepts.
func (p *Postfix) WaitDelivered(ctx context.Context, match func(Message) bool) (Message, error) {
	return waitDelivered(ctx, p.Deliveries, match, p.Log)
}

// WaitIdle waits until nothing but held mail is queued.
func (p *Postfix) WaitIdle(ctx context.Context) error {
	return waitIdle(ctx, p.Queue, p.Log)
}

// Queue is what postqueue(1) lists.
func (p *Postfix) Queue() ([]QueueEntry, error) {
	out, err := p.run(context.Background(), p.layout.command("postqueue"), "-c", p.layout.etc(), "-j")
	if err != nil {
		return nil, err
	}
	return parsePostqueue(out)
}

// Held is the hold queue.
func (p *Postfix) Held() ([]QueueEntry, error) { return held(p.Queue()) }

// parsePostqueue reads the JSON of "postqueue -j", one object a message.
func parsePostqueue(out []byte) ([]QueueEntry, error) {
	var entries []QueueEntry
	dec := json.NewDecoder(bytes.NewReader(out))
	for dec.More() {
		var q struct {
			QueueName  string `json:"queue_name"`
			QueueID    string `json:"queue_id"`
			Sender     string `json:"sender"`
			Recipients []struct {
				Address string `json:"address"`
			} `json:"recipients"`
		}
		if err := dec.Decode(&q); err != nil {
			return nil, fmt.Errorf("postqueue: %w", err)
		}
		if q.Sender == "MAILER-DAEMON" { // so it shows the null sender
			q.Sender = ""
		}
		e := QueueEntry{ID: q.QueueID, Queue: q.QueueName, Sender: q.Sender}
		for _, r := range q.Recipients {
			e.Recipients = append(e.Recipients, r.Address)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Cat is the content of a queued message, header and body, with LF.
func (p *Postfix) Cat(queueID string) ([]byte, error) {
	return p.run(context.Background(), p.layout.command("postcat"), "-c", p.layout.etc(), "-qbh", queueID)
}

// Release releases a held message and has it delivered; its content is not
// filtered again.
func (p *Postfix) Release(queueID string) error {
	ctx := context.Background()
	if _, err := p.run(ctx, p.layout.command("postsuper"), "-c", p.layout.etc(), "-H", queueID); err != nil {
		return err
	}
	// It is in the deferred queue now, to be looked at within minutes.
	_, err := p.run(ctx, p.layout.command("postqueue"), "-c", p.layout.etc(), "-i", queueID)
	return err
}

// Log is what Postfix has logged so far.
func (p *Postfix) Log() string {
	b, err := os.ReadFile(p.layout.log())
	if err != nil {
		return ""
	}
	return string(b)
}

// Reload sets parameters of main.cf beside those of the start, and returns when
// every process that had the old ones is gone. So it waits for SMTP connections
// which are open at that moment to end.
func (p *Postfix) Reload(ctx context.Context, main map[string]string) error {
	p.reload.Lock()
	defer p.reload.Unlock()
	if p.options.Main == nil {
		p.options.Main = map[string]string{}
	}
	maps.Copy(p.options.Main, main)
	if err := p.writeConfiguration(); err != nil {
		return fmt.Errorf("reload Postfix: %w", err)
	}
	old, err := p.servers()
	if err != nil {
		return fmt.Errorf("reload Postfix: %w", err)
	}
	if _, err := p.run(ctx, p.layout.postfix, "-c", p.layout.etc(), "reload"); err != nil {
		return fmt.Errorf("reload Postfix: %w", err)
	}
	err = testdaemon.Poll(ctx, func() (bool, error) {
		now, err := p.servers()
		return !slices.ContainsFunc(now, func(m testdaemon.Member) bool { return slices.Contains(old, m) }), err
	})
	if err != nil {
		return fmt.Errorf("reload Postfix: %w; the log ends:\n%s", err, tail(p.Log()))
	}
	return nil
}

// servers are the processes that handle incoming mail and its filters.
func (p *Postfix) servers() ([]testdaemon.Member, error) {
	members, err := testdaemon.Members(p.masterPid)
	return slices.DeleteFunc(members, func(m testdaemon.Member) bool {
		return m.Name != "smtpd" && m.Name != "cleanup"
	}), err
}

// Stop ends all processes of this Postfix and removes its folder.
func (p *Postfix) Stop() (err error) {
	p.stop.Do(func() {
		if p.masterPid == 0 { // the start failed half-way
			p.masterPid, _ = p.readPid()
		}
		if p.masterPid != 0 {
			err = testdaemon.StopGroup(p.masterPid)
		}
		err = errors.Join(err, p.layout.remove())
	})
	return err
}
