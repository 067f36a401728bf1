package mtaconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNoPostfix says that there is no postconf(1).
var ErrNoPostfix = errors.New("no Postfix on this machine")

// commandTimeout bounds each run of one of Postfix's programs.
const commandTimeout = 10 * time.Second

// A Postfix is what a Postfix's configuration says about milters.
type Postfix struct {
	ConfigDir string
	Explicit  bool // the directory was named: commands name it too
	QueueDir  string
	Owner     string // the user that talks to milters
	// NonSMTPD are the milters for mail that does not come by SMTP.
	NonSMTPD []Filter
	// Services are the SMTP servers of master.cf, in its order.
	Services []Service

	postconf string
	main     map[string]string // references expanded
	dkim     OpenDKIM
	attach   bool
	daemons  []string
	ours     []Socket
	others   []process // of master.cf, beside the SMTP servers
}

// A process is a line of master.cf.
type process struct {
	name    string // as postconf has it: cleanup/unix
	program string
	own     map[string]string // parameters of its own
}

// A Service is an SMTP server of master.cf.
type Service struct {
	Name   string // as postconf has it: smtp/inet
	Chroot bool
	// Milters are those that it asks, each with the DefaultAction that holds for it.
	Milters []Filter
	// NoMilters: receive_override_options keeps it from asking any. OtherOverrides
	// are the options beside that one.
	NoMilters      bool
	OtherOverrides string
	// Submission: our own users hand mail in here.
	Submission bool
	// Reinjection: a content filter hands back here what was filtered before.
	Reinjection bool
	// Misplaced is a filter on the wrong side of authkey; nil: none is.
	Misplaced *Misplacement

	own           map[string]string // parameters of its own
	defaultAction string
}

// Options say which MTA to read, and whose.
type Options struct {
	ConfigDir    string   // Postfix's; empty: its own
	Daemons      []string // milter_macro_daemon_name of Postfix's submissions
	OpenDKIMConf string
	Ours         Ours
	// Attach: the milter puts keys on our users' mail, so submission has to ask it
	// too.
	Attach bool
}

// parameters are those that are read of main.cf.
var parameters = []string{"config_directory", "queue_directory", "mail_owner", "compatibility_level",
	"smtpd_milters", "non_smtpd_milters", "milter_default_action", "content_filter",
	"milter_macro_daemon_name", "receive_override_options",
	// What takes milters, or their changes, away: losses.go.
	"smtpd_milter_maps", "smtpd_proxy_filter", "milter_macro_defaults", "milter_protocol", "milter_mail_macros",
	"milter_content_timeout", "cleanup_service_name", "header_checks", "message_drop_headers", "milter_header_checks", "smtp_header_checks", "lmtp_header_checks",
	"smtpd_authorized_xclient_hosts", "qmqpd_authorized_clients", "inet_interfaces", "smtpd_upstream_proxy_protocol",
	"postscreen_upstream_proxy_protocol", "multi_instance_directories", "soft_bounce"}

// ReadPostfix reads the configuration of a Postfix. The error wraps ErrNoPostfix
// where there is none.
func ReadPostfix(ctx context.Context, o Options) (*Postfix, error) {
	command, err := postconfCommand()
	if err != nil {
		return nil, err
	}
	p := &Postfix{ConfigDir: o.ConfigDir, Explicit: o.ConfigDir != "", postconf: command, dkim: ReadOpenDKIM(o.OpenDKIMConf),
		attach: o.Attach, daemons: o.Daemons, ours: o.Ours.Sockets}
	out, err := p.run(ctx, append([]string{"-x"}, parameters...)...)
	if err != nil {
		return nil, err
	}
	p.main = settings(out)
	p.QueueDir, p.Owner = p.main["queue_directory"], p.main["mail_owner"]
	if !p.Explicit {
		p.ConfigDir = p.main["config_directory"]
	}
	if err := p.readServices(ctx); err != nil {
		return nil, err
	}
	p.findOurs(o.Ours.Sockets)
	return p, nil
}

func postconfCommand() (string, error) {
	for _, name := range []string{"postconf", "/usr/sbin/postconf", "/usr/local/sbin/postconf"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoPostfix
}

// run runs postconf on the configuration.
func (p *Postfix) run(ctx context.Context, args ...string) (string, error) {
	out, _, err := p.command(ctx, "postconf", args...)
	return out, err
}

// command runs one of Postfix's programs on the configuration. complaint is what it says
// on standard error, which an error has too.
func (p *Postfix) command(ctx context.Context, program string, args ...string) (out, complaint string, err error) {
	if p.postconf == "" {
		return "", "", ErrNoPostfix
	}
	if p.Explicit {
		args = append([]string{"-c", p.ConfigDir}, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(p.postconf), program), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		complaint = strings.TrimSpace(stderr.String())
		return "", complaint, fmt.Errorf("%s: %w: %s", program, err, complaint)
	}
	return stdout.String(), "", nil
}

// settings reads "name = value", one a line.
func settings(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, "=")
		m[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return m
}

func (p *Postfix) readServices(ctx context.Context) error {
	out, err := p.run(ctx, "-F", "*/*/chroot", "*/*/command")
	if err != nil {
		return err
	}
	own, err := p.run(ctx, "-Px")
	if err != nil {
		return err
	}
	overrides := settings(own)
	chroot := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		if name, ok := strings.CutSuffix(key, "/chroot"); ok {
			chroot[name] = value
			continue
		}
		name, ok := strings.CutSuffix(key, "/command")
		command := strings.Fields(value)
		if !ok || len(command) == 0 {
			continue
		}
		line := process{name: name, program: filepath.Base(command[0]), own: map[string]string{}}
		for key, value := range overrides {
			if parameter, ok := strings.CutPrefix(key, name+"/"); ok {
				line.own[parameter] = value
			}
		}
		if line.program != "smtpd" {
			p.others = append(p.others, line)
			continue
		}
		p.Services = append(p.Services, p.complete(Service{Name: name, own: line.own}, chroot[name]))
	}
	if p.contentFiltered() {
		for i := range p.Services {
			filter, ok := p.Services[i].own["content_filter"]
			p.Services[i].Reinjection = ok && filter == ""
		}
	}
	return nil
}

