package manual

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/reasons"
)

func run(*cobra.Command, []string) {}

func TestWriteCommands(t *testing.T) {
	root := &cobra.Command{Use: "authkey-x", Run: run}
	root.PersistentFlags().String("config", "", "configuration `file` (default /etc/x.yaml)")
	ask := &cobra.Command{Use: "ask ADDRESS…", Short: "Ask about it", Run: run,
		Long: "Ask.\nIt's 'so'.\n\n    first \\ line\n    .second\nAnd:\n\n.not a request"}
	ask.Flags().Bool("json", false, "print JSON")
	ask.Flags().StringP("from", "f", "here", "a sender's `address`")
	group := &cobra.Command{Use: "list", Short: "Edit lists", Run: run}
	group.AddCommand(&cobra.Command{Use: "add-one NAME", Short: "Add to a list", Run: run})
	root.AddCommand(ask, group, &cobra.Command{Use: "hidden", Hidden: true, Run: run}, &cobra.Command{Use: "completion", Run: run})
	var out strings.Builder
	if err := WriteCommands(&out, root); err != nil {
		t.Fatal(err)
	}
	want := `.SH COMMANDS
.TP
\fBask\fR ADDRESS...
Ask.
It\(aqs \(aqso\(aq.
.sp
.nf
    first \e line
    .second
.fi
And:
.sp
\&.not a request
.RS
.TP
\fB\-f\fR, \fB\-\-from\fR \fIaddress\fR
a sender\(aqs address (default here)
.TP
\fB\-\-json\fR
print JSON
.RE
.TP
\fBlist\fR \fICOMMAND\fR
Edit lists
.TP
\fBlist add\-one\fR NAME
Add to a list
.SH OPTIONS
.TP
\fB\-\-config\fR \fIfile\fR
configuration file (default /etc/x.yaml)
.TP
\fB\-h\fR, \fB\-\-help\fR
what the program or a command does, and its flags
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWriteKeys(t *testing.T) {
	var out strings.Builder
	err := WriteKeys(&out, []config.KeyDoc{
		{Key: "dns.timeout", Type: "duration", Default: "3s", Doc: "how long a DNS lookup may take", Implemented: true},
		{Key: "rules[].from", Type: "text", Doc: "'quoted'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `.SH KEYS
.TP
\fBdns.timeout\fR (duration, default 3s)
how long a DNS lookup may take
.TP
\fBrules[].from\fR (text)
(no effect yet) \(aqquoted\(aq
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every word of the list is on the page, and nothing on it is taken for a request or
// for markup.
func TestWriteReasons(t *testing.T) {
	var out strings.Builder
	if err := WriteReasons(&out, "1.2.3", time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	if !strings.HasPrefix(page, `.TH AUTHKEY\-REASONS 7 "2026-11-30" "authkey 1.2.3" `) {
		t.Errorf("begins with %.100s", page)
	}
	for _, g := range reasons.Groups() {
		for _, e := range g.Entries {
			if !strings.Contains(page, ".TP\n\\fB"+escape(e.Word)+"\\fR\n"+escape(plainText(e.Meaning))+"\n") {
				t.Errorf("no %s", e.Word)
			}
		}
	}
	for line := range strings.Lines(page) {
		if strings.ContainsAny(line, "`*") || strings.HasPrefix(line, "'") {
			t.Errorf("%q", line)
		}
	}
}
