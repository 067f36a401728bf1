package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/terminal"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

// maxKeyInput bounds what is read where a key is expected.
const maxKeyInput = 4 * wire.MaxKey

// ErrNoKey says that there was nothing where a key was expected.
var ErrNoKey = errors.New("no key: give one on standard input")

// AskKey is readKey of a command's input: at a terminal it asks for the key, and does not
// show it. Nothing at all is an error, which ends the program with Usage.
func AskKey(cmd *cobra.Command, file, address string) (wire.Key, error) {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && file == "" && terminal.Is(f) {
		fmt.Fprintf(cmd.ErrOrStderr(), "AuthKey of %s (not shown): ", strconv.QuoteToASCII(address))
		line, err := terminal.ReadSecret(cmd.Context(), f)
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil && !errors.Is(err, io.EOF) {
			return wire.Key{}, Exit(Usage, fmt.Errorf("read the key: %w", err))
		}
		in = bytes.NewReader(line)
	} else {
		in = terminal.Interruptible(cmd.Context(), in)
	}
	key, err := readKey(cmd.Context(), in, file)
	switch {
	case err == nil && key.IsZero() && file != "":
		return key, Exit(Usage, fmt.Errorf("%s has no key in it", file))
	case err == nil && key.IsZero():
		return key, Exit(Usage, ErrNoKey)
	}
	return key, err
}

// readKey reads one key, a line end after it allowed, from in or from the file
// that is named. Nothing at all is the zero Key. The error ends the program with
// Usage.
func readKey(ctx context.Context, in io.Reader, file string) (wire.Key, error) {
	if file != "" {
		f, err := terminal.Open(ctx, file)
		if err != nil {
			return wire.Key{}, Exit(Usage, err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxKeyInput+1))
	if err != nil {
		return wire.Key{}, Exit(Usage, fmt.Errorf("read the key: %w", err))
	}
	if len(b) > maxKeyInput {
		return wire.Key{}, Exit(Usage, errors.New("read the key: there is more than a key"))
	}
	return wire.JoinKeys(strings.TrimRight(string(b), "\r\n")), nil
}

// A resultView is a Result as people and programs read it.
type resultView struct {
	Address  string  `json:"address"`
	Result   string  `json:"result"`
	Reason   string  `json:"reason,omitempty"`
	AS       string  `json:"as,omitempty"`
	TTL      float64 `json:"ttl_seconds,omitempty"`
	Required bool    `json:"required"`
	Stale    bool    `json:"stale"`
	AD       bool    `json:"ad"`
	DNS      float64 `json:"dns_ms"`
	ASTime   float64 `json:"as_ms"`
}

// Answer prints the result for a mailbox, which may be no address, and returns the error
// that ends the program with the exit code for the result; nil for a pass.
func Answer(cmd *cobra.Command, mailbox string, asJSON bool, ask func(wire.Address) verifier.Result) error {
	address, err := wire.ParseAddress(mailbox)
	res := verifier.Unaddressable(err)
	if err == nil {
		res = ask(address)
	}
	if err := writeResult(cmd.OutOrStdout(), address, res, asJSON); err != nil {
		return err
	}
	return exitResult(res.Status)
}

// writeResult writes what became of a question about an address, as text or JSON.
func writeResult(w io.Writer, address wire.Address, res verifier.Result, asJSON bool) error {
	view := resultView{
		Address: address.String(), Result: string(res.Status), Reason: string(res.Reason), AS: res.Server,
		TTL: res.TTL.Seconds(), Required: res.Required, Stale: res.Stale, AD: res.AD,
		DNS: float64(res.DNSTime.Microseconds()) / 1000, ASTime: float64(res.ASTime.Microseconds()) / 1000,
	}
	if asJSON {
		return json.NewEncoder(w).Encode(view)
	}
	line := view.Result
	if view.Reason != "" {
		line += " (" + view.Reason + ")"
	}
	fmt.Fprintf(w, "result    %s\n", line)
	if view.Address != "" {
		fmt.Fprintf(w, "address   %s\n", view.Address)
	}
	if view.AS != "" {
		fmt.Fprintf(w, "asked     %s\n", view.AS)
	}
	if res.TTL > 0 {
		fmt.Fprintf(w, "cacheable %s\n", res.TTL)
	}
	_, err := fmt.Fprintf(w, "times     DNS %.3f ms, AS %.3f ms\n", view.DNS, view.ASTime)
	return err
}

func exitResult(status verifier.Status) error {
	switch status {
	case verifier.Pass:
		return nil
	case verifier.TempError:
		return Exit(Temp, nil)
	}
	return Exit(Negative, nil)
}
