package program

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
)

// usageCommands are commands of every form that the programs have.
func usageCommands() []*cobra.Command {
	fine := func(*cobra.Command, []string) error { return nil }
	group := &cobra.Command{Use: "setup", Args: cobra.NoArgs, RunE: WhichCommand}
	postfix := &cobra.Command{Use: "postfix", Args: cobra.NoArgs, RunE: fine}
	postfix.Flags().Bool("apply", false, "")
	postfix.Flags().Bool("undo", false, "")
	postfix.MarkFlagsMutuallyExclusive("apply", "undo")
	postfix.Flags().Int("top", 1, "")
	postfix.Flags().String("since", "", "")
	postfix.Flags().Func("at", "", func(s string) error { return fmt.Errorf("%q is not HOST:PORT", s) })
	group.AddCommand(postfix)
	return []*cobra.Command{
		group,
		{Use: "lookup DOMAIN", Args: cobra.ExactArgs(1), RunE: fine},
		{Use: "add ADDRESS…", Args: cobra.MinimumNArgs(1), RunE: fine},
		{Use: "dns [DOMAIN]", Args: cobra.MaximumNArgs(1), RunE: fine},
		{Use: "check", Args: cobra.NoArgs, RunE: fine},
	}
}

func TestUsageInPlainWords(t *testing.T) {
	for _, tt := range []struct{ args, want, help string }{
		{"", "which command?", "authkey-test"},
		{"lokup a.test", `unknown command "lokup"; perhaps lookup`, "authkey-test"},
		{"nothinglikeit", `unknown command "nothinglikeit"`, "authkey-test"},
		{"lookup", "lookup: which domain?", "authkey-test lookup"},
		{"lookup a b c", "lookup takes one argument, and here are 3", "authkey-test lookup"},
		{"add", "add: which address?", "authkey-test add"},
		{"dns a b", "dns takes one argument, and here are 2", "authkey-test dns"},
		{"check extra", "check takes no argument", "authkey-test check"},
		{"setup", "setup: which command?", "authkey-test setup"},
		{"setup postfx", `unknown command "postfx"; perhaps postfix`, "authkey-test setup"},
		{"setup postfix --apply --undo", "--apply or --undo, not both", "authkey-test setup postfix"},
		{"setup postfix --top x", `--top "x" is not a whole number`, "authkey-test setup postfix"},
		{"setup postfix --at x", `--at "x" is not HOST:PORT`, "authkey-test setup postfix"},
		{"setup postfix --since", "--since needs a value", "authkey-test setup postfix"},
		{"setup postfix --aply", "unknown flag: --aply; perhaps --apply", "authkey-test setup postfix"},
		{"check -x", "unknown flag: -x", "authkey-test check"},
		{"help nope", `unknown command "nope"`, "authkey-test help"},
		{"help lokup", `unknown command "lokup"; perhaps lookup`, "authkey-test help"},
		{"help setup nope", `unknown command "nope"`, "authkey-test help"},
		{"completion tcsh", `unknown command "tcsh"`, "authkey-test completion"},
		{"completion", "completion: for which shell?", "authkey-test completion"},
	} {
		var out, errOut bytes.Buffer
		code := testProgram(t).Run(t.Context(), strings.Fields(tt.args), nil, &out, &errOut, usageCommands()...)
		if want := "authkey-test: " + tt.want + "\nTry '" + tt.help + " --help'.\n"; code != Usage || errOut.String() != want || out.Len() > 0 {
			t.Errorf("%s: exit %d\n%s%s", tt.args, code, out.String(), errOut.String())
		}
	}
	for _, args := range []string{"help", "help setup postfix", "setup postfix --help", "completion bash", "--version", "version"} {
		var out, errOut bytes.Buffer
		if code := testProgram(t).Run(t.Context(), strings.Fields(args), nil, &out, &errOut, usageCommands()...); code != OK || errOut.Len() > 0 || out.Len() == 0 {
			t.Errorf("%s: exit %d, %s", args, code, errOut.String())
		}
	}
}

// A full disk is no success, whatever is printed.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"version", "--version", "--help", "help", "help setup", "completion bash", "config --describe", "print", "manual"} {
		print := &cobra.Command{Use: "print", Run: func(cmd *cobra.Command, _ []string) { cmd.OutOrStdout().Write([]byte("x")) }}
		settings := NewConfig(func(*cobra.Command) (config.Settings, error) { return config.Settings{}, nil }, config.Describe)
		var errOut bytes.Buffer
		code := testProgram(t).Run(t.Context(), strings.Fields(args), nil, full, &errOut, append(usageCommands(), print, settings)...)
		if code != IOErr || errOut.String() != "authkey-test: the output cannot be written: write /dev/full: no space left on device\n" {
			t.Errorf("%s: exit %d, %q", args, code, errOut.String())
		}
	}
}

// What is printed fits 100 columns where there is no terminal to ask.
func TestOutputFits(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/milter.yaml"
	long := strings.Repeat("verylong", 20)
	text := "policy: {rules: [{recipient: " + long[:60] + ".example, fail: mark, nokey: reject}]}\nnotify: {template_dir: /" + long + "}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"config", "config --describe"} {
		for _, docs := range []func() []config.KeyDoc{config.Describe, config.DescribeServer} {
			command := NewConfig(func(*cobra.Command) (config.Settings, error) { return loaded.Settings, nil }, docs)
			var out, errOut bytes.Buffer
			if code := testProgram(t).Run(t.Context(), strings.Fields(args), nil, &out, &errOut, command); code != OK {
				t.Fatal(errOut.String())
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 {
					t.Errorf("%s: %d columns: %s", args, n, line)
				}
			}
		}
	}
}

// The error of a read is not taken for one of writing.
func TestWatchedWriter(t *testing.T) {
	command := &cobra.Command{Use: "do", RunE: func(*cobra.Command, []string) error { return Exit(Temp, errors.New("read: broken")) }}
	var out, errOut bytes.Buffer
	if code := testProgram(t).Run(t.Context(), []string{"do"}, nil, &out, &errOut, command); code != Temp {
		t.Errorf("exit %d, %s", code, errOut.String())
	}
}
