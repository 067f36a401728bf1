package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
)

// replaceLists is import --replace: it shows what would change, and changes it when that
// is wanted.
func replaceLists(cmd *cobra.Command, name string, in io.Reader, files []keyring.ListFile, yes, asJSON bool) error {
	plan, err := keyring.PlanReplacement(name, in, files...)
	if errors.Is(err, keyring.ErrNothing) {
		return program.Exit(program.Usage, fmt.Errorf("%w; to end the keys of all, remove them by name", err))
	}
	if err != nil {
		return exitImport(err, name)
	}
	view := viewReplacement(plan)
	if !asJSON {
		if err := view.print(cmd.OutOrStdout(), name); err != nil {
			return err
		}
	}
	if view.Changes > 0 && !yes && !asJSON {
		yes, err = confirm(cmd, "Replace?")
		if err != nil {
			return err
		}
	}
	if view.Changes > 0 && yes {
		ctx, cancel := context.WithTimeout(cmd.Context(), lockTimeout)
		defer cancel()
		if err := plan.Apply(ctx); err != nil {
			return exitEdit(err)
		}
		view.Replaced = true
	}
	if asJSON {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(view); err != nil {
			return err
		}
	}
	switch {
	case view.Changes == 0:
		return nil
	case !view.Replaced:
		return program.Exit(program.Negative, errors.New("nothing was changed: with --yes it would be"))
	case asJSON:
		return nil
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), "replaced")
	return err
}

// confirm asks the person at the terminal. Without a terminal the answer is no.
func confirm(cmd *cobra.Command, question string) (bool, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !isTerminal(in) {
		return false, nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	const longest = 100
	answer, err := bufio.NewReader(io.LimitReader(in, longest)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, program.Exit(program.Usage, err)
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// A replacementView is a keyring.Replacement as people and programs read it.
type replacementView struct {
	Replaced  bool         `json:"replaced"`
	Changes   int          `json:"changes"`
	Domains   []changeView `json:"domains"`
	Untouched []string     `json:"untouched"` // domains of which the input has no address
}

type changeView struct {
	Domain  string   `json:"domain"`
	Added   []string `json:"added"`   // lines of an address list
	Removed []string `json:"removed"` // likewise
	Raised  []string `json:"raised"`  // likewise
	Kept    int      `json:"kept"`
}

func viewReplacement(plan *keyring.Replacement) *replacementView {
	view := &replacementView{Domains: []changeView{}, Untouched: append([]string{}, plan.Untouched...)}
	for _, c := range plan.Changes {
		v := changeView{Domain: c.Domain, Added: entryLines(c.Added), Removed: entryLines(c.Removed), Raised: entryLines(c.Raised), Kept: c.Kept}
		view.Changes += len(v.Added) + len(v.Removed) + len(v.Raised)
		view.Domains = append(view.Domains, v)
	}
	return view
}

func entryLines(entries []keyring.Entry) []string {
	lines := make([]string, len(entries))
	for i, e := range entries {
		lines[i] = entryLine(e)
	}
	return lines
}

func (v *replacementView) print(w io.Writer, name string) error {
	out := bufio.NewWriter(w)
	for _, c := range v.Domains {
		fmt.Fprintf(out, "%s: %d come, %d go, %d get a higher generation, %d stay as they are\n", c.Domain, len(c.Added), len(c.Removed), len(c.Raised), c.Kept)
		for _, list := range []struct {
			sign  string
			lines []string
		}{{"+", c.Added}, {"-", c.Removed}, {"^", c.Raised}} {
			for _, line := range list.lines {
				fmt.Fprintf(out, "%s %s\n", list.sign, line)
			}
		}
	}
	for _, domain := range v.Untouched {
		fmt.Fprintf(out, "%s: no address of it in %s, its list is left as it is\n", domain, name)
	}
	return out.Flush()
}
