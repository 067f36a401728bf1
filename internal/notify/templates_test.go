package notify

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/authkey/authkey/milter"
)

// folder writes templates into a folder of their own.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestBuiltinTexts executes every built-in template with everything that it tells apart.
func TestBuiltinTexts(t *testing.T) {
	ts, err := loadTemplates("")
	if err != nil {
		t.Fatal(err)
	}
	for _, language := range []string{"en", "de"} {
		for _, kind := range []string{kindDSN, kindNotice} {
			seen := make(map[string]string)
			for _, result := range []string{"pass", "fail", "nokey", "none", "temperror", "permerror", "required"} {
				fields := MessageFields{Arrived: arrived, Checked: "a@sender.example", Result: result, Host: "mx.example.com"}
				if result == "required" {
					fields.Result, fields.Reason = "fail", result
				}
				dsn := DSNFields{MessageFields: fields, Recipients: []string{"bob@rcpt.example"}}
				notice := NoticeFields{MessageFields: fields, Recipient: "bob@rcpt.example"}
				notice.Sender = "a@sender.example"
				data := any(dsn)
				if kind == kindNotice {
					data = notice
				}
				text, err := ts.render(kind, language, data)
				if err != nil || text.language != language {
					t.Errorf("%s in %s: %v, in %s", kind, language, err, text.language)
				}
				if other, ok := seen[text.body]; ok {
					t.Errorf("%s in %s says the same for %s and %s", kind, language, result, other)
				}
				seen[text.body] = result
				for line := range strings.SplitSeq(text.body, "\n") {
					if n := len([]rune(line)); n > 80 {
						t.Errorf("%s in %s: line of %d characters: %s", kind, language, n, line)
					}
					if strings.TrimRight(line, " ") != line || strings.Contains(line, "<no value>") {
						t.Errorf("%s in %s: %q", kind, language, line)
					}
				}
			}
		}
	}
}

func TestTemplateFolder(t *testing.T) {
	dir := folder(t, map[string]string{
		"notice.fr.txt":    "Subject: Message de {{.Sender}}\r\n\r\nPour {{.Recipient}}\r\n",
		"notice.pt-br.txt": "Subject: Mensagem\n\nPara {{.Recipient}}\n",
		"notice.de.txt":    "Subject: Eigener Text\n\n{{with .Subject}}{{.}}{{else}}ohne Betreff{{end}}\n",
		"README":           "not ours",
		"notice.fr.txt~":   "{{broken",
	})
	ts, err := loadTemplates(dir)
	if err != nil {
		t.Fatal(err)
	}
	for language, want := range map[string]string{
		"fr": "fr: Message de a@b.example", "FR_ca": "fr: Message de a@b.example", "pt-BR": "pt-br: Mensagem",
		"pt": "en: Mail from a@b.example was not delivered to you", "": "en: Mail from a@b.example was not delivered to you",
		"de-AT-1996": "de: Eigener Text", "../../etc/passwd": "en: Mail from a@b.example was not delivered to you",
	} {
		text, err := ts.render(kindNotice, language, NoticeFields{MessageFields: MessageFields{Sender: "a@b.example"}, Recipient: "c@d.example"})
		if got := text.language + ": " + text.subject; got != want || err != nil {
			t.Errorf("language %q: %q, %v, want %q", language, got, err, want)
		}
	}
	if text, _ := ts.render(kindDSN, "fr", DSNFields{Recipients: []string{"a"}}); text.language != "en" {
		t.Errorf("a DSN without template is in %s", text.language)
	}
}

