package mtaconf

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/config"
)

// A Socket is where a milter listens.
type Socket struct {
	Network string // "unix" or "inet"
	Address string // a path, or host:port; an empty host is every interface
}

// String is the socket in Postfix's notation.
func (s Socket) String() string { return s.Network + ":" + s.Address }

var errSocket = errors.New("is no milter's socket")

// parsePostfix reads unix:PATH and inet:HOST:PORT.
func parsePostfix(s string) (Socket, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch strings.ToLower(scheme) {
	case "unix", "local":
		if rest != "" {
			return Socket{"unix", rest}, nil
		}
	case "inet":
		if host, port, err := net.SplitHostPort(rest); err == nil && port != "" {
			return Socket{"inet", net.JoinHostPort(host, port)}, nil
		}
	}
	return Socket{}, errSocket
}

// parseSendmail reads unix:PATH, local:PATH, inet:PORT@HOST and inet6:PORT@HOST.
func parseSendmail(s string) (Socket, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch strings.ToLower(scheme) {
	case "unix", "local":
		if rest != "" {
			return Socket{"unix", rest}, nil
		}
	case "inet", "inet6":
		port, host, _ := strings.Cut(rest, "@")
		if port != "" {
			return Socket{"inet", net.JoinHostPort(strings.Trim(host, "[]"), port)}, nil
		}
	}
	return Socket{}, errSocket
}

// sendmail is the socket in Sendmail's notation.
func (s Socket) sendmail() string {
	if s.Network == "unix" {
		return s.String()
	}
	host, port, err := net.SplitHostPort(s.Address)
	switch ip := net.ParseIP(host); {
	case err != nil:
		return s.String()
	case host == "" || isAny(host):
		return "inet:" + port + "@127.0.0.1"
	case ip != nil && ip.To4() == nil:
		return "inet6:" + port + "@" + host
	}
	return "inet:" + port + "@" + host
}

// same reports whether an MTA that connects to s comes to ours. A path must be one
// of the host's, not of a chroot.
func (s Socket) same(ours Socket) bool {
	if s.Network != ours.Network {
		return false
	}
	if s.Network == "unix" {
		return resolved(s.Address) == resolved(ours.Address)
	}
	host, port, err := net.SplitHostPort(s.Address)
	ourHost, ourPort, ourErr := net.SplitHostPort(ours.Address)
	return err == nil && ourErr == nil && port == ourPort &&
		(ourHost == "" || strings.EqualFold(host, ourHost) || isLoopback(host) && (isLoopback(ourHost) || isAny(ourHost)))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

func isAny(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}

// resolved follows symbolic links above the socket, such as /var/run.
func resolved(path string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return filepath.Clean(path)
}

// SocketUnit is the systemd unit that may listen for the milter.
const SocketUnit = "authkey-milter.socket"

// systemctlTimeout bounds the question to systemd.
const systemctlTimeout = 3 * time.Second

// Ours is where the milter listens.
type Ours struct {
	Sockets []Socket
	// Unit is the systemd unit that made the sockets; empty where they are those of
	// the configuration.
	Unit string
}

// Listening says where the milter of a configuration listens: on the sockets of
// SocketUnit, where there is one and the configuration does not say otherwise.
func Listening(ctx context.Context, loaded *config.Loaded) Ours {
	if !loaded.IsSet("listen") {
		ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
		defer cancel()
		// No systemd, or no such unit: then it is as the configuration says.
		out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=Listen", "--value", SocketUnit).Output()
		if sockets := parseUnit(string(out)); err == nil && len(sockets) > 0 {
			return Ours{sockets, SocketUnit}
		}
	}
	var ours Ours
	for _, l := range loaded.Config.Listen {
		s := Socket{"inet", l.Address}
		switch l.Network {
		case "unix":
			s.Network = "unix"
		case "tcp": // loopback of both families: a chroot may not know localhost
			if _, port, err := net.SplitHostPort(l.Address); err == nil {
				s.Address = net.JoinHostPort("127.0.0.1", port)
			}
		}
		ours.Sockets = append(ours.Sockets, s)
	}
	return ours
}

// parseUnit reads systemctl's "ADDRESS (Stream)", one a line.
func parseUnit(out string) []Socket {
	var sockets []Socket
	for line := range strings.Lines(out) {
		address, ok := strings.CutSuffix(strings.TrimSpace(line), " (Stream)")
		switch {
		case !ok:
		case filepath.IsAbs(address):
			sockets = append(sockets, Socket{"unix", address})
		default:
			if _, _, err := net.SplitHostPort(address); err == nil {
				sockets = append(sockets, Socket{"inet", address})
			}
		}
	}
	return sockets
}
