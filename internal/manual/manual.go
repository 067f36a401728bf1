// Package manual writes the parts of manual pages that are known to the program:
// its commands with their flags, and the keys of its configuration, in the macros of
// man(7). The rest of a page is prose and written by hand; see packaging.
package manual

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/authkey/authkey/internal/config"
)

// leftOut are the commands that are not about mail.
var leftOut = map[string]bool{"help": true, "completion": true}

// WriteCommands describes every command below root, in the order of the tree, and
// then the flags that they all have.
func WriteCommands(w io.Writer, root *cobra.Command) error {
	var p page
	p.line(".SH COMMANDS")
	p.commands(root)
	p.line(".SH OPTIONS")
	p.flags(root.PersistentFlags())
	p.line(".TP")
	p.line(`\fB\-h\fR, \fB\-\-help\fR`)
	p.line("what the program or a command does, and its flags")
	return p.writeTo(w)
}

// WriteKeys describes the keys of a configuration file.
func WriteKeys(w io.Writer, docs []config.KeyDoc) error {
	var p page
	p.line(".SH KEYS")
	for _, d := range docs {
		about := d.Type
		if d.Default != "" {
			about += ", default " + d.Default
		}
		p.line(".TP")
		p.line(`\fB` + escape(d.Key) + `\fR (` + escape(about) + ")")
		doc := d.Doc
		if !d.Implemented {
			doc = "(no effect yet) " + doc
		}
		p.text(doc)
	}
	return p.writeTo(w)
}

// A page is the roff of a manual page while it is written.
type page struct{ b strings.Builder }

func (p *page) writeTo(w io.Writer) error {
	_, err := io.WriteString(w, p.b.String())
	return err
}

// line adds a line of roff as it is.
func (p *page) line(roff string) { p.b.WriteString(roff + "\n") }

// text adds a line of plain text, which must not be taken for a request.
func (p *page) text(s string) {
	s = escape(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	p.line(s)
}

// escape makes plain text that roff shows as it is: a hyphen that can be copied, an
// apostrophe that does not curl.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(s)
}

func (p *page) commands(parent *cobra.Command) {
	for _, cmd := range parent.Commands() {
		switch {
		case cmd.Hidden || leftOut[cmd.Name()]:
		case cmd.HasSubCommands():
			p.line(".TP")
			p.line(`\fB` + escape(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")) + `\fR \fICOMMAND\fR`)
			p.prose(about(cmd))
			p.commands(cmd)
		default:
			p.command(cmd)
		}
	}
}

func (p *page) command(cmd *cobra.Command) {
	name, args, _ := strings.Cut(strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.CommandPath())
	use := strings.TrimPrefix(name+cmd.CommandPath(), cmd.Root().Name()+" ")
	p.line(".TP")
	p.line(`\fB` + escape(use) + `\fR` + escape(args))
	p.prose(about(cmd))
	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		p.line(".RS")
		p.flags(flags)
		p.line(".RE")
	}
}

func about(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short
}

// prose adds paragraphs. Indented lines stay lines.
func (p *page) prose(s string) {
	verbatim, gap := false, false
	for line := range strings.Lines(strings.TrimSpace(s)) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			gap = true
			continue
		}
		indented := strings.HasPrefix(line, " ")
		if verbatim && !indented {
			p.line(".fi")
		}
		if gap {
			p.line(".sp")
		}
		if indented && !verbatim {
			p.line(".nf")
		}
		verbatim, gap = indented, false
		p.text(line)
	}
	if verbatim {
		p.line(".fi")
	}
}

func (p *page) flags(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\fB\-\-` + escape(f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB\-` + escape(f.Shorthand) + `\fR, ` + name
		}
		if value != "" {
			name += ` \fI` + escape(value) + `\fR`
		}
		p.line(".TP")
		p.line(name)
		p.text(usage + defaultOf(f))
	})
}

// defaultOf says a default that its description does not.
func defaultOf(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "false", "0", "0s", "[]":
		return ""
	}
	return " (default " + f.DefValue + ")"
}
