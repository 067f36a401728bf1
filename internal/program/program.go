package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Exit codes, of sysexits.h where it has one.
const (
	OK       = 0
	Negative = 1  // a negative answer
	Usage    = 2  // the command line, or what standard input held, cannot be understood
	IOErr    = 74 // EX_IOERR: the output cannot be written
	Temp     = 75 // EX_TEMPFAIL: cannot be told now
	Config   = 78 // EX_CONFIG: the configuration is refused
)

// An exit ends the program with a code. Its error, if any, is printed.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// Exit returns the error with which a command ends the program with a code. Its
// text is printed; a nil err prints nothing, for commands that have said it all.
func Exit(code int, err error) error { return &exit{code, err} }

// Ends reports whether an error is one of Exit: it says with which code the program ends.
func Ends(err error) bool {
	var e *exit
	return errors.As(err, &e)
}

// A Program is one of authkey's.
type Program struct {
	Name          string // such as authkey-milter
	Short         string // what it is for, on one line
	Version       string // set by the build
	DefaultConfig string // path of its configuration where --config names none
}

// Main runs the program's process: it ends with SIGINT or SIGTERM, or by itself.
func (p Program) Main(commands ...*cobra.Command) {
	protect()
	// The signals stay ours to the end: a second SIGTERM must not cut the first one's
	// work short.
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	os.Exit(p.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, commands...))
}

// protect keeps the keys and secrets that the process may hold where they are: no core
// file is written, and no other process of the same user can trace this one or read its
// memory. The kernel gives what is in /proc/PID to root. Neither call fails on a Linux
// that Go runs on; a limit that is lower already stays.
func protect() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // SUID_DUMP_DISABLE
}

// Run is the program without its process, so that tests can run it too. It returns
// the exit code.
func (p Program) Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer, commands ...*cobra.Command) int {
	root := p.root(commands)
	root.SetArgs(args)
	root.SetIn(in)
	watched := &watchedWriter{w: out}
	root.SetOut(watched)
	root.SetErr(errOut)
	strictCompletion(root) // cobra's notes the output now
	cmd, err := root.ExecuteContextC(ctx)
	watched.finish()
	if watched.err != nil {
		fmt.Fprintf(errOut, "%s: the output cannot be written: %v\n", p.Name, watched.err)
		return IOErr
	}
	if err == nil {
		return OK
	}
	var e *exit
	if !errors.As(err, &e) {
		// What cobra itself refuses is the command line.
		fmt.Fprintf(errOut, "%s: %v\nTry '%s --help'.\n", p.Name, plainUsage(cmd, err), cmd.CommandPath())
		return Usage
	}
	if e.err != nil {
		fmt.Fprintf(errOut, "%s: %v\n", p.Name, e.err)
	}
	return e.code
}

func (p Program) root(commands []*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:           p.Name,
		Short:         p.Short,
		Args:          cobra.NoArgs,
		Version:       p.versionLine(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          WhichCommand,
	}
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("{{.Version}}\n")
	root.PersistentFlags().String("config", "", "configuration `file` (default "+p.DefaultConfig+")")
	root.AddCommand(commands...)
	root.AddCommand(newManual())
	root.AddCommand(&cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), p.versionLine())
		},
	})
	root.SetHelpCommand(newHelp())
	return root
}

// WhichCommand refuses a command that only groups others.
func WhichCommand(cmd *cobra.Command, _ []string) error {
	if cmd.HasParent() {
		return fmt.Errorf("%s: which command?", nameOf(cmd))
	}
	return errors.New("which command?")
}

// versionLine is version, commit and Go version in one line.
func (p Program) versionLine() string {
	commit := "unknown commit"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = "commit " + s.Value
			}
		}
	}
	return fmt.Sprintf("%s %s (%s, %s %s/%s)", p.Name, p.Version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
