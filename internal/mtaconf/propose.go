package mtaconf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// An Edit sets one parameter.
type Edit struct {
	Service string `json:"service,omitempty"` // of master.cf, as smtp/inet; empty: main.cf
	Name    string `json:"name"`
	Old     string `json:"old"`
	WasSet  bool   `json:"was_set"` // false: there was no such line, Old is empty
	New     string `json:"new"`
	Ours    string `json:"ours,omitempty"` // the entry of New that is authkey
	// Moves says which entries of others change their place, and why.
	Moves []string `json:"-"`
}

// parameter is the parameter as postconf(1) names it.
func (e Edit) parameter() string {
	if e.Service != "" {
		return e.Service + "/" + e.Name
	}
	return e.Name
}

// args are postconf's for setting the parameter to a value.
func (e Edit) args(value string) []string {
	if e.Service != "" {
		return []string{"-P", e.parameter() + "=" + value}
	}
	return []string{"-e", e.parameter() + " = " + value}
}

// Line is the edit as a line of main.cf, or an option of the service in master.cf.
func (e Edit) Line() string {
	if e.Service != "" {
		return strings.TrimSpace("-o " + e.Name + "=" + e.New)
	}
	return strings.TrimSpace(e.Name + " = " + e.New)
}

// WriteEdits writes edits as the lines that the files get, and as commands.
func (p *Postfix) WriteEdits(w io.Writer, edits []Edit) error {
	var b strings.Builder
	for _, e := range edits {
		where := filepath.Join(p.ConfigDir, fileOf(e))
		if e.Service != "" {
			where += ", behind " + e.Service
		}
		fmt.Fprintf(&b, "# %s\n", where)
		for _, move := range e.Moves {
			fmt.Fprintf(&b, "# %s\n", move)
		}
		fmt.Fprintf(&b, "%s\n\n", e.Line())
	}
	b.WriteString("# the same as commands\n")
	for _, e := range edits {
		b.WriteString(p.EditCommand(e) + "\n")
	}
	b.WriteString(p.Command("postfix", "reload") + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// EditCommand is the shell command line for an edit.
func (p *Postfix) EditCommand(e Edit) string { return p.Command("postconf", e.args(e.New)...) }

// Unreachable says that Postfix cannot come to any of our sockets.
type Unreachable struct {
	Ours    Ours
	Postfix *Postfix // whose smtpd is chrooted
}

func (u *Unreachable) Error() string {
	return fmt.Sprintf("Postfix's smtpd is chrooted in %s and cannot reach %s", u.Postfix.QueueDir, u.Ours.Sockets[0])
}

// DefaultAction is what an MTA should do while it cannot ask the milter: a filter
// that is down must be no way round it, and in test mode must not hold up mail that
// it would let through anyway.
func DefaultAction(mode string) string {
	if mode == "test" {
		return "accept"
	}
	return "tempfail"
}

// socket says how Postfix is to name one of our sockets.
func (p *Postfix) socket(ours Ours) (string, error) {
	chroot := slices.ContainsFunc(p.Services, func(s Service) bool { return s.Chroot })
	for _, s := range ours.Sockets {
		if s.Network == "inet" {
			host, port, err := net.SplitHostPort(s.Address)
			if err != nil {
				continue
			}
			if host == "" || isAny(host) {
				host = "127.0.0.1"
			}
			return "inet:" + net.JoinHostPort(host, port), nil
		}
		relative, err := filepath.Rel(resolved(p.QueueDir), resolved(s.Address))
		switch {
		case err == nil && filepath.IsLocal(relative):
			return "unix:" + relative, nil
		case !chroot:
			return "unix:" + s.Address, nil
		}
	}
	if len(ours.Sockets) == 0 {
		return "", errNowhere
	}
	return "", &Unreachable{ours, p}
}

var errNowhere = errors.New("the milter listens nowhere")

// Propose says what has to change so that Postfix asks authkey, at the right place
// among other milters, where strangers' mail comes in, and our users' where keys are
// attached, and nowhere else; and does action while it cannot ask. The other milters stay as they are. No edits means
// that nothing has to change. The error may be an *Unreachable.
func (p *Postfix) Propose(ctx context.Context, ours Ours, action string) ([]Edit, error) {
	name, err := p.socket(ours)
	if err != nil {
		return nil, err
	}
	raw, err := p.raw(ctx)
	if err != nil {
		return nil, err
	}
	own := Filter{Text: name, DefaultAction: p.main["milter_default_action"], Ours: true}
	if !Fits(own.DefaultAction, action) {
		own.Text, own.DefaultAction = fmt.Sprintf("{ %s, default_action=%s }", name, action), action
	}
	own.Socket, _ = parsePostfix(name)

	var edits []Edit
	add := func(service, name, value string, moved ...Filter) {
		e := Edit{Service: service, Name: name, New: value, Moves: moves(moved)}
		if at := slices.IndexFunc(splitList(value), func(text string) bool { return compact(text) == compact(own.Text) }); at >= 0 {
			e.Ours = splitList(value)[at]
		}
		e.Old, e.WasSet = raw.get(e.parameter())
		edits = append(edits, e)
	}
	main := p.mark(parseList(p.main["smtpd_milters"]))
	placed, moved := p.settle(main, own, action, strangers)
	if placed != nil {
		main = placed
		add("", "smtpd_milters", render(main), moved...)
	}
	for _, s := range p.Services {
		if list, moved := p.forService(s, main, own, action); list != nil {
			add(s.Name, "smtpd_milters", compact(render(list)), moved...)
		}
		if p.attach && s.Submission && s.NoMilters {
			add(s.Name, "receive_override_options", s.OtherOverrides)
		}
	}
	// Often it says $smtpd_milters; mail from here is not to be asked about.
	if value, _ := raw.get("non_smtpd_milters"); hasOurs(p.NonSMTPD) || placed != nil && strings.Contains(value, "$") {
		add("", "non_smtpd_milters", render(without(p.NonSMTPD)))
	}
	return edits, nil
}

// Fits reports whether a default action may stay where want is wanted: in place of
// tempfail everything that does not let mail through.
func Fits(action, want string) bool {
	return action == want || want == "tempfail" && action != "accept"
}

// forService returns the list of a service's own that it needs beside main's, or
// nil; and which filters of others have moved.
func (p *Postfix) forService(s Service, main []Filter, own Filter, action string) (list, moved []Filter) {
	_, hasOwn := s.own["smtpd_milters"]
	list = main
	if hasOwn {
		list = s.Milters
	}
	switch {
	case s.Reinjection && hasOurs(list):
		return append([]Filter{}, without(list)...), nil
	case s.Reinjection:
		return nil, nil
	case hasOwn && (s.Port25() && s.Inbound() || s.Submission && p.attach || hasOurs(list)):
		return p.settle(list, own, action, s.traffic())
	case !hasOwn && s.Submission:
		if misplaced(list, users, p.dkim.Mode) != nil {
			return p.settle(list, own, action, users)
		}
	}
	return nil, nil
}

// settle puts authkey into a list, once and where it belongs; nil where it is there and
// well. moved are the filters of others that change their place.
func (p *Postfix) settle(list []Filter, own Filter, action string, mail traffic) (settled, moved []Filter) {
	at := slices.IndexFunc(list, func(f Filter) bool { return f.Ours })
	if at < 0 || misplaced(list, mail, p.dkim.Mode) != nil {
		return arrange(without(list), own, mail, p.dkim.Mode)
	}
	current := list[at].DefaultAction
	if current == "" {
		current = p.main["milter_default_action"]
	}
	rest := without(list)
	if Fits(current, action) && len(rest) == len(list)-1 {
		return nil, nil
	}
	if Fits(current, action) {
		own = list[at]
	}
	// Where it is, but for what is in front of it and goes.
	return slices.Insert(rest, len(without(list[:at])), own), nil
}

// mark returns filters of main.cf, ours marked as those of the services are.
func (p *Postfix) mark(filters []Filter) []Filter {
	for i := range filters {
		for _, s := range p.Services {
			for _, f := range s.Milters {
				if f.Text == filters[i].Text {
					filters[i].Ours = filters[i].Ours || f.Ours
					filters[i].WrongPath = filters[i].WrongPath || f.WrongPath
					filters[i].OldSocket = filters[i].OldSocket || f.OldSocket
				}
			}
		}
	}
	return filters
}

// without drops authkey, and what was meant to be.
func without(filters []Filter) []Filter {
	return slices.DeleteFunc(slices.Clone(filters), func(f Filter) bool { return f.Ours || f.leadsNowhere() })
}

func render(filters []Filter) string {
	var texts []string
	for _, f := range filters {
		texts = append(texts, f.Text)
	}
	return strings.Join(texts, ", ")
}

// compact writes a list without blanks, which postconf does not take for master.cf.
func compact(list string) string {
	parts := splitList(list)
	for i, part := range parts {
		if inner, ok := strings.CutPrefix(part, "{"); ok {
			parts[i] = "{" + compact(strings.TrimSuffix(inner, "}")) + "}"
		}
	}
	return strings.Join(parts, ",")
}

// rawSettings are what the files set, references as they are.
type rawSettings map[string]string

func (r rawSettings) get(parameter string) (value string, set bool) {
	value, set = r[parameter]
	return value, set
}

func (p *Postfix) raw(ctx context.Context) (rawSettings, error) {
	main, err := p.run(ctx, "-n", "smtpd_milters", "non_smtpd_milters")
	if err != nil {
		return nil, err
	}
	master, err := p.run(ctx, "-P")
	if err != nil {
		return nil, err
	}
	return settings(main + master), nil
}
