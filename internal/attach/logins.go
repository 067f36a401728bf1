package attach

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
)

// Limits of a map of logins.
const (
	// maxMapFile is the greatest size of the file in octets: a million lines and more.
	maxMapFile = 64 << 20
	// maxMapLine is the greatest length of a line in octets, continuations included.
	maxMapLine = 64 << 10
	// maxMapFaults is how many faults of one file are listed.
	maxMapFaults = 20
)

// A loginMap says which logins may use an address, by a name of Attacher.names, or by
// the domain for all its addresses that have no line of their own.
type loginMap map[string]grant

// A grant is one line of the file.
type grant struct {
	address wire.Address // as it was written; zero for a whole domain
	logins  string       // folded, "," between them
	line    int
}

// has reports whether the folded login is one of the grant's.
func (g grant) has(login string) bool {
	for l := range strings.SplitSeq(g.logins, ",") {
		if l == login {
			return true
		}
	}
	return false
}

// foldLogin puts the letters of ASCII into lower case: Postfix compares logins so.
func foldLogin(login string) string {
	return esmtp.LowerASCII(login)
}

// loadLogins reads a map.
func (a *Attacher) loadLogins(path string) (loginMap, error) {
	text, info, err := diskfile.Read(path, maxMapFile)
	if err != nil {
		return nil, fmt.Errorf("map of logins: %w", err)
	}
	logins, err := a.parseLogins(path, string(text))
	if err != nil {
		return nil, fmt.Errorf("map of logins: %w", diskfile.Excuse(err, text, info))
	}
	return logins, nil
}

// parseLogins reads the text form of smtpd_sender_login_maps, as postmap(1) and
// texthash: read it:
//
//	address  login, login ...
//	@domain  login, login ...
//
// A line that begins with a blank continues the one before. Empty lines, and those whose
// first character other than a blank is "#", are skipped, also between a line and its
// continuation. What Postfix skips with a warning is a fault here. So is an address without
// a domain, which Postfix would complete with a domain of its own.
func (a *Attacher) parseLogins(path, text string) (loginMap, error) {
	p := &mapParser{attacher: a, path: path, logins: make(loginMap)}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\uFEFF")) {
		number++
		content := strings.Trim(line, blanks)
		a.mapSaysEmpty = a.mapSaysEmpty || diskfile.SaysEmpty(line)
		switch {
		case content == "" || content[0] == '#':
		case strings.IndexByte(blanks, line[0]) < 0:
			p.finish()
			p.number = number
			p.add(content)
		case p.number == 0:
			p.fault(number, errors.New("continues no line: it begins with a blank"))
		default:
			p.add(content)
		}
		if len(p.faults) >= maxMapFaults {
			break
		}
	}
	p.finish()
	return p.logins, errors.Join(p.faults...)
}

const blanks = " \t\r\n\v\f"

// A mapParser gathers a map, and what is wrong with it.
type mapParser struct {
	attacher *Attacher
	path     string
	logins   loginMap
	faults   []error

	number int             // of the line that is being gathered; 0: none yet
	line   strings.Builder // what there is of it, up to a blank beyond maxMapLine
}

func (p *mapParser) fault(number int, err error) {
	p.faults = append(p.faults, &diskfile.LineError{Path: p.path, Line: number, Err: err})
}

// add adds a part to the line that is being gathered.
func (p *mapParser) add(part string) {
	if p.line.Len() <= maxMapLine {
		p.line.WriteString(part[:min(len(part), maxMapLine)])
		p.line.WriteByte(' ')
	}
}

// finish takes the line that has been gathered, if there is one.
func (p *mapParser) finish() {
	if p.line.Len() == 0 {
		return
	}
	line := p.line.String()
	p.line.Reset()
	if err := p.take(line); err != nil {
		p.fault(p.number, err)
	}
}

// take enters one line, whose parts all end with a blank.
func (p *mapParser) take(line string) error {
	if len(line) > maxMapLine {
		return fmt.Errorf("longer than %d octets", maxMapLine)
	}
	if !utf8.ValidString(line) {
		return errors.New("is not UTF-8")
	}
	key, value := cutKey(line)
	if strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7F }) {
		return fmt.Errorf("%.60q has a control character", key)
	}
	if err := diskfile.CheckName(key); err != nil {
		return fmt.Errorf("%.60q %w", key, err)
	}
	if esmtp.HasWildcard(key) {
		return fmt.Errorf("%.60q has a wildcard, and matches nothing: write user@domain, or @domain for a whole one", key)
	}
	logins := strings.FieldsFunc(foldLogin(value), func(r rune) bool { return r == ',' || strings.ContainsRune(blanks, r) })
	if len(logins) == 0 {
		return fmt.Errorf("%.60q has no login after it", key)
	}
	for _, login := range logins {
		if err := diskfile.CheckName(login); err != nil {
			return fmt.Errorf("%.60q: login %.60q %w", key, login, err)
		}
		if esmtp.HasWildcard(login) {
			return fmt.Errorf("%.60q: login %.60q has a wildcard, and matches nothing: name each login", key, login)
		}
	}
	name, address, err := p.name(key)
	if err != nil {
		return fmt.Errorf("%.60q: %w", key, err)
	}
	if first, twice := p.logins[name]; twice {
		return fmt.Errorf("%.60q is there twice, first in line %d", key, first.line)
	}
	p.logins[name] = grant{address: address, logins: strings.Join(logins, ","), line: p.number}
	return nil
}

// name returns under which name a key is entered, and the address that it is, if it is
// no domain.
func (p *mapParser) name(key string) (name string, address wire.Address, err error) {
	if domain, ok := strings.CutPrefix(key, "@"); ok {
		name, err = wire.ParseDomain(domain)
		return name, wire.Address{}, err
	}
	address, err = wire.ParseAddress(key)
	if errors.Is(err, wire.ErrNoDomain) {
		err = fmt.Errorf("%w: write user@domain, or @domain", err)
	}
	if err != nil {
		return "", wire.Address{}, err
	}
	return p.attacher.names(address)[0], address, nil
}

// cutKey cuts a line after its key, at the first blank outside quotes.
func cutKey(line string) (key, value string) {
	if i := esmtp.IndexUnquoted(line, blanks); i >= 0 {
		return line[:i], line[i:]
	}
	return line, "" // no login follows, perhaps because a quote never ends
}
