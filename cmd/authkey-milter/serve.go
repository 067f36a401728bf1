package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/notify"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/milter"
)

// stopTimeout is how long messages in flight may take once we are told to stop.
const stopTimeout = 10 * time.Second

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
	signals := program.NewService()
	defer signals.Close()
	defer runtime.KeepAlive(program.TuneCollector())
	d := new(service)
	var flush func()
	d.log, d.level, flush = program.NewLogger(errOut, loaded.Config.Log)
	defer flush()
	engine, err := d.engine(loaded)
	if err != nil {
		return program.Exit(startCode(err), err)
	}
	defer d.close()
	listeners, err := listen(loaded)
	if faults := (config.Faults)(nil); errors.As(err, &faults) {
		return program.Exit(program.Config, err)
	}
	if err != nil {
		return program.Exit(program.Temp, err)
	}
	for _, ln := range listeners {
		d.sockets = append(d.sockets, ln.Addr())
	}
	d.put(loaded)
	d.server = milter.New(d.log, engine)

	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		reach, everybody := reachOf(ln.Addr())
		d.log.Info("listening", "listen", ln.Addr().String(), "reach", reach)
		if d.parts.attacher != nil && everybody {
			d.log.Warn("keys are attached for anyone who connects here and claims a login", "listen", ln.Addr().String(), "reach", reach)
		}
		go func() { failed <- d.server.Serve(ln) }()
	}
	err = signals.Run(ctx, failed, d.reload, program.Health{
		Check: d.server.SelfCheck, Status: d.server.Status,
		Failed: func(err error) { d.log.Error("self-check", "error", err.Error()) },
	})
	d.log.Info("stopping")
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	d.server.Shutdown(stopping)
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
		if fault, ok := loaded.InetFault(p.Addr().Network(), p.Addr().String()); ok {
			return nil, errors.Join(config.Faults{fault}, program.CloseAll(all))
		}
	}
	if len(all) > 0 && !loaded.IsSet("listen") {
		return all, nil
	}
	socket := loaded.Config.Socket
	for _, l := range loaded.Config.Listen {
		opened, err := open(l, socket)
		if err != nil {
			return nil, errors.Join(err, program.CloseAll(all))
		}
		all = append(all, opened...)
	}
	if len(all) == 0 {
		return nil, errors.New("listen: no socket to listen on")
	}
	return all, nil
}

// open opens the sockets that one entry of listen stands for.
func open(l config.Listen, socket config.Socket) ([]net.Listener, error) {
	if l.Network == "tcp" { // inet: without a host
		_, port, err := net.SplitHostPort(l.Address)
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		return listenLoopback(port)
	}
	ln, err := milter.Listen(l.Network, l.Address, socket.Mode, socket.Group)
	if err != nil {
		return nil, err
	}
	return []net.Listener{ln}, nil
}

// startCode is the exit code of a start that failed. A temporary cause may be gone at the
// next attempt: a state folder that the previous process still uses, a secret that somebody
// is writing.
func startCode(err error) int {
	if errors.Is(err, notify.ErrLocked) || errors.Is(err, diskfile.ErrBeingWritten) {
		return program.Temp
	}
	return program.Config
}
