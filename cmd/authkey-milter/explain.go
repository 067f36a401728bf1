package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/terminal"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/verifier"
)

// maxMessage bounds the header that explain reads.
const maxMessage = 64 << 20

func newExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain FILE.eml --rcpt ADDRESS…",
		Short: "Explain what would happen to a message, and why",
		Long: "Take the message in FILE.eml (- is standard input) through every step that the\n" +
			"milter takes, without delivering, changing or sending anything: whose mail it is,\n" +
			"what is looked up, the results, what each source of the policy decides for each\n" +
			"recipient, and the plan.\n\n" +
			"Exit code 0: accept or mark; 75: tempfail; 1: anything else. With several\n" +
			"recipients, the highest.",
		Args: cobra.ExactArgs(1),
	}
	rcpts := cmd.Flags().StringArray("rcpt", nil, "a recipient's `address`; may be given more than once")
	from := cmd.Flags().String("from", "", "the envelope sender's `address`; <> for the null sender (default: Return-Path, else the null sender)")
	client := cmd.Flags().String("client", "", "the SMTP client's `IP` address (default: a stranger's)")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(*rcpts) == 0 {
			return program.Exit(program.Usage, errors.New("explain: --rcpt is needed, once for each recipient"))
		}
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return err
		}
		sample := milter.Sample{Recipients: trimAngles(*rcpts)}
		if slices.Contains(sample.Recipients, "") {
			return program.Exit(program.Usage, errors.New("--rcpt is empty: whose message is it?"))
		}
		if *client != "" {
			if sample.Client, err = netip.ParseAddr(*client); err != nil {
				return program.Exit(program.Usage, fmt.Errorf("--client %q is no IP address", *client))
			}
		}
		if sample.Header, err = readHeader(cmd.Context(), cmd.InOrStdin(), args[0]); err != nil {
			return program.Exit(program.Usage, err)
		}
		source := ""
		sample.Sender, source = senderOf(cmd, *from, sample.Header)
		e, faults := examine(cmd.Context(), *loaded, sample)
		if len(faults) > 0 {
			return program.Refuse(cmd, faults)
		}
		view := viewExamination(sample, e, loaded.Config)
		view.SenderSource = source
		if err := program.Print(cmd, *asJSON, view, view.print); err != nil {
			return err
		}
		return program.Exit(view.exitCode(), nil)
	}
	return cmd
}

// examine runs the milter's own steps under a configuration, with nothing handed over.
func examine(ctx context.Context, loaded config.Loaded, sample milter.Sample) (milter.Examination, config.Faults) {
	loaded.Config.Attach = config.Attach{} // its secrets are the service's to read
	p, faults := assemble(&loaded, parts{})
	notifier, more := notifierInMemory(&loaded)
	if faults = append(faults, more...); len(faults) > 0 {
		return milter.Examination{}, faults
	}
	v := verifier.New(p.verifier)
	defer v.Close()
	engine := p.engine()
	engine.Verifier, engine.Notifier = v, notifier
	return milter.Examine(ctx, engine, sample), nil
}

func trimAngles(addresses []string) []string {
	trimmed := make([]string, len(addresses))
	for i, a := range addresses {
		trimmed[i] = trimAngle(a)
	}
	return trimmed
}

func trimAngle(a string) string {
	a = strings.TrimSpace(a)
	if strings.HasPrefix(a, "<") && strings.HasSuffix(a, ">") {
		return a[1 : len(a)-1]
	}
	return a
}

// senderOf returns the envelope sender, and where it comes from.
func senderOf(cmd *cobra.Command, from string, header []milter.Field) (sender, source string) {
	if cmd.Flags().Changed("from") {
		return trimAngle(from), "--from"
	}
	for _, f := range header {
		if strings.EqualFold(f.Name, "Return-Path") {
			return trimAngle(f.Value), "Return-Path"
		}
	}
	return "", "the null sender, since the file has no Return-Path: name another one with --from"
}

// byteOrderMark begins what some editors save.
const byteOrderMark = "\ufeff"

// readHeader reads a header as an MTA does: up to the first line that is none.
func readHeader(ctx context.Context, stdin io.Reader, path string) ([]milter.Field, error) {
	in := terminal.Interruptible(ctx, stdin)
	if path != "-" {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return nil, fmt.Errorf("%s is a folder, and a message is wanted", path)
		}
		f, err := terminal.Open(ctx, path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	var fields []milter.Field
	lines := bufio.NewReader(io.LimitReader(in, maxMessage))
	for first := true; ; first = false {
		line, err := lines.ReadString('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if first && line == "" {
			return nil, fmt.Errorf("%s is empty, and a message is wanted", path)
		}
		if first {
			line = strings.TrimPrefix(line, byteOrderMark)
		}
		line = strings.TrimRight(line, "\r\n")
		if name, value, ok := strings.Cut(line, ":"); line != "" && (line[0] == ' ' || line[0] == '\t') && len(fields) > 0 {
			fields[len(fields)-1].Value += "\n" + line
		} else if name = strings.TrimRight(name, " \t"); ok && name != "" && !strings.ContainsAny(name, " \t") {
			fields = append(fields, milter.Field{Name: name, Value: strings.TrimPrefix(value, " ")})
		} else if line != "" && len(fields) == 0 && strings.HasPrefix(line, "From ") {
			// An mbox separator, which is no part of the message.
		} else {
			return fields, nil
		}
		if err == io.EOF {
			return fields, nil
		}
	}
}
