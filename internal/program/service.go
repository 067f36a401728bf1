package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/authkey/authkey/internal/config"
)

// A Service connects a program that serves with signals and systemd: it hears of reload and
// stop, and tells systemd that it is ready, reloads and stops. Make one with NewService
// before anything that takes time: until then a SIGHUP ends the process.
type Service struct {
	hangup chan os.Signal
}

// NewService begins a service. The caller must Close it.
func NewService() *Service {
	s := &Service{hangup: make(chan os.Signal, 1)}
	signal.Notify(s.hangup, syscall.SIGHUP)
	return s
}

// Close lets SIGHUP have its usual effect again.
func (s *Service) Close() { signal.Stop(s.hangup) }

// Health is how a running service checks itself.
type Health struct {
	// Check asks the service as a client would. It returns by the time that ctx ends; an
	// error means that clients are not served.
	Check func(ctx context.Context) error
	// Status is one line for people: what systemctl status shows.
	Status func() string
	// Failed is called after each Check that fails.
	Failed func(error)
}

// statusEvery is how often the status line is renewed where systemd runs no
// watchdog over us.
const statusEvery = 10 * time.Second

// Run says that the service is ready, and runs until ctx ends, which is no error, or until
// a listener has ended and failed yields its error. At each SIGHUP it calls reload. Where
// systemd runs a watchdog, only a good health.Check resets it, so that a process that is
// stuck is started again. At the end Run says that the service is stopping.
func (s *Service) Run(ctx context.Context, failed <-chan error, reload func(), health Health) error {
	notify(health.ready())
	defer notify(daemon.SdNotifyStopping)
	every := statusEvery
	limit, err := daemon.SdWatchdogEnabled(false)
	if err == nil && limit > 0 {
		every = limit / 2
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		select {
		case <-s.hangup:
			// Type=notify-reload wants to know since when.
			notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
			reload()
			notify(health.ready())
		case <-beat.C:
			health.beat(ctx, every)
		case err := <-failed:
			return Exit(Temp, err)
		case <-ctx.Done():
			return nil
		}
	}
}

// ready is what systemd is told of a service that is ready, with its status, which may
// name the configuration that is in force now.
func (h Health) ready() string { return daemon.SdNotifyReady + "\nSTATUS=" + h.Status() }

func (h Health) beat(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := h.Check(ctx); err != nil {
		if ctx.Err() == nil || context.Cause(ctx) == context.DeadlineExceeded {
			h.Failed(err)
		}
		return
	}
	notify(daemon.SdNotifyWatchdog + "\nSTATUS=" + h.Status())
}

// notify tells systemd, if there is one; it is no fault if there is none.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// A Passed is a listener that systemd passed, with the FileDescriptorName= of its
// socket unit.
type Passed struct {
	net.Listener
	Name string
}

// PassedListeners returns the stream sockets passed by systemd.
func PassedListeners() ([]Passed, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets passed by systemd: %w", err)
	}
	var all []Passed
	for name, listeners := range byName {
		for _, ln := range listeners {
			if ln != nil {
				all = append(all, Passed{ln, name})
			}
		}
	}
	return all, nil
}

// CloseAll closes the listeners of a start that failed.
func CloseAll[L net.Listener](listeners []L) error {
	var errs []error
	for _, ln := range listeners {
		errs = append(errs, ln.Close())
	}
	return errors.Join(errs...)
}

// NewLogger makes the logger of a service, and the level it logs at, which can be
// changed. Lines are written together with those of the next moment, unless somebody
// calls the handler's Settle; flush writes what waits, at the end.
func NewLogger(out io.Writer, c config.Log) (log *slog.Logger, level *slog.LevelVar, flush func()) {
	w := newLogWriter(out, func(lines int) {
		log.Warn("log lines dropped: reader too slow", "lines", lines)
	})
	level = new(slog.LevelVar)
	level.Set(c.Level)
	var handler slog.Handler = &textHandler{out: w, level: level}
	if c.Format == "json" {
		handler = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	}
	return slog.New(settler{handler, w}), level, w.close
}

// LogRemarks logs what may be wrong with a configuration that is in force now: files that
// may have been cut off, as further says of those that it names, and what has no effect.
func LogRemarks(log *slog.Logger, settings config.Settings, further ...string) {
	for _, warning := range append(settings.Warnings(), further...) {
		log.Warn("a file may have been cut off", "warning", warning)
	}
	for _, fault := range settings.Idle() {
		log.Warn("configured, but has no effect", "fault", fault.Error())
	}
	for _, key := range settings.NotImplemented() {
		log.Warn("configured, but has no effect yet", "key", key)
	}
}

// OneLine makes a multi-line error fit for a log line.
func OneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
