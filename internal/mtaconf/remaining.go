package mtaconf

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Instances are the configuration directories of the other Postfix instances of the
// machine, those of multi_instance_directories in postconf(5).
func (p *Postfix) Instances(ctx context.Context) ([]string, error) {
	out, err := p.run(ctx, "-hx", "multi_instance_directories")
	return splitList(strings.TrimSpace(out)), err
}

// Reload has Postfix read its files again. One that does not run reads them at its
// start.
func (p *Postfix) Reload(ctx context.Context) error {
	_, _, err := p.command(ctx, "postfix", "status")
	var exit *exec.ExitError
	if errors.As(err, &exit) { // it does not run
		return nil
	}
	if err == nil {
		_, _, err = p.command(ctx, "postfix", "reload")
	}
	return err
}

// Remaining says what of the configuration still leads to authkey: the lines of main.cf
// and master.cf that name it, with their place, and the edits that would take it out of
// lists of milters. Undo leaves what Apply did not write.
func (p *Postfix) Remaining(ctx context.Context, ours Ours) (lines []string, edits []Edit, err error) {
	if edits, err = p.withdraw(ctx); err != nil {
		return nil, nil, err
	}
	w, err := p.open()
	if err != nil {
		return nil, nil, err
	}
	defer w.close()
	for _, name := range []string{"main.cf", "master.cf"} {
		lines = append(lines, p.mentions(name, string(w[name].content), ours)...)
	}
	return lines, edits, nil
}

// withdraw are the edits that take the milter off every list of milters.
func (p *Postfix) withdraw(ctx context.Context) (edits []Edit, err error) {
	raw, err := p.raw(ctx)
	if err != nil {
		return nil, err
	}
	add := func(service, name, value string) {
		e := Edit{Service: service, Name: name, New: value}
		e.Old, e.WasSet = raw.get(e.parameter())
		edits = append(edits, e)
	}
	leads := func(filters []Filter) bool { return len(without(filters)) < len(filters) }
	if main := p.mark(parseList(p.main["smtpd_milters"])); leads(main) {
		add("", "smtpd_milters", render(without(main)))
	}
	if leads(p.NonSMTPD) {
		add("", "non_smtpd_milters", render(without(p.NonSMTPD)))
	}
	for _, s := range p.Services {
		if _, own := s.own["smtpd_milters"]; own && leads(s.Milters) {
			add(s.Name, "smtpd_milters", compact(render(without(s.Milters))))
		}
	}
	return edits, nil
}

// mentions are the lines of a file, comments aside, that name one of our sockets, as a
// list, a map of milters or a parameter of somebody's own may.
func (p *Postfix) mentions(name, text string, ours Ours) []string {
	var found []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, s := range ours.Sockets {
			address := s.Address
			if relative, err := filepath.Rel(resolved(p.QueueDir), resolved(address)); s.Network == "unix" && err == nil && filepath.IsLocal(relative) {
				address = relative // which ends the whole path too
			}
			if strings.Contains(line, address) {
				found = append(found, fmt.Sprintf("%s:%d: %s", filepath.Join(p.ConfigDir, name), number, line))
				break
			}
		}
	}
	return found
}
