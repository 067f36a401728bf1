package serverdoctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// here is a socket of the configuration as it is reached from this machine.
func here(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "", err == nil && addr.IsUnspecified() && addr.Is4():
		host = "127.0.0.1"
	case err == nil && addr.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// dial connects, with TLS where conf is not nil. The connection has a deadline.
func dial(ctx context.Context, address string, conf *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if conf == nil {
		return c, nil
	}
	t := tls.Client(c, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

// errNoServer says that what answers is no Authentication Server.
var errNoServer = errors.New("what answers there is no Authentication Server")

// ask asks a server one question.
func ask(ctx context.Context, address string, conf *tls.Config, mailbox string, key wire.Key) (wire.Reply, error) {
	c, err := dial(ctx, address, conf)
	if err != nil {
		return wire.Reply{}, err
	}
	defer c.Close()
	question := wire.Request{Seq: 1, Address: mailbox, Key: key}
	if _, err := c.Write(question.Append(nil)); err != nil {
		return wire.Reply{}, err
	}
	line, err := bufio.NewReaderSize(c, wire.MaxLine).ReadString('\n')
	if err != nil {
		return wire.Reply{}, fmt.Errorf("%w: %w", errNoServer, err)
	}
	reply, err := wire.ParseReply(strings.TrimRight(line, "\r\n"))
	if err != nil {
		return wire.Reply{}, errNoServer
	}
	return reply, nil
}

// probe is a question about a domain that nobody serves: every server answers it.
func probe(ctx context.Context, address string, conf *tls.Config) error {
	key, err := wire.ParseKey("authkey-server-doctor")
	if err != nil {
		return err
	}
	_, err = ask(ctx, address, conf, "doctor@doctor.invalid", key)
	return err
}

// anyCertificate is for sockets of this machine, whose name is another one than that of
// the certificate.
func anyCertificate(secure bool) *tls.Config {
	if !secure {
		return nil
	}
	return &tls.Config{InsecureSkipVerify: true}
}

// socketName is a socket as the configuration has it.
func socketName(l config.ServerListen) string {
	return map[bool]string{false: "tcp:", true: "tls:"}[l.TLS] + strings.TrimPrefix(l.Address, ":")
}

// listening asks on each socket.
func (c *checks) listening(ctx context.Context) []doctor.Finding {
	if len(c.Config.Listen) == 0 {
		return []doctor.Finding{doctor.Inapplicablef(CheckListening, "listen is empty: systemd passes the sockets")}
	}
	var found []doctor.Finding
	for _, l := range c.Config.Listen {
		name := socketName(l)
		err := probe(ctx, here(l.Address), anyCertificate(l.TLS))
		switch {
		case err == nil:
			found = append(found, doctor.Okf(CheckListening, "the server answers on %s", name))
		case errors.Is(err, syscall.ECONNREFUSED):
			found = append(found, doctor.NewFault(CheckListening, "nobody listens on "+name, noneVerify, restartUnit+"\n"+lookUnit))
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			found = append(found, doctor.NewFault(CheckListening, name+": this machine does not have that address", noneVerify, "in "+c.ConfigFile+": listen: [\"tcp:PORT\"]"))
		default:
			found = append(found, doctor.NewFault(CheckListening, fmt.Sprintf("%s: %v", name, err), noneVerify, "systemctl status "+service+"\n"+lookUnit))
		}
	}
	return found
}

// questions asks the running server about a real key of every domain.
func (c *checks) questions(ctx context.Context) []doctor.Finding {
	at := slices.IndexFunc(c.Config.Listen, func(l config.ServerListen) bool { return probe(ctx, here(l.Address), anyCertificate(l.TLS)) == nil })
	if at < 0 {
		return []doctor.Finding{doctor.Inapplicablef(CheckQuestion, "no socket of the server answers")}
	}
	socket := c.Config.Listen[at]
	var found []doctor.Finding
	for _, d := range c.Domains {
		found = append(found, c.question(ctx, here(socket.Address), anyCertificate(socket.TLS), d))
	}
	return found
}

func (c *checks) question(ctx context.Context, server string, conf *tls.Config, d Domain) doctor.Finding {
	mailbox, key, err := c.keyOf(d)
	switch {
	case err != nil:
		return doctor.Inapplicablef(CheckQuestion, "%s: no key can be made: %v", d.Name, err)
	case mailbox == "":
		return doctor.Inapplicablef(CheckQuestion, "%s: nobody has a key", d.Name)
	}
	mend := reloadUnit
	if c.Unit.Passes(d.Keys.SecretFile) {
		mend = restartUnit
	}
	bad := func(what string) doctor.Finding {
		return doctor.NewFault(CheckQuestion, fmt.Sprintf("%s: the running server %s", d.Name, what), "mail of the domain with good keys is not verified", c.CommandLine("check")+"\n"+mend+"\n"+lookUnit)
	}
	reply, err := ask(ctx, server, conf, mailbox, key)
	switch {
	case err != nil:
		return bad(fmt.Sprintf("does not answer: %v", err))
	case reply.Verdict == wire.ValidKey:
		return doctor.Okf(CheckQuestion, "%s: the running server accepts the key of %s, for %s", d.Name, mailbox, reply.TTL)
	case reply.Verdict == wire.InvalidKey:
		return bad(fmt.Sprintf("refuses the key of %s that the files here make: it has another secret, another list, or other settings", mailbox))
	case reply.Verdict == wire.Error:
		return bad(fmt.Sprintf("answers ERROR %s: it runs with another configuration, or has too many questions", reply.Code))
	}
	return bad("answers " + string(reply.Verdict) + ": it could not read the address list")
}

// keyOf makes a key of one of the domain's addresses from the files.
func (c *checks) keyOf(d Domain) (mailbox string, key wire.Key, err error) {
	domain, err := keyring.Open(d.Keys)
	if err != nil {
		return "", key, err
	}
	if err := domain.Reload(); err != nil {
		return "", key, err
	}
	mailbox = "postmaster@" + domain.Name()
	if d.List != "" {
		if mailbox, err = (keyring.ListFile{Path: d.List, Form: d.Keys.Form}).First(); err != nil || mailbox == "" {
			return "", key, err
		}
	}
	address, err := wire.ParseAddress(mailbox)
	if err != nil {
		return "", key, err
	}
	issued, err := domain.KeyAt(address, c.Now())
	return address.String(), issued.Key, err
}

// dns compares the records of every domain.
func (c *checks) dns(ctx context.Context) []doctor.Finding {
	var found []doctor.Finding
	for _, d := range c.Domains {
		compared := c.Compare(ctx, d.Name)
		look := c.CommandLine("dns", d.Name)
		switch {
		case compared.Unknown != "":
			found = append(found, doctor.Inapplicablef(CheckDNS, "%s: %s", d.Name, compared.Unknown))
		case len(compared.Differs) > 0:
			found = append(found, doctor.NewFault(CheckDNS, d.Name+": "+strings.Join(compared.Differs, "; "), "recipients do not find the server, or look for it at the wrong place",
				"publish:   "+strings.Join(compared.Publish, "\npublish:   ")+"\n"+look))
		default:
			found = append(found, doctor.Okf(CheckDNS, "%s: the records are published as wanted", d.Name))
		}
		for _, note := range compared.Notes {
			found = append(found, doctor.NewWarning(CheckDNS, d.Name+": "+note, "recipients do not go there unless their administrator allows it", look))
		}
	}
	return found
}

// outside follows the records that are wanted, as far as that can be done from inside.
func (c *checks) outside(ctx context.Context) []doctor.Finding {
	var found []doctor.Finding
	for _, s := range c.Wanted {
		addresses, err := c.resolve(ctx, s.Host)
		var missing *net.DNSError
		switch {
		case errors.As(err, &missing) && missing.IsNotFound:
			found = append(found, doctor.NewFault(CheckOutside, s.Host+" has no address", noneVerify, "publish an A or AAAA record of "+s.Host))
			continue
		case err != nil:
			found = append(found, doctor.Inapplicablef(CheckOutside, "%s: %v", s.Host, err))
			continue
		}
		for _, addr := range addresses {
			found = append(found, c.reach(ctx, s, addr))
		}
	}
	return found
}

func (c *checks) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return c.Resolver.LookupNetIP(ctx, "ip", host+".")
}

// reach connects to one address of a server that the records name.
func (c *checks) reach(ctx context.Context, s wire.Server, addr netip.Addr) doctor.Finding {
	addr = addr.Unmap()
	at := net.JoinHostPort(addr.String(), strconv.Itoa(int(s.Port)))
	name := fmt.Sprintf("%s at %s", s, addr)
	var conf *tls.Config
	if s.TLS {
		conf = &tls.Config{ServerName: s.Host}
	}
	fromOutside := "on another machine, with a network of its own: authkey-milter lookup DOMAIN"
	err := probe(ctx, at, conf)
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil:
		return doctor.Okf(CheckOutside, "%s answers here; what a firewall keeps out shows from outside only: authkey-milter lookup there", name)
	case errors.As(err, &certificate):
		return doctor.NewFault(CheckOutside, fmt.Sprintf("%s: %v", name, err), "recipients refuse the connection, and "+noneVerify, "put another certificate into "+c.Config.TLS.Cert+" and "+c.Config.TLS.Key)
	case errors.Is(err, errNoServer):
		return doctor.NewFault(CheckOutside, fmt.Sprintf("%s: %v", name, err), noneVerify, "let "+s.Host+" lead to this server")
	case isOurs(addr):
		return doctor.NewFault(CheckOutside, fmt.Sprintf("%s, an address of this machine: %v", name, err), noneVerify, "in "+c.ConfigFile+": listen, so that it is reached there\n"+restartUnit)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		err = errors.New("no answer")
	}
	return doctor.NewWarning(CheckOutside, fmt.Sprintf("%s cannot be reached from here, and is no address of this machine: %v", name, err),
		"behind address translation that is usual; else "+noneVerify, fromOutside)
}

// isOurs reports whether an interface of this machine has the address.
func isOurs(addr netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == addr
	}) || addr.IsLoopback()
}
