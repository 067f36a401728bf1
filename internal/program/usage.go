package program

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/authkey/authkey/internal/config"
)

// This file says in plain words what is wrong with a command line.

// What cobra says, for which it has no types.
var (
	argsMissing = regexp.MustCompile(`^(?:accepts \d+ arg\(s\), received 0|requires at least \d+ arg\(s\), only received \d+)$`)
	argsTooMany = regexp.MustCompile(`^accepts (?:at most )?(\d+) arg\(s\), received (\d+)$`)
	noCommand   = regexp.MustCompile(`^unknown command "(.*)" for "`)
	flagGroup   = regexp.MustCompile(`^if any flags in the group \[(.*)\] are set none of the others can be`)
	placeholder = regexp.MustCompile(`\b[A-Z]{2,}\b`)
)

// plainUsage says in plain words what cobra says of a command line.
func plainUsage(cmd *cobra.Command, err error) error {
	text := err.Error()
	name := nameOf(cmd)
	if argsMissing.MatchString(text) {
		return fmt.Errorf("%s: which %s?", name, strings.ToLower(placeholder.FindString(cmd.Use)))
	}
	if m := argsTooMany.FindStringSubmatch(text); m != nil {
		if m[1] == "1" {
			return fmt.Errorf("%s takes one argument, and here are %s", name, m[2])
		}
		return fmt.Errorf("%s takes %s arguments, and here are %s", name, m[1], m[2])
	}
	if m := noCommand.FindStringSubmatch(text); m != nil {
		if !cmd.HasSubCommands() {
			return fmt.Errorf("%s takes no argument", name)
		}
		return unknownCommand(cmd, m[1])
	}
	if m := flagGroup.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("--%s, not both", strings.ReplaceAll(m[1], " ", " or --"))
	}
	return err
}

// nameOf is the name of a command without the program's.
func nameOf(cmd *cobra.Command) string {
	if cmd.HasParent() {
		return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
	}
	return cmd.Name()
}

// unknownCommand refuses a word that is no command of group.
func unknownCommand(group *cobra.Command, word string) error {
	var names []string
	for _, c := range group.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return fmt.Errorf("unknown command %q%s", word, perhaps("", word, names))
}

// perhaps names what a word was probably meant to be, if anything is near.
func perhaps(prefix, word string, names []string) string {
	near := config.Nearest(word, names)
	for _, name := range names {
		if near == "" && len(word) > 1 && (strings.HasPrefix(name, word) || sameLetters(name, word)) {
			near = name
		}
	}
	if near == "" {
		return ""
	}
	return "; perhaps " + prefix + near
}

// sameLetters reports whether two words differ in the order of their letters only.
func sameLetters(a, b string) bool {
	x, y := []byte(a), []byte(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// flagError says in plain words what pflag says of a flag.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var noValue *pflag.ValueRequiredError
	var badValue *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		flag := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			flag = "-" + unknown.GetSpecifiedShortnames()
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		return fmt.Errorf("unknown flag: %s%s", flag, perhaps("--", strings.TrimLeft(flag, "-"), names))
	case errors.As(err, &noValue):
		return fmt.Errorf("--%s needs a value", noValue.GetFlag().Name)
	case errors.As(err, &badValue):
		want := map[string]string{"int": "a whole number", "bool": "true or false", "duration": "a duration such as 5m"}
		if kind := want[badValue.GetFlag().Value.Type()]; kind != "" {
			return fmt.Errorf("--%s %q is not %s", badValue.GetFlag().Name, badValue.GetValue(), kind)
		}
		if badValue.GetFlag().Value.Type() == "func" { // one of ours says it in plain words
			return fmt.Errorf("--%s %w", badValue.GetFlag().Name, badValue.Unwrap())
		}
	}
	return err
}

// newHelp makes the command help. Cobra's takes any word, and succeeds.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print what a command does and its flags",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil && len(rest) == 0 {
				rest = args
			}
			if len(rest) > 0 {
				if found == nil {
					found = cmd.Root()
				}
				return unknownCommand(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			found.InitDefaultVersionFlag()
			return found.Help()
		},
	}
}

// strictCompletion makes the command that prints completions for shells refuse others.
func strictCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd("completion")
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return unknownCommand(cmd, args[0])
				}
				return errors.New("completion: for which shell?")
			}
		}
	}
}
