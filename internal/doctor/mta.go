package doctor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/program"
)

// action is what the MTA should do while it cannot ask us.
func (c *checks) action() string { return mtaconf.DefaultAction(c.Config.Mode) }

func (c *checks) mta(context.Context) []Finding {
	switch {
	case c.Postfix != nil:
		return []Finding{Okf(CheckMTA, "Postfix, configured in %s", c.Postfix.ConfigDir)}
	case c.Sendmail != nil:
		return []Finding{Okf(CheckMTA, "Sendmail, configured in %s", c.Sendmail.File)}
	}
	return []Finding{{CheckMTA, Fault, "no mail system found: " + program.OneLine(c.MTAErr),
		"nobody asks the milter, and nothing about it can be checked",
		"authkey-milter doctor --postfix-config DIR\nauthkey-milter doctor --sendmail-cf FILE"}}
}

// mendPostfix are the commands that make Postfix ask us as it should.
func (c *checks) mendPostfix(ctx context.Context) string {
	edits, err := c.Postfix.Propose(ctx, c.Ours, c.action())
	var unreachable *mtaconf.Unreachable
	switch {
	case errors.As(err, &unreachable):
		return MendUnreachable(unreachable, c.file())
	case err != nil:
		return err.Error()
	}
	var commands []string
	for _, edit := range edits {
		commands = append(commands, c.Postfix.EditCommand(edit))
	}
	return strings.Join(append(commands, c.Postfix.Command("postfix", "reload")), "\n")
}

// MendUnreachable are the commands that make the milter listen where Postfix's smtpd can
// come, chrooted or not. file is the milter's configuration.
func MendUnreachable(u *mtaconf.Unreachable, file string) string {
	dir := filepath.Join(u.Postfix.QueueDir, "authkey")
	setup := "authkey-milter setup postfix --apply"
	if u.Postfix.Explicit {
		setup += " --postfix-config " + mtaconf.Quote(u.Postfix.ConfigDir)
	}
	return fmt.Sprintf("install -d -o authkey -g %s -m 2750 %s\n%s\n%s\n%s", u.Postfix.Owner, mtaconf.Quote(dir),
		setting(file, fmt.Sprintf("listen: [%q]", "unix:"+filepath.Join(dir, "milter.sock"))),
		setup, u.Postfix.Command("postfix", "reload"))
}

// setting says how to change milter.yaml, and to have it read.
func (c *checks) setting(line string) string { return setting(c.file(), line) }

func setting(file, line string) string { return "in " + file + ": " + line + "\n" + restart }

func (c *checks) file() string {
	if c.ConfigFile == "" {
		return "/etc/authkey/milter.yaml"
	}
	return c.ConfigFile
}

// mendSendmail is what sendmail.mc should say.
func (c *checks) mendSendmail() string {
	plan, _, err := c.Sendmail.Plan(c.Ours, c.action(), c.Config.Verify.Timeout)
	if err != nil {
		return err.Error()
	}
	place := "in sendmail.mc: "
	if len(plan.Order) == 0 {
		place = "in sendmail.mc, behind filters that verify DKIM and before those that scan: "
	}
	return place + plan.Text() + "\n" + mtaconf.SendmailCommands
}

func (c *checks) listed(ctx context.Context) []Finding {
	switch {
	case c.Postfix != nil:
		return c.listedByPostfix(ctx)
	case c.Sendmail == nil:
		return nil
	}
	return c.listedBySendmail()
}

func (c *checks) listedBySendmail() []Finding {
	const unchecked = "no mail is checked, and keys are not removed"
	s := c.Sendmail
	var found []Finding
	others := 0 // daemons that have the list for all
	for _, d := range s.Daemons {
		switch {
		case !d.Own:
			others++
		case !d.Asks() && (!d.Submission || len(c.Config.Attach.Domains) > 0):
			found = append(found, Finding{CheckListed, Fault,
				fmt.Sprintf("the daemon %s has filters of its own (InputMailFilters in DaemonPortOptions), and the milter is not among them", d.Name),
				"of the mail that comes in there " + unchecked,
				"in sendmail.mc: take InputMailFilters out of the DAEMON_OPTIONS of " + d.Name + ", or add authkey, with ; between\n" + mtaconf.SendmailCommands})
		}
	}
	switch {
	case s.Asks() && len(found) == 0:
		return []Finding{Okf(CheckListed, "InputMailFilters has it")}
	case s.Asks() || len(s.Daemons) > 0 && others == 0:
		return found
	}
	what := "sendmail.cf has no filter at the milter's socket"
	if slices.ContainsFunc(s.Defined, func(f mtaconf.SendmailFilter) bool { return f.Ours }) {
		what = "the milter is defined in sendmail.cf, but InputMailFilters lacks it"
	}
	return append(found, Finding{CheckListed, Fault, what, unchecked, c.mendSendmail()})
}

