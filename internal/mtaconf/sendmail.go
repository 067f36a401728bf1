package mtaconf

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/diskfile"
)

// SendmailCF is where Sendmail's configuration is.
const SendmailCF = "/etc/mail/sendmail.cf"

// ErrNoSendmail says that there is no sendmail.cf.
var ErrNoSendmail = errors.New("no Sendmail on this machine")

// maxSendmailCF bounds what is read of it.
const maxSendmailCF = 16 << 20

// A Sendmail is what a sendmail.cf says about milters.
type Sendmail struct {
	File      string
	RunAsUser string // empty: root
	// Filters are those of InputMailFilters, in their order. F=T is tempfail, F=R
	// reject, F=4 shutdown, none accept.
	Filters []SendmailFilter
	// Defined are all X lines' names, listed or not, with the socket.
	Defined   []SendmailFilter
	Misplaced *Misplacement // a filter on the wrong side of authkey; nil: none is
	// Daemons are those of DaemonPortOptions.
	Daemons []SendmailDaemon

	traffic traffic
	dkim    string // Mode of OpenDKIM
}

// A SendmailDaemon is a listener of Sendmail.
type SendmailDaemon struct {
	Name string
	// Own: it has InputMailFilters of its own, in place of those for all, and Filters
	// are these.
	Own     bool
	Filters []SendmailFilter
	// Submission: our own users hand mail in here.
	Submission bool
	// Renamed: its name makes the milter take all of its mail for that of our users,
	// and it is none for them alone.
	Renamed bool
	// Loopback: only this machine can connect to it.
	Loopback bool
}

// Asks reports whether the daemon asks authkey, where one with a list of its own is
// meant.
func (d SendmailDaemon) Asks() bool { return asks(d.Filters) }

func asks(filters []SendmailFilter) bool {
	return slices.ContainsFunc(filters, func(f SendmailFilter) bool { return f.Ours })
}

// A SendmailFilter is an X line.
type SendmailFilter struct {
	Name string
	Filter
	// EndTimeout is for how long Sendmail waits for the answer at the end of a message.
	EndTimeout time.Duration
}

// defaultEndTimeout is Sendmail's own.
const defaultEndTimeout = 5 * time.Minute

// ReadSendmail reads a sendmail.cf. The error wraps ErrNoSendmail where there is
// none.
func ReadSendmail(path string, o Options) (*Sendmail, error) {
	b, _, err := diskfile.Read(path, maxSendmailCF)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoSendmail)
	}
	if err != nil {
		return nil, err
	}
	s := parseSendmailCF(string(b))
	s.File = path
	mark := func(filters []SendmailFilter) {
		for i := range filters {
			filters[i].Ours = slices.ContainsFunc(o.Ours.Sockets, filters[i].Socket.same)
		}
	}
	mark(s.Defined)
	mark(s.Filters)
	for i := range s.Daemons {
		d := &s.Daemons[i]
		mark(d.Filters)
		if slices.ContainsFunc(o.Daemons, func(name string) bool { return strings.EqualFold(name, d.Name) }) {
			d.Submission, d.Renamed = true, !d.Submission
		}
	}
	s.traffic = strangers
	if o.Attach { // all daemons have the same list
		s.traffic = everybody
	}
	s.dkim = ReadOpenDKIM(o.OpenDKIMConf).Mode
	s.Misplaced = misplaced(plainFilters(s.Filters), s.traffic, s.dkim)
	return s, nil
}

func plainFilters(filters []SendmailFilter) []Filter {
	var list []Filter
	for _, f := range filters {
		list = append(list, f.Filter)
	}
	return list
}

// parseSendmailCF reads the X lines and two options. A line that begins with a blank
// continues the one before.
func parseSendmailCF(text string) *Sendmail {
	s := &Sendmail{}
	var listed []string
	var daemons [][]string // the lists of their own
	text = strings.NewReplacer("\n\t", " ", "\n ", " ").Replace(text)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "X"):
			s.Defined = append(s.Defined, parseX(line[1:]))
		case strings.HasPrefix(line, "O "):
			name, value, _ := strings.Cut(line[2:], "=")
			switch strings.TrimSpace(name) {
			case "InputMailFilters":
				listed = splitList(value)
			case "DaemonPortOptions":
				d, own := parseDaemon(value)
				s.Daemons, daemons = append(s.Daemons, d), append(daemons, own)
			case "RunAsUser":
				s.RunAsUser, _, _ = strings.Cut(strings.TrimSpace(value), ":")
			}
		}
	}
	s.Filters = s.named(listed)
	for i, own := range daemons {
		s.Daemons[i].Filters = s.named(own)
	}
	return s
}

// named are the filters of these names, as far as they are defined.
func (s *Sendmail) named(names []string) []SendmailFilter {
	var filters []SendmailFilter
	for _, name := range names {
		if at := slices.IndexFunc(s.Defined, func(f SendmailFilter) bool { return f.Name == name }); at >= 0 {
			filters = append(filters, s.Defined[at])
		}
	}
	return filters
}

