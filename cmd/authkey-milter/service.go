package main

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/notify"
	"github.com/authkey/authkey/internal/prefs"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/verifier"
)

// A service is the running program: what a reload replaces, and what it leaves.
type service struct {
	log      *slog.Logger
	level    *slog.LevelVar
	path     string         // of the configuration file; empty: there is none
	config   config.Config  // in force, but for what is too large to keep: see put
	content  config.Content // of the file, as it was read
	sockets  []net.Addr     // on which we listen, whatever the configuration says now
	cache    *verifier.Cache
	records  *verifier.Records
	ledger   *notify.Ledger
	verifier *sharedVerifier
	roots    *x509.CertPool // its
	closing  sync.WaitGroup // verifiers and watches that are ending
	parts    parts          // of them the files that are watched: prefs and attacher
	watching func()         // ends the watch of the files in force
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
		d.log.Error("close the ledger of notices", "error", err.Error())
	}
}

// engine makes the engine of a configuration. The error may be of type config.Faults.
func (d *service) engine(loaded *config.Loaded) (*milter.Engine, error) {
	p, faults := assemble(loaded, d.parts)
	if len(faults) > 0 {
		return nil, faults
	}
	e := p.engine()
	if d.ledger == nil {
		var err error
		if d.ledger, err = openLedger(loaded.Config.Notify, d.log); err != nil {
			return nil, err
		}
	}
	if p.mayTell() {
		if e.Notifier, faults = notifier(loaded, d.ledger, d.log); len(faults) > 0 {
			return nil, faults
		}
	}
	// Nothing below can fail.
	d.level.Set(loaded.Config.Log.Level)
	d.parts.prefs, d.parts.attacher = p.prefs, p.attacher
	if p.attacher != nil {
		p.attacher.Reload(d.reportList)
	}
	d.watch()
	d.verify(loaded.Config, p.verifier)
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

// watch watches the files of the configuration in force, and no longer those of the one
// before.
func (d *service) watch() {
	if d.watching != nil {
		d.watching()
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.watching = cancel
	if file := d.parts.prefs; file != nil {
		d.closing.Go(func() {
			diskfile.Watch(ctx, diskfile.Every, []*prefs.File{file}, func(_ *prefs.File, err error) {
				if err != nil {
					d.log.Error("preferences not reloaded, keeping the previous ones", "error", program.OneLine(err))
				}
			})
		})
	}
	if keys := d.parts.attacher; keys != nil {
		d.closing.Go(func() { keys.Watch(ctx, diskfile.Every, d.reportList) })
	}
}

// reportList says what became of a secret or an address list that was read.
func (d *service) reportList(domain *keyring.Domain, err error) {
	if err != nil {
		d.log.Error("secret or address list not reloaded, keeping the previous one", "domain", domain.Name(), "error", program.OneLine(err))
		return
	}
	d.log.Info("attaching keys", "domain", domain.Name(), "any", domain.Any(), "addresses", domain.Len())
}

// noPreferences warns of a file of preferences that holds none.
const noPreferences = `the file of preferences holds none; if that is meant, give it the line "# empty"`

// put notes the configuration that is in force now, tells others on this machine, and logs
// which of its settings have no effect. Its rules are in the engine. Kept here too, as they
// were written, they would be thousands of objects for every run of the garbage collector.
func (d *service) put(loaded *config.Loaded) {
	d.path, d.config, d.content = loaded.Path, loaded.Config, loaded.Content
	d.config.Policy.Rules = nil
	// Reading thousands of rules and preferences takes many times the memory that they
	// need afterwards. Left as holes in the heap it makes each message cost more.
	debug.FreeOSMemory()
	err := d.notes.announce(loaded)
	d.log.Info("configuration in force", "version", version, "file", d.path, "mode", d.config.Mode)
	var warnings []string
	if d.parts.prefs != nil && d.parts.prefs.Unexplained() {
		warnings = append(warnings, noPreferences)
	}
	if d.parts.attacher != nil {
		warnings = append(warnings, d.parts.attacher.Warnings()...)
	}
	program.LogRemarks(d.log, loaded.Settings, warnings...)
	if err != nil {
		d.log.Warn("cannot write milter.running: doctor does not know the configuration in force", "error", err.Error())
	}
}