func (c *checks) listedByPostfix(ctx context.Context) []Finding {
	var faults []Finding
	fault := func(what, why, mend string) {
		faults = append(faults, Finding{CheckListed, Fault, what, why, mend})
	}
	const (
		unchecked = "no mail that comes in there is checked, and keys are not removed"
		keyless   = "our users' mail that comes in there gets no keys"
	)
	astray := func(s mtaconf.Service) bool {
		return slices.ContainsFunc(s.Milters, func(f mtaconf.Filter) bool { return f.WrongPath || f.OldSocket })
	}
	var asking []string
	attaching := len(c.Config.Attach.Domains) > 0
	meant, submission := false, false // some service asks us, or is meant to: then others need not
	for _, s := range c.Postfix.Services {
		submission = submission || s.Submission
		if (s.Inbound() || attaching && s.Submission) && s.Asks() {
			asking = append(asking, s.Name)
		}
		meant = meant || s.Inbound() && (s.Asks() || astray(s))
	}
	for _, s := range c.Postfix.Services {
		switch {
		case s.Reinjection && s.Asks():
			fault(s.Name+" asks the milter again about mail that comes back from a content filter",
				"its key is gone by then: it looks like mail without one", c.mendPostfix(ctx))
		case s.Submission && attaching && s.NoMilters:
			fault(s.Name+" has no_milters in receive_override_options, and attach.domains is set", keyless, c.mendPostfix(ctx))
		case s.Submission && attaching && s.Emptied():
			fault(s.Name+" has -o smtpd_milters= in master.cf, which switches the milter off, and attach.domains is set", keyless, c.mendPostfix(ctx))
		case s.Submission && attaching && !s.Asks() && !astray(s):
			fault(s.Name+" does not have the milter in smtpd_milters, and attach.domains is set", keyless, c.mendPostfix(ctx))
		case s.Asks() || !s.Inbound() || !s.Port25() && (meant || s.OptsOut()) || astray(s): // nothing is wrong, or another check says it
		case s.NoMilters && s.Port25(): // see losses
		case s.NoMilters:
			fault(s.Name+" has no_milters in receive_override_options", unchecked,
				c.Postfix.Command("postconf", "-P", s.Name+"/receive_override_options="+s.OtherOverrides)+"\n"+c.Postfix.Command("postfix", "reload"))
		default:
			fault(s.Name+" does not have the milter in smtpd_milters", unchecked, c.mendPostfix(ctx))
		}
	}
	if slices.ContainsFunc(c.Postfix.NonSMTPD, func(f mtaconf.Filter) bool { return f.Ours }) {
		fault("non_smtpd_milters has the milter", "mail from the machine itself needs no check, and bounces are delayed", c.mendPostfix(ctx))
	}
	faults = append(faults, c.lost(mtaconf.Asked)...)
	if !AnyFault(faults) && len(asking) > 0 {
		found := append([]Finding{Okf(CheckListed, "smtpd_milters has it for %s", strings.Join(asking, ", "))}, faults...)
		if attaching && !submission {
			found = append(found, Inapplicablef(CheckListed, "master.cf has no submission service: keys are attached to what our users send to these"))
		}
		return found
	}
	if !AnyFault(faults) && !meant {
		fault("no smtpd of master.cf asks the milter about mail from outside", "no mail is checked, and keys are not removed", c.Postfix.Command("postconf", "-M"))
	}
	return faults
}

// eachOurs calls f for each entry that is ours, or for a service that asks us.
func (c *checks) eachOurs(f func(service string, filter mtaconf.Filter)) {
	if c.Postfix != nil {
		for _, s := range c.Postfix.Services {
			for _, filter := range s.Milters {
				if filter.Ours && !s.NoMilters {
					f(s.Name, filter)
				}
			}
		}
	}
	if c.Sendmail != nil {
		for _, filter := range c.Sendmail.Filters {
			if filter.Ours {
				f("Sendmail", filter.Filter)
			}
		}
	}
}