// TestTemplateFaults: what is wrong with a template is known at start, with its
// file and line, whether it would ever have been executed or not.
func TestTemplateFaults(t *testing.T) {
	body := func(lines string) string { return "Subject: s\n\n" + lines }
	tests := []struct {
		name, text, want string // want after the path
	}{
		{"syntax", body("{{if}}"), ":3: "},
		{"not closed", body("{{if .Sender}}"), ":3: "},
		{"field", body("a\n{{.Sendr}}\n"), ":4:2: "},
		{"field in a branch", body("{{if eq .Result \"never\"}}\n{{.Sendr}}{{end}}"), ":4:2: "},
		{"field in the other branch", body("{{if .Sender}}a{{else if .Client}}b{{else}}\n{{.Sendr}}{{end}}"), ":4:2: "},
		{"field in a condition", body("{{if and .Sender .Sendr}}{{end}}"), ":3:"},
		{"field behind an or", body("{{if or .Sender .Sendr}}{{end}}"), ":3:"},
		{"field in with", body("{{with .Sender}}{{$.Sendr}}{{end}}"), ":3:"},
		{"field in with's else", body("{{with .Sender}}{{else}}\n{{.Sendr}}{{end}}"), ":4:"},
		{"field in range", body("{{range .Recipients}}{{if .}}{{break}}{{end}}\n{{$.Sendr}}{{end}}"), ":"},
		{"field in a template", body("{{template \"x\" .}}{{define \"x\"}}\n{{.Sendr}}{{end}}"), ":4:"},
		{"field of a field", body("{{if eq .Result \"never\"}}\n{{.Arrived.Yeer}}{{end}}"), ":4:10: "},
		{"field in parentheses", body("{{if eq .Result \"never\"}}\n{{(print .Sendr).X}}{{end}}"), ":4:"},
		{"second field", body("{{.Sender}}{{.Sendr}}\n{{.Sndr}}"), ":4:2: "},
		{"field in an argument", body("{{printf \"%s\" (len .Sendr)}}"), ":3:"},
		{"field in a template that calls itself", body("{{template \"x\" .}}{{define \"x\"}}{{if eq .Result \"never\"}}{{template \"x\" .}}\n{{.Sendr}}{{end}}{{end}}"), ":4:"},
		{"field in a template that is given $", body("{{if eq .Result \"never\"}}{{with .Sender}}{{template \"x\" $}}{{end}}{{end}}{{define \"x\"}}\n{{.Sendr}}{{end}}"), ":4:"},
		{"no template in a branch", body("{{if eq .Result \"never\"}}\n{{template \"x\"}}{{end}}"), ":4:"},
		{"no template", body("{{template \"x\" .}}"), ":3:"},
		{"no function", body("{{shout .Sender}}"), ":3: "},
		{"no subject", "Hello\n\nyou\n", ":1: "},
		{"no empty line", "Subject: s\nyou\n", ":1: "},
		{"no text", "Subject: s\n\n\n", ":1: "},
		{"two fields", "Subject: s\nBcc: me@example.com\n\nyou\n", ":1: "},
		{"too large", body(strings.Repeat("x", maxTemplate)), ": longer"},
		{"writes too much", body("{{printf \"%70000d\" 1}}"), ": text is longer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, map[string]string{"notice.fr.txt": tt.text})
			_, err := loadTemplates(dir)
			if want := filepath.Join(dir, "notice.fr.txt") + tt.want; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %s", err, want)
			}
		})
	}
	fifo := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(fifo, "dsn.en.txt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadTemplates(fifo); err == nil || !strings.Contains(err.Error(), "dsn.en.txt: not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
	dir := folder(t, map[string]string{"dsn.en.txt": "a", "notice.xx.txt": "b", "letter.en.txt": "c", "notice.txt": "d"})
	_, err := loadTemplates(dir)
	for name := range map[string]bool{"dsn.en.txt": true, "notice.xx.txt": true, "letter.en.txt": true, "notice.txt": true} {
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s is not in %v", name, err)
		}
	}
	if _, err := loadTemplates(filepath.Join(dir, "missing")); err == nil {
		t.Error("a folder that is missing is taken")
	}
	log, _ := newLog()
	missing := filepath.Join(dir, "missing")
	if _, err := loadTemplates(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := New(Options{DSN: Never, Rates: plenty, Hostname: "mx.example.com", TemplateDir: dir}, memoryLedger(t), log); err == nil {
		t.Error("New takes broken templates")
	}
}

// TestTemplateGoodBranches: a check of every branch must not refuse what is right.
func TestTemplateGoodBranches(t *testing.T) {
	for i, text := range []string{
		`{{if gt (len .Recipients) 9}}{{index .Recipients 9}}{{else}}{{index .Recipients 0}}{{end}} x`,
		`{{range $i, $r := .Recipients}}{{if $i}}, {{end}}{{$r}}{{else}}nobody{{end}} x`,
		`{{if $s := .Subject}}{{$s}}{{else}}{{.Sender}}{{end}} x`,
		`{{if .Subject}}{{slice .Subject 0 1}}{{end}} x`,
		`{{.Arrived.Format "2006"}} {{with .Arrived}}{{.Year}}{{end}}`,
		`{{range .Recipients}}{{if .}}{{continue}}{{end}}x{{end}} x`,
		`{{template "year" .Arrived}}{{define "year"}}{{.Year}}{{end}} x`,
		`{{if eq .Result "never"}}{{with .Arrived}}{{.Year}} {{$.Result}}{{end}}{{with $x := .Arrived}}{{$x.Year}}{{end}}{{end}} x`,
	} {
		if _, err := loadTemplates(folder(t, map[string]string{"dsn.fr.txt": "Subject: s\n\n" + text})); err != nil {
			t.Errorf("template %d is refused: %v", i, err)
		}
	}
}

// TestTemplateFailsLate: a fault that no check could find does not hold up mail.
func TestTemplateFailsLate(t *testing.T) {
	dir := folder(t, map[string]string{"notice.fr.txt": "Subject: s\n\n{{if .Sender}}{{slice .Sender 0 10}}{{end}}x\n"})
	m := startMTA(t)
	log, logged := newLog()
	opts := Options{SMTP: m.addr, DSN: Never, Rates: plenty, Hostname: "mx.example.com", TemplateDir: dir}
	n, err := New(opts, memoryLedger(t), log)
	if err != nil {
		t.Fatal(err)
	}
	o := honest()
	o.Sender = "a@b.test"
	if err := n.deliver(t.Context(), o, nil, []milter.Notice{{Recipient: "bob@rcpt.example", Language: "fr"}}); err != nil {
		t.Fatal(err)
	}
	p := readMail(t, m.taken()[0].data)
	if got := p.header.Get("Content-Language"); got != "en" || !strings.Contains(p.body, "was not delivered") {
		t.Errorf("in %s: %s", got, p.body)
	}
	if !strings.Contains(logged.String(), "notice.fr.txt:3") {
		t.Errorf("the fault is not logged:\n%s", logged)
	}
}

func TestDSNLanguage(t *testing.T) {
	n := newNotifier(t, "", memoryLedger(t))
	for _, tt := range []struct{ field, value, want string }{
		{"Accept-Language", "de-DE, en-US", "de-DE"},
		{"Accept-Language", "fr, de;q=0.5, en", "de"},
		{"Accept-Language", "en-GB, de", "en-GB"},
		{"Accept-Language", "fr", "en"},
		{"Accept-Language", "*", "en"},
		{"Content-Language", "de", "de"},
		{"X-Language", "de", "en"},
		{"Accept-Language", strings.Repeat("x,", 10_000) + "de", "en"},
		{"Accept-Language", "", "en"},
	} {
		if got := n.languageOf(with(tt.field, tt.value)); got != tt.want {
			t.Errorf("%s: %.40s: %s, want %s", tt.field, tt.value, got, tt.want)
		}
	}
}
