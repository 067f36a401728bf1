package mtaconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
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
	Wrong     Misplacement
	Misplaced bool
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
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoSendmail)
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSendmailCF {
		return nil, fmt.Errorf("%s: larger than %d octets", path, maxSendmailCF)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := parseSendmailCF(string(b))
	s.File = path
	var list []Filter
	mark := func(filters []SendmailFilter) {
		for i := range filters {
			filters[i].Ours = slices.ContainsFunc(o.Ours.Sockets, filters[i].Socket.same)
		}
	}
	mark(s.Defined)
	mark(s.Filters)
	for _, f := range s.Filters {
		list = append(list, f.Filter)
	}
	mail := strangers
	if o.Attach { // all daemons have the same list
		mail = everybody
	}
	s.Wrong, s.Misplaced = misplaced(list, mail, ReadOpenDKIM(o.OpenDKIMConf).Mode)
	return s, nil
}

// parseSendmailCF reads the X lines and two options. A line that begins with a blank
// continues the one before.
func parseSendmailCF(text string) *Sendmail {
	s := &Sendmail{}
	var listed []string
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
			case "RunAsUser":
				s.RunAsUser, _, _ = strings.Cut(strings.TrimSpace(value), ":")
			}
		}
	}
	for _, name := range listed {
		if at := slices.IndexFunc(s.Defined, func(f SendmailFilter) bool { return f.Name == name }); at >= 0 {
			s.Filters = append(s.Filters, s.Defined[at])
		}
	}
	return s
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
	return slices.ContainsFunc(s.Filters, func(f SendmailFilter) bool { return f.Ours })
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
