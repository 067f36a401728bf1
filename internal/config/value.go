package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Listen is a socket to listen on, as package net names it.
type Listen struct {
	Network string // unix, tcp4, tcp6, or tcp for the loopback addresses of both families
	Address string // a path, or HOST:PORT
}

// maxSocketPath is the longest path that fits a unix socket address on Linux.
const maxSocketPath = 107

// parseListen reads unix:PATH, inet:PORT[@HOST] and inet6:PORT[@HOST]. Without a host,
// inet: is loopback of both families, and inet6: of its own: more must be asked for.
func parseListen(s string) (Listen, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Listen{}, errors.New("is not a listen address")
	}
	switch scheme {
	case "unix":
		if err := checkSocketPath(rest); err != nil {
			return Listen{}, err
		}
		return Listen{"unix", rest}, nil
	case "inet", "inet6":
		return parseInet(scheme, rest)
	}
	return Listen{}, errors.New("begins with neither unix: nor inet: nor inet6: as it should")
}

func parseInet(scheme, rest string) (Listen, error) {
	portText, host, hasHost := strings.Cut(rest, "@")
	port, err := parsePort(portText)
	if err != nil {
		return Listen{}, err
	}
	if !hasHost {
		if scheme == "inet6" {
			return Listen{"tcp6", net.JoinHostPort("::1", port)}, nil
		}
		return Listen{"tcp", net.JoinHostPort("localhost", port)}, nil
	}
	if bare, found := strings.CutPrefix(host, "["); found {
		if bare, found = strings.CutSuffix(bare, "]"); !found {
			return Listen{}, errors.New("has a bracket that is not closed")
		}
		if addr, err := netip.ParseAddr(bare); err != nil || !addr.Is6() {
			return Listen{}, errors.New("has no IPv6 address in its brackets")
		}
		host = bare
	}
	if err := checkHost(host); err != nil {
		return Listen{}, err
	}
	network := "tcp4"
	if scheme == "inet6" {
		network = "tcp6"
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() != (scheme == "inet6") {
		return Listen{}, fmt.Errorf("has an address that is not of the family that %s: has", scheme)
	}
	return Listen{network, net.JoinHostPort(host, port)}, nil
}

func checkSocketPath(path string) error {
	if path == "" {
		return errors.New("has no path")
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("has a path of %d octets, and a socket's can have %d", len(path), maxSocketPath)
	}
	return checkPrintable(path)
}

// parsePort returns the port in its canonical digits.
func parsePort(s string) (string, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return "", errors.New("has no port number where one belongs")
	}
	if n < 1 || n > 65535 {
		return "", errors.New("has a port outside 1 to 65535")
	}
	return strconv.FormatUint(n, 10), nil
}

// checkHost takes an IP address or a host name.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return r > 0x7e }) || checkDomain(host) != nil {
		return errors.New("has no host name or address where one belongs")
	}
	return nil
}

// parseNetwork reads a network, or an address as the network of itself alone.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, errors.New("has a zone")
		}
		if addr.Is4In6() {
			return netip.Prefix{}, errors.New("is an IPv4 address in the form of an IPv6 one")
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("is not a network")
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("is an IPv4 network in the form of an IPv6 one")
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("has bits set beyond its length (perhaps %s is meant)", masked)
	}
	return prefix, nil
}

// Rate is a number of events in a span of time.
type Rate struct {
	Count int // at least 1
	Per   time.Duration
}

// maxRateCount keeps a rate's count in what a token bucket can hold.
const maxRateCount = 1_000_000_000

// parseRate reads COUNT/DURATION.
func parseRate(s string) (Rate, error) {
	countText, perText, ok := strings.Cut(s, "/")
	if !ok {
		return Rate{}, errors.New("is not a rate")
	}
	count, err := strconv.Atoi(countText)
	if err != nil || count < 1 || count > maxRateCount {
		return Rate{}, fmt.Errorf("has no count from 1 to %d", maxRateCount)
	}
	per, err := parseDuration(perText)
	if err != nil {
		return Rate{}, fmt.Errorf("has a span that %w", err)
	}
	if per <= 0 {
		return Rate{}, errors.New("has a span that is not more than zero")
	}
	return Rate{count, per}, nil
}

// parseDuration is time.ParseDuration, less the bare 0 it takes.
func parseDuration(s string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, errors.New("has no unit")
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("is not a duration")
	}
	return d, nil
}

// parseFileMode reads the permission bits of a socket in octal.
func parseFileMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || len(s) < 3 || len(s) > 4 {
		return 0, errors.New("is not a mode")
	}
	if n > 0o777 {
		return 0, errors.New("has more than permission bits")
	}
	return fs.FileMode(n), nil
}

// DSN names a source of preferences. It prints without its password; convert it
// to string to open the source.
type DSN string

// File is the path of a source that is a file.
func (d DSN) File() (path string, ok bool) { return strings.CutPrefix(string(d), "file:") }

// redacted stands for a password.
const redacted = "xxxxx"

// String is the DSN without its password.
func (d DSN) String() string {
	base, query, hasQuery := strings.Cut(string(d), "?")
	if u, err := url.Parse(base); err == nil {
		if _, has := u.User.Password(); has {
			u.User = url.UserPassword(u.User.Username(), redacted)
			base = u.String()
		}
	} else {
		base = userinfo.ReplaceAllString(base, "://"+redacted+"@")
	}
	if !hasQuery {
		return base
	}
	params := strings.Split(query, "&")
	for i, p := range params {
		name, _, hasValue := strings.Cut(p, "=")
		if hasValue && isSecretParam(name) {
			params[i] = name + "=" + redacted
		}
	}
	return base + "?" + strings.Join(params, "&")
}

// GoString is String, for %#v.
func (d DSN) GoString() string { return strconv.Quote(d.String()) }

// MarshalText is String, for encoders.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func isSecretParam(name string) bool {
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	name = strings.ToLower(name)
	for _, part := range []string{"pass", "pwd", "secret", "token"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// checkDSN refuses what String could not redact: a raw / ? or # in a password
// ends the authority early, and its rest would be shown as path or query.
func checkDSN(s string) error {
	if err := checkPrintable(s); err != nil {
		return err
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return errors.New("names no kind of source")
	}
	switch scheme {
	case "file", "sqlite":
		if rest == "" {
			return errors.New("has no path")
		}
		if strings.HasPrefix(rest, "//") {
			return errors.New("has a host where only a path belongs")
		}
		return nil
	case "postgres", "mysql":
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return errors.New("is not a URL (percent-encode special characters of the password)")
		}
		if strings.Contains(s, "#") || strings.Count(s, "@") > 1 || strings.Contains(s, "@") != (u.User != nil) {
			return errors.New("has a raw # or @ in its password, path or query (percent-encode it)")
		}
		return nil
	}
	return errors.New("is of an unknown kind")
}
