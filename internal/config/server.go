package config

import (
	"errors"
	"net"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/keyring"
)

// Server is the whole of server.yaml. What each key means is said once, in the
// table of keys; DescribeServer lists it.
type Server struct {
	Host    string // empty: the machine's name
	Listen  []ServerListen
	TLS     TLS
	Domains []ServerDomain
	Limits  ServerLimits
	Log     Log
	Metrics Metrics

	AllowOpenSecrets bool
}

// ServerListen is a TCP socket to listen on.
type ServerListen struct {
	TLS     bool
	Address string // HOST:PORT; an empty host is every interface
}

// TLS names the certificate of the tls: sockets; both are set, or none.
type TLS struct {
	Cert string // path of a PEM file, intermediates included
	Key  string
}

// ServerDomain is one entry of domains: whose keys are verified. Bounds of the
// times are those of the keys' derivation, and checked by whoever does that.
type ServerDomain struct {
	Name          string
	SecretFile    string
	Addresses     string // file:FILE, or any
	AVT           time.Duration
	Grace         time.Duration
	TTL           time.Duration
	CaseSensitive bool
	Subaddress    string // the separator; empty: no sub-addresses
}

// ServerLimits bounds what clients may ask of us.
type ServerLimits struct {
	Connections int
	Outstanding int // of one connection
	PerClient   Rate
	IdleTimeout time.Duration
}

// maxOutstanding bounds limits.outstanding.
const maxOutstanding = 1_000_000

// serverSchema is the table of server.yaml, bound to c.
func serverSchema(c *Server) *schema {
	return newSchema("server.yaml", "AUTHKEY_SERVER_", []key{
		row("host", &c.Host, orEmpty(textKind("host", "a host name or IP address without port, such as as.example.com", checkHost)), "", "name or address under which clients reach this server, for the records that dns and init print; empty: the machine's name"),
		row("listen", &c.Listen, listOf("sockets", parsedKind("socket", "tcp:[HOST:]PORT or tls:[HOST:]PORT", parseServerListen)), []any{"tcp:7425"}, "sockets to listen on: tcp:[HOST:]PORT, tls:[HOST:]PORT; those passed by systemd come first"),
		row("tls.cert", &c.TLS.Cert, orEmpty(pathKind), "", "certificate of the tls: sockets, with its intermediates; read again when it changes"),
		row("tls.key", &c.TLS.Key, orEmpty(pathKind), "", "private key of that certificate; read again when it changes"),
		row("domains", &c.Domains, objects("domains", serverDomainFields, nil), []any{}, "domains whose keys are verified"),
		row("allow_open_secrets", &c.AllowOpenSecrets, yesNo, false, "true: accept secret files that everybody may read, such as Docker Compose's"),
		row("limits.connections", &c.Limits.Connections, integerKind(1, maxConnections), 10_000, "connections at a time; at the limit, a new one replaces one of the network or client that has most, or gets busy"),
		row("limits.outstanding", &c.Limits.Outstanding, integerKind(1, maxOutstanding), 1000, "questions of one connection that are answered together"),
		row("limits.per_client", &c.Limits.PerClient, rateKind, "5000/1s", "questions of one client, an IPv4 address or an IPv6 /64; its /24 or /48 may ask 4 times as much, its /32 16 times; more are answered busy"),
		row("limits.idle_timeout", &c.Limits.IdleTimeout, positiveDuration, "120s", "how long a connection may be idle"),
		logLevelKey(&c.Log),
		logFormatKey(&c.Log),
		metricsListenKey(&c.Metrics),
	})
}

func serverDomainFields(d *ServerDomain) []key {
	return []key{
		bind("name", &d.Name, domainKind, "domain of the senders' addresses").mustBeSet(),
		bind("secret_file", &d.SecretFile, pathKind, "file of the secret that the keys are derived from, mode 0600, or 0640 with a group of the process; it may be one that systemd's LoadCredential= passes").mustBeSet(),
		bind("addresses", &d.Addresses, addressesKind, "which addresses have keys: those of a file, or any of the domain").mustBeSet(),
		row("avt", &d.AVT, positiveDuration, short(keyring.DefaultAVT), "AuthKey Valid Time: how long one key is attached; to change it ends every key"),
		row("grace", &d.Grace, anyDuration, short(keyring.DefaultGrace), "how much longer a key is valid, for mail in queues"),
		row("ttl", &d.TTL, anyDuration, short(keyring.DefaultTTL), "how long clients may rely on an answer; never beyond the key's end"),
		row("case_sensitive", &d.CaseSensitive, yesNo, false, "true: local parts differ by case"),
		row("subaddress", &d.Subaddress, subaddressKind, "+", "separator of sub-addresses; empty: none"),
	}
}

// LoadedServer is a server.yaml that has been read and found right.
type LoadedServer struct {
	Config Server
	Path   string // of the file; empty: no file was read
	Settings
}

// LoadServer reads server.yaml as Load reads milter.yaml.
func LoadServer(path string, environ []string) (*LoadedServer, error) {
	loaded := &LoadedServer{Path: path}
	var faults Faults
	loaded.Settings, faults = loadFile(serverSchema(&loaded.Config), path, environ)
	if len(faults) == 0 {
		faults = loaded.checkTLS()
	}
	if len(faults) > 0 {
		return nil, faults
	}
	loaded.idle = loaded.findIdle()
	return loaded, nil
}

// checkTLS finds what no single key shows.
func (l *LoadedServer) checkTLS() Faults {
	const both = "both tls.cert and tls.key"
	tls := l.Config.TLS
	switch {
	case tls.Cert == "" && tls.Key != "":
		return Faults{l.Fault("tls.key", "is set, and tls.cert is not", both)}
	case tls.Cert != "" && tls.Key == "":
		return Faults{l.Fault("tls.cert", "is set, and tls.key is not", both)}
	case tls.Cert != "":
		return nil
	}
	for _, listen := range l.Config.Listen {
		if listen.TLS {
			return Faults{l.Fault("listen", "has a tls: socket without a certificate", both)}
		}
	}
	return nil
}

// parseServerListen reads tcp:[HOST:]PORT and tls:[HOST:]PORT.
func parseServerListen(s string) (ServerListen, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme != "tcp" && scheme != "tls" {
		return ServerListen{}, errors.New("begins with neither tcp: nor tls: as it should")
	}
	host, port := "", rest
	if strings.Contains(rest, ":") {
		var err error
		if host, port, err = net.SplitHostPort(rest); err != nil {
			return ServerListen{}, errors.New("is not [HOST:]PORT after its scheme")
		}
		if err := errors.Join(checkHost(host), checkPrintable(host)); err != nil {
			return ServerListen{}, err
		}
	}
	port, err := parsePort(port)
	if err != nil {
		return ServerListen{}, err
	}
	return ServerListen{scheme == "tls", net.JoinHostPort(host, port)}, nil
}
