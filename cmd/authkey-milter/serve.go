package main

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/milter"
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
	defer runtime.KeepAlive(program.TuneCollector())
	d := new(service)
	var flush func()
	d.log, d.level, flush = program.NewLogger(errOut, loaded.Config.Log)
	defer flush()
	engine, err := d.engine(loaded.Config)
	if err != nil {
		return program.Exit(program.Config, err)
	}
	defer d.close()
	listeners, err := listen(loaded)
	if err != nil {
		return program.Exit(program.Temp, err)
	}
	d.put(loaded)
	d.server = milter.New(d.log, engine)

	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		d.log.Info("listening", "listen", ln.Addr().String())
		go func() { failed <- d.server.Serve(ln) }()
	}
	err = life.Run(ctx, failed, d.reload, program.Health{
		Check: d.server.SelfCheck, Status: d.server.Status,
		Failed: func(err error) { d.log.Error("self-check", "error", err.Error()) },
	})
	d.log.Info("stopping")
	patience, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	d.server.Shutdown(patience)
	return err
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
