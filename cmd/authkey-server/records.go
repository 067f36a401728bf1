package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
)

// hostName is the name or address under which clients reach this server: what a
// flag says, or the configuration, or the machine's own name where it is a whole
// one. The error ends the program.
func hostName(flag string, c config.Server) (string, error) {
	name := flag
	if name == "" {
		name = c.Host
	}
	if name == "" {
		name = machineName()
	}
	if name == "" {
		return "", program.Exit(program.Config, errors.New("which name do clients reach this server under? Set host in the configuration, or --host"))
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.String(), nil
	}
	host, err := wire.ParseDomain(name)
	if err != nil {
		return "", program.Exit(program.Usage, err)
	}
	return host, nil
}

// machineName is the machine's name if it is a whole domain name.
func machineName() string {
	name, err := os.Hostname()
	if err != nil || !strings.Contains(name, ".") || strings.HasPrefix(name, "localhost.") {
		return ""
	}
	return name
}

// wantedRecords are the AS records that the sockets of a configuration call for.
// Where one of them is TLS, records in clear text would not be used beside it
// (docs/protocol.md section 1), and so none are wanted.
func wantedRecords(host string, listen []config.ServerListen) []wire.Record {
	secure := slices.ContainsFunc(listen, func(l config.ServerListen) bool { return l.TLS })
	var records []wire.Record
	for _, l := range listen {
		r := wire.Record{Server: wire.Server{Host: host, Port: portOf(l), TLS: l.TLS}, Pri: wire.DefaultPri}
		if l.TLS == secure && !slices.Contains(records, r) {
			records = append(records, r)
		}
	}
	return records
}

func portOf(l config.ServerListen) uint16 {
	_, text, err := net.SplitHostPort(l.Address)
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// zoneLine is a record as a zone file has it.
func zoneLine(domain string, r wire.Record) string {
	return domain + `. 3600 IN TXT "` + r.String() + `"`
}
