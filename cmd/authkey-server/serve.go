package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/authserver"
	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
)

const (
	// stopTimeout is how long questions under way may take once we are told to stop.
	stopTimeout = 5 * time.Second
	// tlsSocketName is the FileDescriptorName= of a socket of systemd's that is TLS.
	tlsSocketName = "tls"
	// keptDescriptors are those that no client's connection may take: for our sockets,
	// and the files that are read again.
	keptDescriptors = 64
)

func newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the server in the foreground, logging to standard error",
		Long: "Answer VERIFY for the domains of the configuration, until SIGTERM.\n\n" +
			"SIGHUP reads the configuration, the secrets, the address lists and the\n" +
			"certificate again. The last three are also read when they change. What is bad\n" +
			"is logged, and the previous one is kept.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := loadConfig(cmd, true)
			if err != nil {
				return err
			}
			err = serve(cmd.Context(), loaded, cmd.ErrOrStderr())
			if errors.Is(err, diskfile.ErrBeingWritten) { // it may be right a moment later
				return program.Exit(program.Temp, err)
			}
			if faults := (config.Faults)(nil); errors.As(err, &faults) {
				return program.Refuse(cmd, faults)
			}
			return err
		},
	}
}

// serve runs until ctx ends. The error may be of type config.Faults.
func serve(ctx context.Context, loaded *config.LoadedServer, errOut io.Writer) error {
	signals := program.NewService()
	defer signals.Close()
	s := &service{}
	var flush func()
	s.log, s.level, flush = program.NewLogger(errOut, loaded.Config.Log)
	defer flush()
	domains, cert, err := s.prepare(loaded, leaveLists)
	if err != nil {
		return err
	}
	listeners, err := s.listen(loaded, cert != nil)
	if err != nil {
		return err
	}
	s.server = authserver.New(authserver.Options{Limits: limits(loaded.Config.Limits), Logger: s.log})
	s.enforce(ctx, loaded, domains, cert)
	defer s.stopWatch()

	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		s.log.Info("listening", "listen", ln.Addr().String(), "tls", ln.secure)
		go func() { failed <- s.server.Serve(ln) }()
	}
	if cert != nil {
		s.warnOfCertificate(cert)
	}
	for _, d := range domains { // not before, since a list may be long
		s.announce(d, d.Reload())
	}
	err = signals.Run(ctx, failed, func() { s.reload(ctx) }, program.Health{
		Check:  func(ctx context.Context) error { return selfCheck(ctx, listeners[0]) },
		Status: s.status,
		Failed: func(err error) { s.log.Error("self-check", "error", err.Error()) },
	})
	s.log.Info("stopping")
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if cut := s.server.Shutdown(stopping); cut != nil {
		s.log.Warn("connections closed at shutdown", "error", cut)
	}
	return err
}

// A service is the running program: what a reload replaces, and what it leaves.
type service struct {
	log    *slog.Logger
	level  *slog.LevelVar
	server *authserver.Server
	cert   atomic.Pointer[certificate]

	fingerprint string // of the configuration file in force

	loaded    *config.LoadedServer
	domains   map[keyring.Config]*keyring.Domain
	stopWatch func() // ends the goroutines that watch the files
}

// prepare opens what a configuration names, without putting it in force. A domain
// about which nothing changed is the one that is served now; others are opened by
// open. The error may be of type config.Faults.
func (s *service) prepare(loaded *config.LoadedServer, open func(keyring.Config) (*keyring.Domain, error)) ([]*keyring.Domain, *certificate, error) {
	domains, faults := openDomains(loaded, func(c keyring.Config) (*keyring.Domain, error) {
		if d := s.domains[c]; d != nil {
			return d, nil
		}
		return open(c)
	})
	cert := s.cert.Load()
	switch files := loaded.Config.TLS; {
	case files.Cert == "":
		cert = nil
	case cert == nil || cert.files != files:
		var err error
		if cert, err = loadCertificate(files); err != nil {
			faults = append(faults, loaded.FaultOf("tls.cert", err))
		}
	}
	if len(faults) > 0 {
		return nil, nil, faults
	}
	return domains, cert, nil
}

// enforce puts a configuration in force.
func (s *service) enforce(ctx context.Context, loaded *config.LoadedServer, domains []*keyring.Domain, cert *certificate) {
	s.level.Set(loaded.Config.Log.Level)
	if s.stopWatch != nil {
		s.stopWatch()
	}
	s.loaded, s.fingerprint = loaded, fingerprint(loaded)
	s.domains = make(map[keyring.Config]*keyring.Domain, len(domains))
	for i, d := range domains {
		s.domains[keyringConfig(loaded.Config, loaded.Config.Domains[i])] = d
	}
	if cert != nil { // the sockets of one that is gone go on with it until the next start
		s.cert.Store(cert)
	}
	s.server.SetLimits(s.affordable(limits(loaded.Config.Limits)))
	s.server.SetDomains(domains)
	s.log.Info("configuration in force", "version", version, "file", loaded.Path, "domains", len(domains))
	program.LogRemarks(s.log, loaded.Settings)
	s.watch(ctx, domains, cert)
}

