package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/loopback"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/wire"
)

// serverName is the Authentication Server among the contenders.
const serverName = "authkey-server"

// A vouched is a domain whose secret and address list are files, for
// authkey-server to read.
type vouched struct {
	name         string
	secret, list string          // paths
	keys         *keyring.Domain // derives the keys of generation 0, of any address
}

// addVouched makes a domain with these lines as its address list.
func (w *world) addVouched(name string, lines iter.Seq[string]) (*vouched, error) {
	v := &vouched{name: name, list: filepath.Join(w.Dir, name+".addresses")}
	var err error
	if v.keys, v.secret, err = w.openKeys(name); err != nil {
		return nil, err
	}
	file, err := os.Create(v.list)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	for line := range lines {
		fmt.Fprintln(out, line)
	}
	if err := out.Flush(); err != nil {
		return nil, err
	}
	return v, file.Close()
}

// question is one about an address with its own key.
func (v *vouched) question(local string) (question, error) {
	mailbox := local + "@" + v.name
	text, err := loopback.Key(v.keys, mailbox)
	if err != nil {
		return question{}, err
	}
	key, err := wire.ParseKey(text)
	return question{mailbox, key}, err
}

// questions are one about each of the addresses.
func (v *vouched) questions(locals iter.Seq[string]) ([]question, error) {
	var list []question
	for local := range locals {
		q, err := v.question(local)
		if err != nil {
			return nil, err
		}
		list = append(list, q)
	}
	return list, nil
}

// names are so many local parts.
func names(prefix string, n int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range n {
			if !yield(fmt.Sprintf("%s%07d", prefix, i)) {
				return
			}
		}
	}
}

// startServer runs authkey-server as an administrator does, but for the questions
// that one client may ask: all of ours come from one. A certificate makes its
// socket one of TLS. name tells several in one world apart.
func (w *world) startServer(ctx context.Context, binary, name string, v *vouched, cert *certificate) (*contender, error) {
	port, err := testdaemon.FreePort()
	if err != nil {
		return nil, err
	}
	socket, scheme, files := loopbackAt(port), "tcp", ""
	if cert != nil {
		scheme, files = "tls", fmt.Sprintf("tls: {cert: %q, key: %q}\n", cert.file, cert.keyFile)
	}
	config := filepath.Join(w.Dir, name+".yaml")
	text := fmt.Sprintf(`host: %s
listen: ["%s:%s"]
domains:
  - {name: %s, secret_file: %q, addresses: "file:%s"}
limits: {per_client: 1000000000/1s}
`, certificateHost, scheme, socket, v.name, v.secret, v.list) + files
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return w.start(ctx, name, socket, binary, "serve", "--config", config)
}

// startServing is startServer, and waits until the list is read.
func (w *world) startServing(ctx context.Context, binary, name string, v *vouched, cert *certificate, known question) (*contender, error) {
	c, err := w.startServer(ctx, binary, name, v, cert)
	if err != nil {
		return nil, err
	}
	conn, err := c.dialServer(cert)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return c, awaitValid(ctx, conn, known)
}

// awaitValid asks until the answer is that the key is valid: before, the server has
// not read its list.
func awaitValid(ctx context.Context, conn net.Conn, known question) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := testdaemon.Poll(ctx, func() (bool, error) {
		verdict, err := known.ask(conn)
		if err == nil && verdict != wire.ValidKey && verdict != wire.TempFail {
			err = fmt.Errorf("a valid key is answered %s", verdict)
		}
		return verdict == wire.ValidKey, err
	})
	if err != nil {
		return fmt.Errorf("wait for the address list: %w", err)
	}
	return nil
}

// dialServer connects to an Authentication Server.
func (c *contender) dialServer(cert *certificate) (net.Conn, error) {
	conn, err := c.dial()
	if err != nil || cert == nil {
		return conn, err
	}
	return tls.Client(conn, &tls.Config{RootCAs: cert.roots, ServerName: certificateHost}), nil
}

// A question is whether a key is an address's.
type question struct {
	address string
	key     wire.Key
}

// ask asks it as the only question under way on a connection.
func (q question) ask(conn net.Conn) (wire.Verdict, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := conn.Write(q.line(1)); err != nil {
		return "", err
	}
	line, err := bufio.NewReaderSize(conn, wire.MaxLine).ReadString('\n')
	if err != nil {
		return "", err
	}
	return q.verdict(line)
}

func (q question) line(seq uint64) []byte {
	return wire.Request{Seq: seq, Address: q.address, Key: q.key}.Append(nil)
}

// verdict takes it from the line, end included, that replies to the question.
func (q question) verdict(line string) (wire.Verdict, error) {
	reply, err := wire.ParseReply(strings.TrimRight(line, "\r\n"))
	switch {
	case err != nil:
		return "", err
	case reply.Verdict == wire.Error:
		return "", fmt.Errorf("the server replies ERROR %s", reply.Code)
	case reply.Address != q.address:
		return "", fmt.Errorf("the server replies about another address: %s", reply.Address)
	}
	return reply.Verdict, nil
}

// A certificate signs itself, and is there for one run.
type certificate struct {
	file, keyFile string // PEM
	roots         *x509.CertPool
}

// certificateHost is whose it is.
const certificateHost = "as.bench.test"

// makeCertificate writes one to the world's folder.
func (w *world) makeCertificate() (*certificate, error) {
	certPEM, keyPEM, err := loopback.MakeCertificate(certificateHost)
	if err != nil {
		return nil, err
	}
	c := &certificate{file: filepath.Join(w.Dir, "cert.pem"), keyFile: filepath.Join(w.Dir, "key.pem"), roots: x509.NewCertPool()}
	c.roots.AppendCertsFromPEM(certPEM)
	return c, errors.Join(os.WriteFile(c.file, certPEM, 0o644), os.WriteFile(c.keyFile, keyPEM, 0o600))
}
