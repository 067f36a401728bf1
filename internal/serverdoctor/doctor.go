// Package serverdoctor looks for what keeps an Authentication Server from vouching for
// keys: its unit and the configuration that is in force, secrets, address lists and the
// certificate, as the service's user sees them; whether it listens and answers questions
// about real keys; what DNS tells recipients, and where that leads; and the clock.
//
// Nothing is changed. The running server is asked about a real key of each domain, over
// its own sockets on this machine; any other server is asked about a text that is nobody's
// key. Every wait is bounded.
package serverdoctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"time"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// The checks, by the names that people and programs see.
const (
	CheckUnit          = "unit"          // systemd runs the server, and starts it with the machine
	CheckConfiguration = "configuration" // what was saved is in force
	CheckSecret        = "secret"        // of each domain
	CheckAddresses     = "addresses"     // likewise
	CheckCertificate   = "certificate"   // its chain, names and end, and which one is shown
	CheckListening     = "listening"     // the server answers on its sockets
	CheckQuestion      = "own-question"  // it calls a key valid that is
	CheckDNS           = "dns"           // the records of each domain
	CheckOutside       = "outside"       // where the records lead
)

// Options say what to look at.
type Options struct {
	Config     config.Server
	ConfigFile string
	// CommandLine spells a command of the program for ConfigFile.
	CommandLine func(args ...string) string
	InitLine    func(domain string) string // makes the files of a domain that are missing
	Domains     []Domain

	Unit doctor.Unit
	// UnitConfig is the configuration that the unit runs with.
	UnitConfig string
	// InForce and Saved are fingerprints of the configuration that the running server has
	// and of ConfigFile; InForce is empty where that is not known.
	InForce, Saved string

	// Reader is the user as which the service reads its files, nil where that is not known.
	// ReaderFrom says how it is known.
	Reader     *doctor.Reader
	ReaderFrom string

	// Certificate reads that of the tls: sockets.
	Certificate func() (Certificate, error)
	// Compare compares the records of a domain with those that the sockets call for.
	Compare func(ctx context.Context, domain string) Comparison
	// Wanted are the servers that these records name.
	Wanted []wire.Server
	// Resolver finds the addresses of their names.
	Resolver *net.Resolver

	Now          func() time.Time
	Synchronized func() (bool, error) // see doctor.Synchronized
	Container    string               // see doctor.Container
}

// A Domain is one that is served.
type Domain struct {
	Name string
	Keys keyring.Config // with the secret file of the configuration, not a copy of it
	List string         // path of the address list; empty: every local part is an address
}

// A Certificate is that of the tls: sockets, and why clients may refuse it.
type Certificate struct {
	Leaf     *x509.Certificate
	Warnings []string
}

// A Comparison is what DNS says of a domain against what is wanted.
type Comparison struct {
	Unknown string   // DNS failed; nothing else is known then
	Differs []string // what is missing, unexpected or cannot be used
	Notes   []string // what is published, and leads nowhere by default
	Publish []string // the wanted records as a zone file has them
}

const (
	// examineTimeout bounds everything.
	examineTimeout = time.Minute
	// dialTimeout bounds one conversation with a server.
	dialTimeout = 10 * time.Second

	service     = "authkey-server"
	noneVerify  = "nobody can verify the keys of your users"
	restartUnit = "systemctl restart " + service
	reloadUnit  = "systemctl reload " + service
	lookUnit    = "journalctl -u " + service + " -n 20"
)

// checks are those of one examination.
type checks struct{ Options }

// Examine makes all checks, side by side.
func Examine(ctx context.Context, o Options) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	c := &checks{o}
	return doctor.SideBySide(ctx, c.unit, c.configuration, c.files, c.certificate, c.listening, c.questions, c.dns, c.outside, c.clock)
}

func (c *checks) clock(context.Context) []doctor.Finding {
	return doctor.ExamineClock(c.ConfigFile, c.Now(), c.Synchronized, c.Container)
}

// mayNotRead is why the service's user may not read a file, nil where he may or that is not
// known; who says who that is.
func (c *checks) mayNotRead(path string) (obstacle *doctor.Obstacle, what string) {
	if c.Reader == nil {
		return nil, ""
	}
	obstacle, err := c.Reader.Read(path)
	if err != nil || obstacle == nil {
		return nil, ""
	}
	return obstacle, fmt.Sprintf("%s (%s) %s", c.Reader.Name, c.ReaderFrom, obstacle.What)
}