// complete fills in what a service's parameters say.
func (p *Postfix) complete(s Service, chroot string) Service {
	s.Chroot = chroot == "y" || chroot == "-" && p.chrootByDefault()
	options := splitList(p.value(s.own, "receive_override_options"))
	others := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "no_milters" })
	s.NoMilters, s.OtherOverrides = len(others) < len(options), strings.Join(others, ",")
	s.defaultAction = p.value(s.own, "milter_default_action")
	_, kind, _ := strings.Cut(s.Name, "/")
	_, port := s.listens()
	// A name that main.cf gives to all of them makes none a submission service.
	s.Submission = kind == "inet" && slices.Contains(submissionPorts, port) ||
		!s.Port25() && p.isDaemon(s.own["milter_macro_daemon_name"])
	s.Milters = parseList(p.value(s.own, "smtpd_milters"))
	return s
}

// submissionPorts are those at which users hand mail in, by name and number.
var submissionPorts = []string{"submission", "submissions", "smtps", "587", "465"}

// value is that of a parameter for a service with parameters of its own.
func (p *Postfix) value(own map[string]string, name string) string {
	if v, ok := own[name]; ok {
		return v
	}
	return p.main[name]
}

// isDaemon reports whether the milter takes mail with this daemon name for our users'.
func (p *Postfix) isDaemon(name string) bool {
	return slices.ContainsFunc(p.daemons, func(d string) bool { return strings.EqualFold(d, name) })
}

// listens splits a service's name; of smtpd/pass the host is empty.
func (s Service) listens() (host, port string) {
	name, _, _ := strings.Cut(s.Name, "/")
	at := strings.LastIndexByte(name, ':')
	return strings.Trim(name[:max(at, 0)], "[]"), name[at+1:]
}

// chrootByDefault is what "-" means in master.cf's column.
func (p *Postfix) chrootByDefault() bool {
	major, _, _ := strings.Cut(p.main["compatibility_level"], ".")
	level, err := strconv.Atoi(major)
	return err == nil && level < 1
}

// contentFiltered reports whether mail goes through a content filter and comes back.
func (p *Postfix) contentFiltered() bool {
	return p.main["content_filter"] != "" ||
		slices.ContainsFunc(p.Services, func(s Service) bool { return s.own["content_filter"] != "" })
}

// findOurs marks the filters that are authkey, and looks at their places.
func (p *Postfix) findOurs(ours []Socket) {
	former := p.former()
	mark := func(filters []Filter, chroot bool) {
		for i := range filters {
			f := &filters[i]
			f.Ours = slices.ContainsFunc(ours, p.OnHost(f.Socket, chroot).same)
			f.OldSocket = !f.Ours && slices.Contains(former, compact(f.Text))
			f.WrongPath = !f.Ours && !f.OldSocket && slices.ContainsFunc(ours, p.OnHost(f.Socket, !chroot).same)
		}
	}
	p.NonSMTPD = parseList(p.main["non_smtpd_milters"])
	mark(p.NonSMTPD, false)
	for i := range p.Services {
		s := &p.Services[i]
		mark(s.Milters, s.Chroot)
		for k := range s.Milters {
			if f := &s.Milters[k]; f.DefaultAction == "" {
				f.DefaultAction = s.defaultAction
			}
		}
		s.Misplaced = misplaced(s.Milters, s.traffic(), p.dkim.Mode)
	}
}

// OnHost is the socket to which a process of Postfix connects, as the host names
// it: a relative path begins at the queue directory, and to a chrooted process an
// absolute one does as well.
func (p *Postfix) OnHost(s Socket, chroot bool) Socket {
	if s.Network == "unix" && (chroot || !filepath.IsAbs(s.Address)) {
		s.Address = filepath.Join(p.QueueDir, s.Address)
	}
	return s
}

// Asks reports whether the service asks authkey.
func (s Service) Asks() bool { return !s.NoMilters && hasOurs(s.Milters) }

// OptsOut reports whether the service itself, not main.cf, says that it asks others
// or nobody.
func (s Service) OptsOut() bool {
	_, list := s.own["smtpd_milters"]
	return list && !hasOurs(s.Milters) || s.NoMilters && s.own["receive_override_options"] != ""
}

// Emptied reports whether an option of the service's own leaves it without milters.
func (s Service) Emptied() bool {
	list, own := s.own["smtpd_milters"]
	return own && list == ""
}

func (s Service) traffic() traffic {
	if s.Submission {
		return users
	}
	return strangers
}

// Inbound reports whether mail of strangers comes in at the service.
func (s Service) Inbound() bool { return !s.Submission && !s.Reinjection }

// Port25 reports whether it is port 25 itself, by the name that it usually has, or gets
// its connections from postscreen(8).
func (s Service) Port25() bool {
	_, port := s.listens()
	return strings.HasSuffix(s.Name, "/pass") || port == "smtp" || port == "25"
}

// Command is a shell command line of one of Postfix's programs for this
// configuration.
func (p *Postfix) Command(program string, args ...string) string {
	words := []string{program}
	if p.Explicit {
		words = append(words, "-c", Quote(p.ConfigDir))
	}
	for _, arg := range args {
		words = append(words, Quote(arg))
	}
	return strings.Join(words, " ")
}

// Quote makes a word for the shell.
func Quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
