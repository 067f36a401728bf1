package notify

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// The kinds of mail, as in the names of templates and in our header.
const (
	kindDSN    = "dsn"
	kindNotice = "notice"
)

// fallback is the language for those whose own has no template.
const fallback = "en"

// MessageFields is what both kinds of template can use. Texts are one line each and
// bounded. Subject is whatever the message said.
type MessageFields struct {
	Sender         string // the envelope sender
	Subject        string // decoded; may be empty
	QueueID        string // may be empty
	Arrived        time.Time
	Checked        string // the address that was to be authenticated
	Result, Reason string // docs/protocol.md section 5, docs/design.md
	Host           string // this mail system
}

// NoticeFields is what the template of a notice (notice.LANGUAGE.txt) can use.
type NoticeFields struct {
	MessageFields
	Recipient, Domain string // whom the notice is for, and the domain of that address
	From              string // of the header, decoded, as the message had it; may be empty
	Client            string // may be empty
	Refused           bool   // the sender is told too
}

// DSNFields is what the template of a DSN (dsn.LANGUAGE.txt) can use.
type DSNFields struct {
	MessageFields
	Recipients []string // who did not get the message; at least one
	More       int      // how many more there are, beyond those of Recipients
	Reply      string   // the reply that an SMTP client would have got; may be empty
}

const (
	// maxTemplate bounds a template's file and what it may make of a message.
	maxTemplate = 64 << 10
	// maxSubject bounds the Subject of our mail, in characters.
	maxSubject = 250
)

//go:embed templates/*.txt
var builtin embed.FS

// templateName is KIND.LANGUAGE.txt, the language a tag of RFC 5646 in lower case.
var templateName = regexp.MustCompile(`^(dsn|notice)\.([a-z]{2,8}(?:-[a-z0-9]{1,8})*)\.txt$`)

// templates holds a template for each kind and language.
type templates struct {
	byName  map[string]*template.Template // "dsn.en"
	builtin map[string]*template.Template
}

// loadTemplates reads the templates built in and over them those of dir, if it is
// not empty. Every fault is reported, with file and line; those of the built-in
// ones would be found by any test.
func loadTemplates(dir string) (*templates, error) {
	t := &templates{byName: make(map[string]*template.Template), builtin: make(map[string]*template.Template)}
	shipped, err := fs.Sub(builtin, "templates")
	if err != nil {
		return nil, fmt.Errorf("built-in templates: %w", err)
	}
	if err := readTemplates(shipped, "built-in", t.builtin); err != nil {
		return nil, err
	}
	for name, tmpl := range t.builtin {
		t.byName[name] = tmpl
	}
	if dir == "" {
		return t, nil
	}
	return t, readTemplates(os.DirFS(dir), dir, t.byName)
}

func readTemplates(files fs.FS, where string, into map[string]*template.Template) error {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err // its path is "."
		}
		return fmt.Errorf("templates: read %s: %w", where, err)
	}
	var faults []error
	for _, e := range entries {
		path := filepath.Join(where, e.Name())
		if e.IsDir() || filepath.Ext(path) != ".txt" {
			continue // a backup file of an editor, a README
		}
		match := templateName.FindStringSubmatch(e.Name())
		if match == nil {
			faults = append(faults, fmt.Errorf("%s: no name of a template, want dsn.LANGUAGE.txt or notice.LANGUAGE.txt", path))
			continue
		}
		tmpl, err := readTemplate(files, e.Name(), path, match[1])
		if err != nil {
			faults = append(faults, err)
			continue
		}
		into[match[1]+"."+match[2]] = tmpl
	}
	return errors.Join(faults...)
}

func readTemplate(files fs.FS, file, path, kind string) (*template.Template, error) {
	info, err := fs.Stat(files, file)
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	if !info.Mode().IsRegular() { // a FIFO or a device might never end
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() > maxTemplate {
		return nil, fmt.Errorf("%s: longer than %d octets", path, maxTemplate)
	}
	text, err := fs.ReadFile(files, file)
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	tmpl, err := template.New(path).Parse(strings.ReplaceAll(string(text), "\r\n", "\n"))
	if err != nil {
		return nil, err // it names file and line
	}
	return tmpl, checkTemplate(tmpl, kind)
}

// lookup returns the template for a language, or for what it is a variety of, or
// English, and the language that it is in (RFC 4647 section 3.4).
func (t *templates) lookup(kind, language string) (*template.Template, string) {
	language = strings.ToLower(strings.ReplaceAll(language, "_", "-"))
	for language != "" {
		if tmpl, ok := t.byName[kind+"."+language]; ok {
			return tmpl, language
		}
		language = language[:max(strings.LastIndexByte(language, '-'), 0)]
	}
	return t.byName[kind+"."+fallback], fallback
}

// speaks reports whether there is a template in a language.
func (t *templates) speaks(kind, language string) bool {
	_, found := t.lookup(kind, language)
	return strings.HasPrefix(strings.ToLower(language)+"-", found+"-")
}

// A text is what a template made of a message.
type text struct {
	subject, body string
	language      string
}

// render executes the template for a language. If the administrator's template fails,
// although it was checked, the built-in English text is used: a fault in a text must not
// delay mail. The fault is returned beside the text.
func (t *templates) render(kind, language string, data any) (text, error) {
	tmpl, language := t.lookup(kind, language)
	out, err := execute(tmpl, data)
	if err == nil {
		out.language = language
		return out, nil
	}
	out, builtinErr := execute(t.builtin[kind+"."+fallback], data)
	if builtinErr != nil { // impossible, as tests show
		out = text{subject: "Mail was not delivered", body: "A message was not delivered.\n"}
	}
	out.language = fallback
	return out, err
}

// execute runs a template and takes its Subject from its first line.
func execute(tmpl *template.Template, data any) (text, error) {
	var out limitedBuffer
	err := tmpl.Execute(&out, data)
	if errors.Is(err, errTooLong) {
		return text{}, fmt.Errorf("%s: %w", tmpl.Name(), err)
	}
	if err != nil {
		return text{}, err // it names file and line
	}
	head, body, ok := strings.Cut(out.String(), "\n\n")
	subject, isSubject := strings.CutPrefix(head, "Subject:")
	subject = oneLine(subject, maxSubject)
	if !ok || !isSubject || strings.Contains(head, "\n") || strings.TrimSpace(body) == "" {
		return text{}, fmt.Errorf("%s:1: want a line \"Subject: …\", an empty line and a text", tmpl.Name())
	}
	return text{subject: subject, body: strings.ToValidUTF8(strings.TrimSpace(body), "\uFFFD") + "\n"}, nil
}

// limitedBuffer ends the execution of a template that writes too much.
type limitedBuffer struct{ bytes.Buffer }

var errTooLong = fmt.Errorf("text is longer than %d octets", maxTemplate)

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxTemplate {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}