// watch begins to watch the files of a configuration.
func (s *service) watch(ctx context.Context, domains []*keyring.Domain, cert *certificate) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { diskfile.Watch(ctx, diskfile.Every, domains, s.announce) })
	if cert != nil {
		watching.Go(func() {
			diskfile.Watch(ctx, diskfile.Every, []*certificate{cert}, func(_ *certificate, err error) { s.announceCertificate(err) })
		})
	}
	s.stopWatch = func() {
		cancel()
		watching.Wait()
	}
}

// announce logs that a domain's files were read, or why their previous content stays in
// force.
func (s *service) announce(d *keyring.Domain, err error) {
	switch {
	case err != nil:
		s.log.Error("secret or address list not reloaded, keeping the previous one", "domain", d.Name(), "error", program.OneLine(err))
	case d.Any():
		s.log.Info("domain is served: every local part is an address", "domain", d.Name(), "addresses", "any")
	default:
		s.log.Info("domain is served", "domain", d.Name(), "addresses", d.Len())
	}
	if err == nil && d.Unexplained() {
		s.log.Warn("the address list has no address; if that is meant, give it the line \"# empty\"", "domain", d.Name())
	}
}

func (s *service) announceCertificate(err error) {
	if err != nil {
		s.log.Error("certificate not reloaded, keeping the previous one", "error", err)
		return
	}
	cert := s.cert.Load()
	s.log.Info("certificate is read", "ends", cert.get().Leaf.NotAfter)
	s.warnOfCertificate(cert)
}

// warnOfCertificate says why clients may refuse it.
func (s *service) warnOfCertificate(cert *certificate) {
	host, err := hostName("", s.loaded.Config)
	if err != nil { // it is not known
		host = ""
	}
	for _, warning := range cert.warnings(host, true) {
		s.log.Warn("clients may refuse the certificate", "warning", warning)
	}
}

// affordable lowers the number of connections to what the limit of open files allows. If
// that limit were reached first, no connection could be accepted, not even to answer busy.
func (s *service) affordable(l authserver.Limits) authserver.Limits {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || files.Cur >= uint64(l.Connections+keptDescriptors) {
		return l
	}
	l.Connections = max(int(files.Cur)-keptDescriptors, 1)
	s.log.Warn("limits.connections is more than the limit of open files (ulimit -n, LimitNOFILE=) allows", "files", files.Cur, "connections", l.Connections)
	return l
}

func limits(c config.ServerLimits) authserver.Limits {
	return authserver.Limits{
		Connections: c.Connections,
		Outstanding: c.Outstanding,
		PerClient:   authserver.Rate{Questions: c.PerClient.Count, Per: c.PerClient.Per},
		IdleTimeout: c.IdleTimeout,
	}
}

// A socket is a listener that may speak TLS.
type socket struct {
	net.Listener
	secure bool
}

// listen opens the sockets. Those passed by systemd come first; listen is then
// used only where it is set explicitly.
func (s *service) listen(loaded *config.LoadedServer, hasCertificate bool) ([]socket, error) {
	passed, err := program.PassedListeners()
	if err != nil {
		return nil, program.Exit(program.Temp, err)
	}
	var all []socket
	for _, p := range passed {
		secure := p.Name == tlsSocketName
		if secure && !hasCertificate {
			return nil, config.Faults{loaded.Fault("tls.cert", "is empty, and systemd passes a socket for TLS", "both tls.cert and tls.key")}
		}
		all = append(all, s.socket(p.Listener, secure))
	}
	if len(all) > 0 && !loaded.IsSet("listen") {
		return all, nil
	}
	for _, l := range loaded.Config.Listen {
		ln, err := net.Listen("tcp", l.Address)
		if err != nil {
			return nil, program.Exit(program.Temp, errors.Join(fmt.Errorf("listen: %w", err), program.CloseAll(all)))
		}
		all = append(all, s.socket(ln, l.TLS))
	}
	if len(all) == 0 {
		return nil, config.Faults{loaded.Fault("listen", "names no socket", "one at least")}
	}
	return all, nil
}

func (s *service) socket(ln net.Listener, secure bool) socket {
	if secure {
		ln = tls.NewListener(ln, &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load().get(), nil },
		})
	}
	return socket{ln, secure}
}
