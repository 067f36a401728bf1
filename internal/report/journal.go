package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Unit is the milter's systemd unit.
const Unit = "authkey-milter.service"

// ParseAge reads a duration such as 7d, 2w or 1h30m: those of package time, and
// days and weeks.
func ParseAge(s string) (time.Duration, error) {
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 16)
			if err != nil {
				return 0, fmt.Errorf("%q: want a duration such as 7d or 12h", s)
			}
			return time.Duration(n) * length, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q: want a duration such as 7d or 12h", s)
	}
	return d, nil
}

// maxJournalError bounds what is kept of journalctl's complaints.
const maxJournalError = 1000

// ReadJournal adds the lines that systemd's journal has of the milter. It ends with
// ctx.
func (r *Report) ReadJournal(ctx context.Context) error {
	args := []string{"--unit=" + Unit, "--output=cat", "--no-pager", "--quiet"}
	if !r.since.IsZero() {
		args = append(args, "--since=@"+strconv.FormatInt(r.since.Unix(), 10))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = r.Read(ctx, out)
	if err != nil {
		cancel() // it would wait for us
	}
	if waitErr := cmd.Wait(); err == nil && waitErr != nil {
		text := bytes.TrimSpace(complaint.Bytes())
		err = fmt.Errorf("%w: %s", waitErr, text[:min(len(text), maxJournalError)])
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("journalctl: %w", err)
	}
	return err
}
