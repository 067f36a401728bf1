package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/inforce"
)

// defaultUser is the user as which our packages run the milter.
const defaultUser = "authkey"

// notes are where the running milter may have left its note, the runtime folder of the
// unit first.
func (c *checks) notes() []string {
	var paths []string
	add := func(dir string) {
		if path := filepath.Join(dir, inforce.Milter); !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	if c.Service.RuntimeDir != "" {
		add(c.Service.RuntimeDir)
	}
	for _, s := range c.Ours.Sockets {
		if s.Network == "unix" {
			add(filepath.Dir(s.Address))
		}
	}
	return paths
}

// note reads what the running milter says of itself; nil: it says nothing.
func (c *checks) note() (*inforce.Note, error) {
	for _, path := range c.notes() {
		n, err := inforce.Read(path)
		switch {
		case err == nil:
			return &n, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return nil, nil
}

// serviceUser is the milter's user: by its unit, by the owner of the note that it wrote, or
// else that of our packages, if there is such a user. Empty: it is not known.
func (c *checks) serviceUser() string {
	if c.Service.User != "" {
		return c.Service.User
	}
	if n, err := c.note(); err == nil && n != nil {
		return strconv.Itoa(int(n.UID))
	}
	if _, err := lookup(defaultUser); err == nil {
		return defaultUser
	}
	return ""
}

// running looks at the milter: does it answer, may it read its configuration, and has it
// that one in force. In this order: systemd may start it for the first question.
func (c *checks) running(ctx context.Context) []Finding {
	answers := c.listening(ctx)
	found := slices.Concat(answers, c.readable(ctx))
	// If it answers, it runs, whether systemd started it or not.
	if !slices.ContainsFunc(answers, func(f Finding) bool { return f.Status == OK }) {
		if f, down := c.stopped(ctx); down {
			return append(found, f)
		}
	}
	return append(found, c.inForce()...)
}

// A namedFile is a file that the configuration names, or the configuration itself.
type namedFile struct{ key, path, why string }

// readable looks whether the milter's user may read the configuration and the files
// that it names.
func (c *checks) readable(context.Context) []Finding {
	conf := c.Config
	const starts = "the milter does not start, and a reload is refused"
	files := []namedFile{{"", c.ConfigFile, starts}, {"verify.ca_file", conf.Verify.CAFile, starts}, {"notify.template_dir", conf.Notify.TemplateDir, starts}}
	if path, ok := strings.CutPrefix(string(conf.Preferences.Source), "file:"); ok {
		files = append(files, namedFile{"preferences.source", path, "the milter does not start, or keeps the preferences that it has"})
	}
	var found []Finding
	for _, f := range files {
		if f.path == "" {
			continue
		}
		what := "the configuration " + f.path
		if f.key != "" {
			what = f.key + " " + f.path
		}
		if c.Service.hides(f.path) {
			found = append(found, Finding{CheckConfig, Fault, fmt.Sprintf("%s does not see %s: it is under %s", serviceUnit, what, c.Service.Hidden), f.why,
				"move it to /etc/authkey, and name it there\n" + restart})
			continue
		}
		if obstacle, who := c.mayNotRead(f.path); obstacle != nil {
			found = append(found, Finding{CheckConfig, Fault, fmt.Sprintf("the milter's user %s may not read %s: %s", c.Service.User, what, obstacle), f.why,
				obstacle.open(who) + "\n" + restart})
		}
	}
	if len(found) == 0 && c.Service.User != "" && c.ConfigFile != "" {
		found = append(found, Okf(CheckConfig, "the milter's user %s may read %s", c.Service.User, c.ConfigFile))
	}
	return found
}

// inForce compares what the running milter has in force with the file that we have
// read.
func (c *checks) inForce() []Finding {
	n, err := c.note()
	switch {
	case err != nil:
		return []Finding{Inapplicablef(CheckConfig, "what the milter has in force is not known: %v", err)}
	case n == nil && c.Service.ConfigFile != "" && !samePath(c.Service.ConfigFile, c.ConfigFile):
		return []Finding{c.otherFile(serviceUnit+" is to run", c.Service.ConfigFile)}
	case n == nil:
		return []Finding{Inapplicablef(CheckConfig, "the milter has not written milter.running: it does not run, is older, or has no runtime folder")}
	case !samePath(n.File, c.ConfigFile):
		return []Finding{c.otherFile("the milter runs", n.File)}
	}
	var found []Finding
	loaded, err := config.Load(c.ConfigFile, nil)
	since := n.Loaded.Local().Format(time.DateTime)
	switch {
	case err != nil:
		found = append(found, Inapplicablef(CheckConfig, "%s cannot be read again: %v", c.ConfigFile, err))
	case loaded.Digest(n.Environment) != n.Digest:
		found = append(found, Finding{CheckConfig, Fault, fmt.Sprintf("%s was changed after the milter read it, at %s", c.ConfigFile, since),
			"what it says now is not in force", "systemctl reload authkey-milter\njournalctl -u authkey-milter -n 20   # says why, if it was refused"})
	default:
		found = append(found, Okf(CheckConfig, "the milter has %s in force as it is, since %s", describeFile(c.ConfigFile), since))
	}
	if c.Version != "" && n.Version != c.Version {
		found = append(found, Finding{CheckConfig, Warning, fmt.Sprintf("the milter that runs is version %s, this is %s", n.Version, c.Version),
			"what was fixed in between is not in force", restart})
	}
	return found
}

func (c *checks) otherFile(who, file string) Finding {
	mend := "authkey-milter doctor --config " + file
	if file == "" {
		mend = "authkey-milter doctor   # without --config"
	}
	return Finding{CheckConfig, Fault, fmt.Sprintf("%s with %s, and this looks at %s", who, describeFile(file), describeFile(c.ConfigFile)),
		"what is found here is not about the milter that runs", mend}
}

func describeFile(path string) string {
	if path == "" {
		return "defaults, without a file,"
	}
	return path
}

// samePath reports whether two paths lead to one file; empty is none.
func samePath(a, b string) bool {
	real := func(path string) string {
		if path == "" {
			return ""
		}
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute
		}
		if target, err := filepath.EvalSymlinks(path); err == nil {
			return target
		}
		return path
	}
	return real(a) == real(b)
}

// stopped looks whether systemd runs the service at all.
func (c *checks) stopped(ctx context.Context) (Finding, bool) {
	if c.Service.State == nil {
		return Finding{}, false
	}
	active, status := c.Service.State(ctx)
	f := Finding{CheckConfig, Fault, serviceUnit + " does not run", "nothing of the configuration is in force", "systemctl start authkey-milter\njournalctl -u authkey-milter -n 20"}
	switch {
	case active != "failed" && active != "inactive" && active != "activating":
		return Finding{}, false
	case status == 78:
		f.What = serviceUnit + " does not run: it refused its configuration (exit code 78)"
		f.Mend = "authkey-milter check\njournalctl -u authkey-milter -n 20\nsystemctl reset-failed authkey-milter.service authkey-milter.socket\nsystemctl restart authkey-milter.socket authkey-milter"
	case active == "failed" || status != 0:
		f.What = fmt.Sprintf("%s does not run: it has failed (exit code %d)", serviceUnit, status)
	case active == "activating": // it is being started
		return Finding{}, false
	}
	return f, true
}
