package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/authkey/authkey/internal/attach"
	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/notify"
	"github.com/authkey/authkey/internal/prefs"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// A service is the running program: what a reload replaces, and what it leaves.
type service struct {
	log      *slog.Logger
	level    *slog.LevelVar
	path     string        // of the configuration file; empty: there is none
	config   config.Config // in force, but for what it is too large to keep: put
	settings config.Settings
	sockets  []net.Addr // on which we listen, whatever the configuration says now
	cache    *verifier.Cache
	records  *verifier.Records
	ledger   *notify.Ledger
	verifier *sharedVerifier
	roots    *x509.CertPool   // its
	closing  sync.WaitGroup   // what nobody asks any more and still finishes
	attacher *attach.Attacher // nil: our own mail gets no keys
	prefs    *prefs.File      // nil: there are no preferences
	watching func()           // ends the watch of the files in force
	server   *milter.Server
	notes    announcer
}

// A sharedVerifier is closed when the last configuration that uses it has ended.
type sharedVerifier struct {
	*verifier.Verifier
	users   atomic.Int64
	closing *sync.WaitGroup
}

func (v *sharedVerifier) share() { v.users.Add(1) }

func (v *sharedVerifier) drop() {
	if v.users.Add(-1) == 0 {
		v.closing.Go(v.Close)
	}
}

// close ends what the last configuration used.
func (d *service) close() {
	d.notes.withdraw()
	d.watching()
	d.verifier.drop()
	d.closing.Wait()
	if err := d.ledger.Close(); err != nil {
		d.log.Error("close the memory of notices", "error", err.Error())
	}
}