func (c *checks) path(ctx context.Context) []Finding {
	if c.Postfix == nil {
		return nil
	}
	var found []Finding
	for _, s := range c.Postfix.Services {
		for _, f := range s.Milters {
			if f.OldSocket {
				found = append(found, Finding{CheckPath, Fault, fmt.Sprintf("%s is told %s, where the milter does not listen any more", s.Name, f.Text),
					"Postfix asks there too, and takes its default action", c.mendPostfix(ctx)})
			}
			if !f.WrongPath {
				continue
			}
			seen := "is not chrooted"
			if s.Chroot {
				seen = "is chrooted in " + c.Postfix.QueueDir
			}
			found = append(found, Finding{CheckPath, Fault,
				fmt.Sprintf("%s is told %s, but %s and looks at %s", s.Name, f.Text, seen, c.Postfix.OnHost(f.Socket, s.Chroot).Address),
				"it cannot reach the milter, and takes its default action", c.mendPostfix(ctx)})
		}
	}
	if found != nil {
		return found
	}
	c.eachOurs(func(service string, f mtaconf.Filter) {
		found = append(found, Okf(CheckPath, "%s connects to the milter at %s", service, f.Socket))
	})
	return found
}

func (c *checks) defaultAction(ctx context.Context) []Finding {
	var found []Finding
	c.eachOurs(func(service string, f mtaconf.Filter) {
		if mtaconf.Fits(f.DefaultAction, c.action()) {
			found = append(found, Okf(CheckDefault, "%s: %s while the milter cannot be asked, right for mode %s", service, f.DefaultAction, c.Config.Mode))
			return
		}
		why := "while the milter is down mail bypasses it, with its key in it"
		if c.Config.Mode == "test" {
			why = "in test mode a milter that is down should not hold up mail"
		}
		mend := c.mendSendmail
		if c.Postfix != nil {
			mend = func() string { return c.mendPostfix(ctx) }
		}
		found = append(found, Finding{CheckDefault, Fault,
			fmt.Sprintf("%s: %s while the milter cannot be asked, wrong for mode %s", service, f.DefaultAction, c.Config.Mode), why, mend()})
	})
	return found
}

func (c *checks) order(ctx context.Context) []Finding {
	var found []Finding
	judge := func(service string, asks bool, wrong *mtaconf.Misplacement, mend func() string) {
		switch {
		case wrong != nil:
			side := "after"
			if wrong.Before {
				side = "before"
			}
			found = append(found, Finding{CheckOrder, Fault, fmt.Sprintf("%s runs authkey %s %s", service, side, wrong.Filter.Text), wrong.Why, mend()})
		case asks:
			found = append(found, Okf(CheckOrder, "%s runs authkey at the right place among its milters", service))
		}
	}
	if p := c.Postfix; p != nil {
		for _, s := range p.Services {
			judge(s.Name, s.Asks(), s.Misplaced, func() string { return c.mendPostfix(ctx) })
		}
	}
	if s := c.Sendmail; s != nil {
		judge("Sendmail", s.Asks(), s.Misplaced, c.mendSendmail)
	}
	return found
}

// timeout looks at how long the MTA waits. Postfix waits for five minutes for each
// answer unless it is told otherwise, and anew whenever the milter reports progress.
func (c *checks) timeout(context.Context) []Finding {
	if c.Sendmail == nil {
		return c.lost(mtaconf.Waiting)
	}
	var found []Finding
	for _, f := range c.Sendmail.Filters {
		switch {
		case !f.Ours:
		case f.EndTimeout < c.Config.Verify.Timeout:
			found = append(found, Finding{CheckTimeout, Fault,
				fmt.Sprintf("Sendmail waits for %v at the end of a message, and verify.timeout is %v", f.EndTimeout, c.Config.Verify.Timeout),
				"where an Authentication Server is slow, Sendmail gives up and takes its default action", c.mendSendmail()})
		default:
			found = append(found, Okf(CheckTimeout, "Sendmail waits for %v at the end of a message", f.EndTimeout))
		}
	}
	return found
}