// parseDaemon reads "Name=MTA, Port=smtp, Modifiers=a, InputMailFilters=one;two". Of a
// name the first letter counts; own are the filters' names.
func parseDaemon(value string) (d SendmailDaemon, own []string) {
	for option := range strings.SplitSeq(value, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(option), "=")
		value = strings.TrimSpace(value)
		switch {
		case key == "":
		case key[0] == 'N':
			d.Name = value
		case key[0] == 'P':
			d.Submission = d.Submission || slices.Contains(submissionPorts, value)
		case key[0] == 'A':
			d.Loopback = isLoopback(value)
		case key[0] == 'M': // a: who has not logged in is refused
			d.Submission = d.Submission || strings.Contains(value, "a")
		case key[0] == 'I':
			d.Own = true
			own = strings.FieldsFunc(value, func(r rune) bool { return r == ';' || r == ' ' })
		}
	}
	return d, own
}

// parseX reads "name, S=socket, F=flag, T=C:5m;S:10s;R:10s;E:5m".
func parseX(line string) SendmailFilter {
	name, rest, _ := strings.Cut(line, ",")
	f := SendmailFilter{Name: strings.TrimSpace(name), EndTimeout: defaultEndTimeout}
	f.DefaultAction = "accept"
	for equate := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(equate, "=")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "S":
			f.Text = value
			f.Socket, _ = parseSendmail(value) // zero where it cannot be read
		case "F":
			f.DefaultAction = map[string]string{"T": "tempfail", "R": "reject", "4": "shutdown"}[value]
		case "T":
			for part := range strings.SplitSeq(value, ";") {
				if wait, ok := strings.CutPrefix(strings.TrimSpace(part), "E:"); ok {
					f.EndTimeout = sendmailTime(wait)
				}
			}
		}
	}
	return f
}

// sendmailTime reads a number and a unit, of which seconds is the default here.
func sendmailTime(s string) time.Duration {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if s == "" {
		return 0
	}
	unit, digits := time.Second, s
	if u, ok := units[s[len(s)-1]]; ok {
		unit, digits = u, s[:len(s)-1]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return time.Duration(n) * unit
}

// Asks reports whether Sendmail asks authkey.
func (s *Sendmail) Asks() bool {
	return asks(s.Filters)
}

// A SendmailPlan is what has to be in sendmail.mc.
type SendmailPlan struct {
	Line string // the one for authkey
	// Order are the names of all filters in the order in which they are to run; empty where
	// authkey is the only one, or where sendmail.cf is not known.
	Order []string
	// Moves says which of the others change their place, and why.
	Moves []string
}

// ourName is the filter's name where sendmail.cf has none for it.
const ourName = "authkey"

// Plan says what sendmail.mc must have so that Sendmail asks authkey once, at its
// place, with action while it cannot; nothing reports that it has that already. s may
// be nil: then only the line is known. verify is how long the milter may take to answer.
func (s *Sendmail) Plan(ours Ours, action string, verify time.Duration) (plan SendmailPlan, nothing bool, err error) {
	if plan.Line, err = InputMailFilter(ours, action, verify); err != nil || s == nil {
		return plan, false, err
	}
	own := Filter{Text: ourName, Ours: true}
	var others []Filter
	count, fits := 0, true
	for _, f := range s.Filters {
		if !f.Ours {
			f.Filter.Text = f.Name // so that render has names
			others = append(others, f.Filter)
			continue
		}
		count++
		fits = fits && Fits(f.DefaultAction, action) && f.EndTimeout >= verify
	}
	if count == 1 && fits && s.Misplaced == nil && !slices.ContainsFunc(s.Daemons, func(d SendmailDaemon) bool { return d.Own && !d.Asks() && !d.Submission }) {
		return plan, true, nil
	}
	if len(others) == 0 {
		return plan, false, nil
	}
	list, moved := arrange(others, own, s.traffic, s.dkim)
	for _, f := range list {
		plan.Order = append(plan.Order, f.Text)
	}
	plan.Moves = moves(moved)
	return plan, false, nil
}

// Text is the plan for people: what to write into sendmail.mc, one a line.
func (p SendmailPlan) Text() string {
	lines := []string{p.Line}
	if len(p.Order) > 0 {
		order := strings.Join(p.Order, ", ")
		lines = append(lines, "in sendmail.mc: the filters' lines in this order: "+order,
			fmt.Sprintf("in sendmail.mc, if it has confINPUT_MAIL_FILTERS: define(`confINPUT_MAIL_FILTERS', `%s')dnl", order))
	}
	for _, move := range p.Moves {
		lines = append(lines, "which "+move)
	}
	return strings.Join(lines, "\n")
}

// SendmailCommands make sendmail.cf of sendmail.mc, and have it read.
const SendmailCommands = "make -C /etc/mail\nsystemctl restart sendmail"

// Sendmail waits for these long for a milter: to take what it sends, and to answer.
const (
	sendTimeout  = 30 * time.Second
	replyTimeout = 30 * time.Second
	leastEnd     = time.Minute
)

// InputMailFilter is the line for sendmail.mc that makes Sendmail ask authkey.
// action is what happens while it cannot; verify is how long the milter may take to
// answer.
func InputMailFilter(ours Ours, action string, verify time.Duration) (string, error) {
	if len(ours.Sockets) == 0 {
		return "", errNowhere
	}
	s := ours.Sockets[0]
	flag := ""
	if action != "accept" {
		flag = ", F=T"
	}
	return fmt.Sprintf("INPUT_MAIL_FILTER(`authkey', `S=%s%s, T=S:%s;R:%s;E:%s')dnl",
		s.sendmail(), flag, seconds(sendTimeout), seconds(replyTimeout), seconds(max(leastEnd, 2*verify+10*time.Second))), nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) + "s" }
