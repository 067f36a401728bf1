package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify ADDRESS",
		Short: "Ask a running server about a key, as a recipient would",
		Long: "Ask a running server whether a key is ADDRESS's. The key comes from standard\n" +
			"input: an argument could be seen in the process list. At a terminal it is asked\n" +
			"for, and not shown. The server is --server, or\n" +
			"the first socket of the configuration. What DNS says of the domain does not\n" +
			"matter here; authkey-milter verify asks the way that recipients take.\n\n" +
			"Exit code 0: the key is valid; 1: it is not, or the server does not serve the\n" +
			"domain; 75: the server cannot be asked now.",
		Args: cobra.ExactArgs(1),
	}
	serverFlag := cmd.Flags().String("server", "", "server to ask, as `HOST:PORT[,tls]`")
	nameServers := addResolver(cmd)
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		server, err := serverToAsk(cmd, *serverFlag)
		if err != nil {
			return err
		}
		key, err := program.AskKey(cmd, "", args[0])
		if err != nil {
			return err
		}
		return program.Answer(cmd, args[0], *asJSON, func(address wire.Address) verifier.Result {
			v := verifier.New(verifier.Options{
				Resolvers:     *nameServers,
				AllowNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, // the user says where
				AllowPorts:    []uint16{server.Port},
			})
			defer v.Close()
			return v.Ask(cmd.Context(), server, verifier.Query{Address: address, Key: key})
		})
	}
	return cmd
}

// serverToAsk is the one that a flag names, or else the configuration.
func serverToAsk(cmd *cobra.Command, flag string) (wire.Server, error) {
	if flag != "" {
		server, err := parseServer(flag)
		if err != nil {
			return server, program.Exit(program.Usage, fmt.Errorf("--server %q: %w", flag, err))
		}
		return server, nil
	}
	loaded, err := loadConfig(cmd, true)
	if err != nil {
		return wire.Server{}, err
	}
	if len(loaded.Config.Listen) == 0 {
		return wire.Server{}, program.Exit(program.Usage, errors.New("the configuration names no socket: which --server?"))
	}
	return serverAt(loaded.Config, loaded.Config.Listen[0])
}

// serverAt is a socket of the configuration as a client on the same machine
// reaches it. Where it is every interface's, that is loopback, or for TLS the host
// that the certificate is for.
func serverAt(c config.Server, l config.ServerListen) (wire.Server, error) {
	server := wire.Server{Port: portOf(l), TLS: l.TLS}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return server, program.Exit(program.Config, err)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host != "" && (err != nil || !addr.IsUnspecified()):
		server.Host = host
	case l.TLS:
		server.Host, err = hostName("", c)
		return server, err
	case addr.Is6():
		server.Host = netip.IPv6Loopback().String()
	default:
		server.Host = "127.0.0.1"
	}
	return server, nil
}

// parseServer reads HOST:PORT[,tls].
func parseServer(s string) (wire.Server, error) {
	hostPort, secure := strings.CutSuffix(s, ",tls")
	host, portText, err := net.SplitHostPort(hostPort)
	if err != nil {
		return wire.Server{}, errors.New("is not HOST:PORT or HOST:PORT,tls")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return wire.Server{}, errors.New("has no port from 1 to 65535")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	} else if host, err = wire.ParseDomain(host); err != nil {
		return wire.Server{}, err
	}
	return wire.Server{Host: host, Port: uint16(port), TLS: secure}, nil
}
