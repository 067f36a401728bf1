package config

import (
	"errors"
	"net"
	"strings"
	"time"
)

// Server is the whole of server.yaml. What each key means is said once, in the
// table of keys; DescribeServer lists it.
type Server struct {
	Host    string         `mapstructure:"host"` // empty: the machine's name
	Listen  []ServerListen `mapstructure:"listen"`
	TLS     TLS            `mapstructure:"tls"`
	Domains []ServerDomain `mapstructure:"domains"`
	Limits  ServerLimits   `mapstructure:"limits"`
	Log     Log            `mapstructure:"log"`
	Metrics Metrics        `mapstructure:"metrics"`

	AllowOpenSecrets bool `mapstructure:"allow_open_secrets"`
}

// ServerListen is a TCP socket to listen on.
type ServerListen struct {
	TLS     bool
	Address string // HOST:PORT; an empty host is every interface
}

// TLS names the certificate of the tls: sockets; both are set, or none.
type TLS struct {
	Cert string `mapstructure:"cert"` // path of a PEM file, intermediates included
	Key  string `mapstructure:"key"`
}

// ServerDomain is one entry of domains: whose keys are verified. Bounds of the
// times are those of the keys' derivation, and checked by whoever does that.
type ServerDomain struct {
	Name          string        `mapstructure:"name"`
	SecretFile    string        `mapstructure:"secret_file"`
	Addresses     string        `mapstructure:"addresses"` // file:FILE, or any
	AVT           time.Duration `mapstructure:"avt"`
	Grace         time.Duration `mapstructure:"grace"`
	TTL           time.Duration `mapstructure:"ttl"`
	CaseSensitive bool          `mapstructure:"case_sensitive"`
	Subaddress    string        `mapstructure:"subaddress"` // the separator; empty: no sub-addresses
}

// ServerLimits bounds what clients may ask of us.
type ServerLimits struct {
	Connections int           `mapstructure:"connections"`
	Outstanding int           `mapstructure:"outstanding"` // of one connection
	PerClient   Rate          `mapstructure:"per_client"`
	IdleTimeout time.Duration `mapstructure:"idle_timeout"`
}

// maxOutstanding bounds limits.outstanding.
const maxOutstanding = 1_000_000

// serverSchema is the table of server.yaml.
var serverSchema = newSchema("server.yaml", "AUTHKEY_SERVER_", []key{
	{"host", orEmpty(textKind("host", "a host name or IP address without port, such as as.example.com", checkHost)), "", acted, "name or address under which clients reach this server, for the records that dns and init print; empty: the machine's name"},
	{"listen", listOf("sockets", kind{name: "socket", want: "tcp:[HOST:]PORT or tls:[HOST:]PORT", parse: parsed(parseServerListen)}), []any{"tcp:7425"}, acted, "sockets to listen on: tcp:[HOST:]PORT, tls:[HOST:]PORT; those passed by systemd come first"},
	{"tls.cert", orEmpty(pathKind()), "", acted, "certificate of the tls: sockets, with its intermediates; read again when it changes"},
	{"tls.key", orEmpty(pathKind()), "", acted, "private key of that certificate; read again when it changes"},
	{"domains", objects("domains", serverDomainFields(), nil), []any{}, acted, "domains whose keys are verified"},
	{"allow_open_secrets", boolKind(), false, acted, "true: take secret files that everybody may read, such as Docker Compose's"},
	{"limits.connections", integerKind(1, maxConnections), 10_000, acted, "connections at a time; one more gets the place of one of the network or client that has most, or is told so and closed"},
	{"limits.outstanding", integerKind(1, maxOutstanding), 1000, acted, "questions of one connection that are answered together"},
	{"limits.per_client", rateKind(), "5000/1s", acted, "questions of one client, an IPv4 address or an IPv6 /64; its /24 or /48 may ask 4 times as much, its /32 16 times; more are answered busy"},
	{"limits.idle_timeout", positiveDuration(), "120s", acted, "how long a connection may be idle"},
	logLevelKey(),
	logFormatKey(),
	metricsListenKey(),
})

// serverDomainFields are the fields of domains.
func serverDomainFields() []field {
	return []field{
		{name: "name", kind: domainKind(), required: true, doc: "domain of the senders' addresses"},
		{name: "secret_file", kind: pathKind(), required: true, doc: "file of the secret that the keys are derived from, mode 0600, or 0640 with a group of the process; it may be one that systemd's LoadCredential= passes"},
		{name: "addresses", kind: addressesKind(), required: true, doc: "which addresses have keys: those of a file, or any of the domain"},
		{name: "avt", kind: positiveDuration(), def: "24h", doc: "AuthKey Valid Time: how long one key is attached; to change it ends every key"},
		{name: "grace", kind: anyDuration(), def: "120h", doc: "how much longer a key is valid, for mail in queues"},
		{name: "ttl", kind: anyDuration(), def: "1h", doc: "how long clients may rely on an answer; never beyond the key's end"},
		{name: "case_sensitive", kind: boolKind(), def: false, doc: "true: local parts differ by case"},
		{name: "subaddress", kind: subaddressKind(), def: "+", doc: "separator of sub-addresses; empty: none"},
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
	loaded.Settings, faults = loadFile(serverSchema, path, environ, &loaded.Config)
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
