package testmta

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// StartTLS says STARTTLS (RFC 3207), after EHLO where nothing was said yet, and goes
// on under TLS. EHLO is said again by the next command that needs it.
func (c *Client) StartTLS(config *tls.Config) error {
	if err := c.hail(); err != nil {
		return err
	}
	r, err := c.command("STARTTLS")
	if err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	if r.Code != 220 {
		return fmt.Errorf("STARTTLS: %s", r)
	}
	if c.r.Buffered() > 0 {
		return errors.New("STARTTLS: the server went on in clear")
	}
	secured := tls.Client(c.conn, config)
	if err := secured.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		return err
	}
	if err := secured.Handshake(); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	c.conn, c.helo = secured, ""
	c.r.Reset(secured)
	return nil
}

// Login authenticates as login with AUTH PLAIN (RFC 4954, RFC 4616). The reply is the
// server's: 235, or why not.
func (c *Client) Login(login, password string) (Reply, error) {
	if err := c.hail(); err != nil {
		return Reply{}, err
	}
	r, err := c.command("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+login+"\x00"+password)))
	if err != nil {
		return r, fmt.Errorf("AUTH: %w", err)
	}
	return r, nil
}

// hail says EHLO unless that has been done.
func (c *Client) hail() error {
	var o Outcome
	ok, err := c.greet(Transaction{}, &o)
	if err == nil && !ok {
		err = fmt.Errorf("EHLO: %s", o.Final)
	}
	return err
}
