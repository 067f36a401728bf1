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

// defaultUser is as whom our packages run the milter.
const defaultUser = "authkey"

// notes are where the running milter may have left its note, the runtime folder of the
// unit first.
func (o Options) notes() []string {
	var paths []string
	add := func(dir string) {
		if path := filepath.Join(dir, inforce.Milter); !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	if o.Service.RuntimeDir != "" {
		add(o.Service.RuntimeDir)
	}
	for _, s := range o.Ours.Sockets {
		if s.Network == "unix" {
			add(filepath.Dir(s.Address))
		}
	}
	return paths
}

// note reads what the running milter says of itself; nil: it says nothing.
func (o Options) note() (*inforce.Note, error) {
	for _, path := range o.notes() {
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

// serviceUser is as whom the milter runs: by its unit, by whose the note is that it
// left, or else as our packages have it, where there is such a user. Empty: that is not
// known.
func (o Options) serviceUser() string {
	if o.Service.User != "" {
		return o.Service.User
	}
	if n, err := o.note(); err == nil && n != nil {
		return strconv.Itoa(int(n.UID))
	}
	if _, err := lookup(defaultUser); err == nil {
		return defaultUser
	}
	return ""
}

// running looks at the milter: does it answer, may it read its configuration, and has it
// that one in force. In this order: systemd may start it for the first question.
func (o Options) running(ctx context.Context) []Finding {
	answers := o.listening(ctx)
	found := slices.Concat(answers, o.readable(ctx))
	// Where it answers, somebody runs it, be it systemd or not.
	if !slices.ContainsFunc(answers, func(f Finding) bool { return f.Status == OK }) {
		if f, down := o.stopped(ctx); down {
			return append(found, f)
		}
	}
	return append(found, o.inForce()...)
}

// A named is a file that the configuration names, or the configuration itself.
type named struct{ key, path, why string }

// readable looks whether the milter's user may read the configuration and the files
// that it names.
func (o Options) readable(context.Context) []Finding {
	c := o.Config
	const starts = "the milter does not start, and a reload is refused"
	files := []named{{"", o.ConfigFile, starts}, {"verify.ca_file", c.Verify.CAFile, starts}, {"notify.template_dir", c.Notify.TemplateDir, starts}}
	if path, ok := strings.CutPrefix(string(c.Preferences.Source), "file:"); ok {
		files = append(files, named{"preferences.source", path, "the milter does not start, or keeps the preferences that it has"})
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
		if o.Service.hides(f.path) {
			found = append(found, Finding{CheckConfig, Fault, fmt.Sprintf("%s does not see %s: it is under %s", serviceUnit, what, o.Service.Hidden), f.why,
				"move it to /etc/authkey, and name it there\n" + restart})
			continue
		}
		if obstacle, who := o.kept(f.path); obstacle != nil {
			found = append(found, Finding{CheckConfig, Fault, fmt.Sprintf("user %s, as whom the milter runs, may not read %s: %s", o.Service.User, what, obstacle), f.why,
				obstacle.open(who) + "\n" + restart})
		}
	}
	if len(found) == 0 && o.Service.User != "" && o.ConfigFile != "" {
		found = append(found, ok(CheckConfig, "user %s, as whom the milter runs, may read %s", o.Service.User, o.ConfigFile))
	}
	return found
}

// inForce compares what the running milter has in force with the file that we have
// read.
func (o Options) inForce() []Finding {
	n, err := o.note()
	switch {
	case err != nil:
		return []Finding{inapplicable(CheckConfig, "what the milter has in force cannot be told: %v", err)}
	case n == nil && o.Service.ConfigFile != "" && !samePath(o.Service.ConfigFile, o.ConfigFile):
		return []Finding{o.otherFile(serviceUnit+" is to run", o.Service.ConfigFile)}
	case n == nil:
		return []Finding{inapplicable(CheckConfig, "the milter has left no word of what it has in force: it does not run, is older, or has no runtime folder")}
	case !samePath(n.File, o.ConfigFile):
		return []Finding{o.otherFile("the milter runs", n.File)}
	}
	var found []Finding
	loaded, err := config.Load(o.ConfigFile, nil)
	since := n.Loaded.Local().Format(time.DateTime)
	switch {
	case err != nil:
		found = append(found, inapplicable(CheckConfig, "%s cannot be read again: %v", o.ConfigFile, err))
	case loaded.Digest(n.Environment) != n.Digest:
		found = append(found, Finding{CheckConfig, Fault, fmt.Sprintf("%s was changed after the milter read it, at %s", o.ConfigFile, since),
			"what it says now is not in force", "systemctl reload authkey-milter\njournalctl -u authkey-milter -n 20   # says why, if it was refused"})
	default:
		found = append(found, ok(CheckConfig, "the milter has %s in force as it is, since %s", describeFile(o.ConfigFile), since))
	}
	if o.Version != "" && n.Version != o.Version {
		found = append(found, Finding{CheckConfig, Warning, fmt.Sprintf("the milter that runs is version %s, this is %s", n.Version, o.Version),
			"what was mended in between is not in force", restart})
	}
	return found
}

func (o Options) otherFile(who, file string) Finding {
	mend := "authkey-milter doctor --config " + file
	if file == "" {
		mend = "authkey-milter doctor   # without --config"
	}
	return Finding{CheckConfig, Fault, fmt.Sprintf("%s with %s, and this looks at %s", who, describeFile(file), describeFile(o.ConfigFile)),
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
func (o Options) stopped(ctx context.Context) (Finding, bool) {
	if o.Service.State == nil {
		return Finding{}, false
	}
	active, status := o.Service.State(ctx)
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