// engine makes what a configuration says.
func (d *service) engine(c config.Config) (*milter.Engine, error) {
	s, err := settings(c)
	if err != nil {
		return nil, err
	}
	popts, err := policyOptions(c)
	if err != nil {
		return nil, err
	}
	vopts, err := verifierOptions(c)
	if err != nil {
		return nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	if d.ledger == nil {
		if d.ledger, err = openLedger(c.Notify, d.log); err != nil {
			return nil, err
		}
	}
	e := &milter.Engine{Settings: s, Limits: limits(c.Limits), Policy: policy.New(popts)}
	file, err := preferences(c.Preferences, d.prefs)
	if err != nil {
		return nil, err
	}
	if mayTell(popts, file != nil) {
		if e.Notifier, err = newNotifier(c, d.ledger, d.log); err != nil {
			return nil, err
		}
	}
	keys, err := newAttacher(c.Attach, d.attacher)
	if err != nil {
		return nil, err
	}
	// Nothing below can fail.
	d.level.Set(level)
	d.attacher = keys
	if keys != nil {
		keys.Reload(d.reportList)
		e.Attacher = keys
	}
	d.prefs = file
	d.watch(file)
	if file != nil {
		e.Preferences = prefs.New(file, prefs.Options{})
	}
	d.verify(c, vopts)
	e.Verifier, e.Release = d.verifier, d.verifier.drop
	return e, nil
}

// verify makes the verifier of a configuration. One that would be the same is
// kept, with its connections and with what it knows; another one takes over the
// cache of keys and the records of domains.
func (d *service) verify(c config.Config, opts verifier.Options) {
	old := d.config
	if d.verifier == nil || !reflect.DeepEqual(old.DNS, c.DNS) || !reflect.DeepEqual(old.Verify, c.Verify) ||
		old.Cache != c.Cache || !d.roots.Equal(opts.Roots) { // the file may be another one under the same name
		if d.cache == nil || old.Cache.Entries != c.Cache.Entries {
			d.cache = verifier.NewCache(c.Cache.Entries)
		}
		if d.records == nil {
			d.records = verifier.NewRecords()
		}
		d.roots = opts.Roots
		opts.Cache, opts.Records, opts.Logger = d.cache, d.records, d.log
		d.verifier = &sharedVerifier{Verifier: verifier.New(opts), closing: &d.closing}
	}
	d.verifier.share()
}

// noPreferences warns of a file of preferences that holds none.
const noPreferences = `the file of preferences holds none; if that is meant, give it the line "# empty"`

// preferences reads the file of preferences, if there is one. old, which may be nil, is the
// one in force.
func preferences(c config.Preferences, old *prefs.File) (*prefs.File, error) {
	path, ok := strings.CutPrefix(string(c.Source), "file:")
	if !ok {
		return nil, nil
	}
	file := prefs.NewFile(path)
	file.Follow(old)
	if err := file.Reload(); err != nil {
		return nil, fmt.Errorf("preferences.source: %w", err)
	}
	return file, nil
}

// watch looks after the files of the configuration in force, in place of those of
// the one before. file may be nil.
func (d *service) watch(file *prefs.File) {
	if d.watching != nil {
		d.watching()
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.watching = cancel
	if file != nil {
		d.closing.Go(func() {
			diskfile.Watch(ctx, diskfile.Every, []*prefs.File{file}, func(_ *prefs.File, err error) {
				if err != nil {
					d.log.Error("preferences on disk are refused, the old ones stay", "error", program.OneLine(err))
				}
			})
		})
	}
	if keys := d.attacher; keys != nil {
		d.closing.Go(func() { keys.Watch(ctx, diskfile.Every, d.reportList) })
	}
}

// reportList says what became of a secret or an address list that was read.
func (d *service) reportList(domain *keyring.Domain, err error) {
	if err != nil {
		d.log.Error("what keys are made from cannot be read, what was known stays in force", "domain", domain.Name(), "error", program.OneLine(err))
		return
	}
	d.log.Info("attaching keys", "domain", domain.Name(), "any", domain.Any(), "addresses", domain.Len())
}

// reload reads the configuration again. A bad one is logged and changes nothing.
func (d *service) reload() {
	loaded, err := config.Load(d.path, os.Environ())
	if err == nil {
		err = d.acceptable(loaded)
	}
	if err == nil {
		var engine *milter.Engine
		if engine, err = d.engine(loaded.Config); err == nil {
			d.server.Swap(engine)
		}
	}
	if err != nil {
		d.log.Error("the new configuration is refused, the old one stays", "error", program.OneLine(err))
		return
	}
	old, now := d.config, loaded.Config
	if !reflect.DeepEqual(old.Listen, now.Listen) || old.Socket != now.Socket || old.Log.Format != now.Log.Format ||
		stateDir(old.Notify) != stateDir(now.Notify) {
		d.log.Warn("listen, socket, log.format and notify.state_dir take effect at the next start")
	}
	d.put(loaded)
}

// acceptable finds what forbids to take up a configuration that is right in itself.
func (d *service) acceptable(loaded *config.Loaded) error {
	if loaded.CutOff(d.settings) {
		return fmt.Errorf("%s: %w", loaded.Path, config.ErrCutOff)
	}
	for _, addr := range d.sockets {
		if fault, ok := loaded.InetFault(addr.Network(), addr.String()); ok {
			return fault
		}
	}
	return nil
}

// put notes the configuration that is in force now, and says so, and what of it is
// not acted on. Its rules are in the engine: kept a second time, and as they were
// written, they would be thousands of objects for every run of the garbage collector.
func (d *service) put(loaded *config.Loaded) {
	d.path, d.config, d.settings = loaded.Path, loaded.Config, loaded.Settings
	d.config.Policy.Rules = nil
	// Reading thousands of rules and preferences takes many times the memory that they
	// need afterwards. Left as holes in the heap it makes each message dearer.
	debug.FreeOSMemory()
	err := d.notes.announce(loaded)
	d.log.Info("configuration in force", "version", version, "file", d.path, "mode", d.config.Mode)
	warnings := loaded.Warnings()
	if d.prefs != nil && d.prefs.Unexplained() {
		warnings = append(warnings, noPreferences)
	}
	if d.attacher != nil {
		warnings = append(warnings, d.attacher.Warnings()...)
	}
	for _, warning := range warnings {
		d.log.Warn("a file may have been cut off", "warning", warning)
	}
	for _, fault := range loaded.Idle() {
		d.log.Warn("set in the configuration, but without effect", "fault", fault.Error())
	}
	for _, key := range loaded.NotActedOn() {
		d.log.Warn("set in the configuration, but not acted on yet", "key", key)
	}
	if err != nil {
		d.log.Warn("what is in force cannot be noted, the doctor will not know it", "error", err.Error())
	}
}
