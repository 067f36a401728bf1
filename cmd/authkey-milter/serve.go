package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/verifier"
)

// stopPatience is how long messages in flight may take once we are told to stop.
const stopPatience = 10 * time.Second

func newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the milter in the foreground, logging to standard error",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := loadConfig(cmd, true)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), loaded, cmd.ErrOrStderr())
		},
	}
}

// serve runs until ctx ends.
func serve(ctx context.Context, loaded *config.Loaded, errOut io.Writer) error {
	life := program.NewService()
	defer life.Close()
	d := &service{loaded: loaded}
	d.log, d.level = program.NewLogger(errOut, loaded.Config.Log)
	engine, err := d.engine(loaded.Config)
	if err != nil {
		return program.Exit(program.Config, err)
	}
	defer d.closing.Wait()
	defer func() { d.verifier.drop() }() // the one in force at the end
	listeners, err := listen(loaded)
	if err != nil {
		return program.Exit(program.Temp, err)
	}
	d.announce()
	d.server = milter.New(d.log, engine)

	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		d.log.Info("listening", "listen", ln.Addr().String())
		go func() { failed <- d.server.Serve(ln) }()
	}
	err = life.Run(ctx, failed, d.reload)
	d.log.Info("stopping")
	patience, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	d.server.Shutdown(patience)
	return err
}

// A service is the running program: what a reload replaces, and what it leaves.
type service struct {
	log      *slog.Logger
	level    *slog.LevelVar
	loaded   *config.Loaded
	cache    *verifier.Cache
	records  *verifier.Records
	verifier *sharedVerifier
	closing  sync.WaitGroup // verifiers that nobody asks any more and that still finish
	server   *milter.Server
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

// engine makes what a configuration says. A verifier that would be the same is
// kept, with its connections and with what it knows; another one takes over the
// cache of keys and the records of domains.
func (d *service) engine(c config.Config) (*milter.Engine, error) {
	s, err := settings(c)
	if err != nil {
		return nil, err
	}
	p, err := policyOf(c)
	if err != nil {
		return nil, err
	}
	opts, err := verifierOptions(c)
	if err != nil {
		return nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	d.level.Set(level) // nothing below can fail
	old := d.loaded.Config
	if d.verifier == nil || !reflect.DeepEqual(old.DNS, c.DNS) || !reflect.DeepEqual(old.Verify, c.Verify) || old.Cache != c.Cache {
		if d.cache == nil || old.Cache.Entries != c.Cache.Entries {
			d.cache = verifier.NewCache(c.Cache.Entries)
		}
		if d.records == nil {
			d.records = verifier.NewRecords()
		}
		opts.Cache, opts.Records, opts.Logger = d.cache, d.records, d.log
		d.verifier = &sharedVerifier{Verifier: verifier.New(opts), closing: &d.closing}
	}
	d.verifier.share()
	return &milter.Engine{Settings: s, Limits: limits(c.Limits), Verifier: d.verifier, Policy: p, Release: d.verifier.drop}, nil
}

// reload reads the configuration again. A bad one is logged and changes nothing.
func (d *service) reload() {
	loaded, err := config.Load(d.loaded.Path, os.Environ())
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
	old, now := d.loaded.Config, loaded.Config
	d.loaded = loaded
	if !reflect.DeepEqual(old.Listen, now.Listen) || old.Socket != now.Socket || old.Log.Format != now.Log.Format {
		d.log.Warn("listen, socket and log.format take effect at the next start")
	}
	d.announce()
}

// announce says what configuration is in force, and what of it is not acted on.
func (d *service) announce() {
	d.log.Info("configuration in force", "version", version, "file", d.loaded.Path, "mode", d.loaded.Config.Mode)
	for _, key := range d.loaded.NotActedOn() {
		d.log.Warn("set in the configuration, but not acted on yet", "key", key)
	}
}

// listen opens the sockets. Those passed by systemd come first; listen is then
// used only where it is set explicitly.
func listen(loaded *config.Loaded) ([]net.Listener, error) {
	passed, err := program.PassedListeners()
	if err != nil {
		return nil, err
	}
	var all []net.Listener
	for _, p := range passed {
		all = append(all, p.Listener)
	}
	if len(all) > 0 && !loaded.IsSet("listen") {
		return all, nil
	}
	socket := loaded.Config.Socket
	for _, l := range loaded.Config.Listen {
		ln, err := milter.Listen(l.Network, l.Address, socket.Mode, socket.Group)
		if err != nil {
			return nil, errors.Join(err, closeAll(all))
		}
		all = append(all, ln)
	}
	if len(all) == 0 {
		return nil, errors.New("listen: no socket to listen on")
	}
	return all, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, ln := range listeners {
		errs = append(errs, ln.Close())
	}
	return errors.Join(errs...)
}
