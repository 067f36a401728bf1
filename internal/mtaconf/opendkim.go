package mtaconf

import (
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/diskfile"
)

// OpenDKIMConf is where OpenDKIM says what it does.
const OpenDKIMConf = "/etc/opendkim.conf"

// maxOpenDKIMConf bounds what is read of it, and of a file that it names.
const maxOpenDKIMConf = 1 << 20

// An OpenDKIM is what an opendkim.conf(5) says, as far as authkey beside it is
// concerned.
type OpenDKIM struct {
	// Mode has the letters s, where it signs, and v, where it verifies: both, unless
	// the file can be read and says otherwise.
	Mode string
	// Readable: there is such a file, and it could be read.
	Readable bool

	settings map[string]string // by the name in lower case; the last one counts
}

// ReadOpenDKIM reads an opendkim.conf.
func ReadOpenDKIM(path string) OpenDKIM {
	d := OpenDKIM{Mode: "sv", settings: map[string]string{}}
	text, ok := readConf(path)
	if !ok {
		return d
	}
	d.Readable = true
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) >= 2 {
			d.settings[strings.ToLower(f[0])] = strings.Join(f[1:], " ")
		}
	}
	if mode := d.settings["mode"]; mode != "" {
		d.Mode = strings.ToLower(mode)
	}
	return d
}

func readConf(path string) (string, bool) {
	b, _, err := diskfile.Read(path, maxOpenDKIMConf)
	return string(b), err == nil
}

// Covers returns the setting that makes a signature cover the header field of a name,
// if there is one. By itself OpenDKIM signs the fields that RFC 6376 recommends.
func (d OpenDKIM) Covers(field string) (setting string, covered bool) {
	if !strings.Contains(d.Mode, "s") {
		return "", false
	}
	names := func(setting string) []string { return dataset(d.settings[strings.ToLower(setting)]) }
	if has(names("OversignHeaders"), field) { // whatever OmitHeaders says
		return "OversignHeaders", true
	}
	if added(names("SignHeaders"), field) && !added(names("OmitHeaders"), field) {
		return "SignHeaders", true
	}
	return "", false
}

// added reports whether a list has a name; where * in it stands for the default,
// whether it adds the name.
func added(list []string, name string) bool {
	if has(list, "*") {
		name = "+" + name
	}
	return has(list, name)
}

func has(list []string, name string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// dataset reads the members of a list, or of a file with one a line. Those of other
// kinds (databases, Lua) are not looked into.
func dataset(value string) []string {
	value = strings.TrimPrefix(value, "csl:")
	if path, ok := strings.CutPrefix(value, "file:"); ok || strings.HasPrefix(value, "/") {
		text, _ := readConf(path)
		var b strings.Builder
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			b.WriteString(line + ",")
		}
		value = b.String()
	}
	return strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// UsesOpenDKIM reports whether one of the SMTP servers asks OpenDKIM.
func (p *Postfix) UsesOpenDKIM() bool {
	return slices.ContainsFunc(p.Services, func(s Service) bool { return slices.ContainsFunc(s.Milters, isDKIM) })
}

// UsesOpenDKIM reports whether Sendmail asks OpenDKIM.
func (s *Sendmail) UsesOpenDKIM() bool {
	return slices.ContainsFunc(s.Filters, func(f SendmailFilter) bool { return isDKIM(f.Filter) })
}

func isDKIM(f Filter) bool { return f.role() == dkim }
