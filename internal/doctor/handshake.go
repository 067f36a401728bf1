package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/mtaconf"
)

// handshakeTimeout bounds the look whether the milter answers on one socket: a service
// that systemd starts for us needs a moment.
const handshakeTimeout = 5 * time.Second

// What may come of a handshake beside the errors of net.
var (
	errClosed   = errors.New("it closes the connection at once")
	errSilent   = errors.New("it accepts the connection but sends nothing")
	errNoMilter = errors.New("what answers is no milter")
)

// negotiate connects to a socket and negotiates as an MTA does, and quits: a
// milter sees no message in that, and logs none.
func negotiate(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	// SMFIC_OPTNEG of version 6, with every action and every step offered; its answer
	// has the same form.
	const offer, quit = "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff", "\x00\x00\x00\x01Q"
	var answer [5]byte
	if _, err = io.WriteString(c, offer); err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	var late net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errClosed
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errNoMilter
	case errors.As(err, &late) && late.Timeout():
		return errSilent
	case err != nil:
		return err
	case answer[4] != 'O' || binary.BigEndian.Uint32(answer[:]) < 13:
		return errNoMilter
	}
	_, _ = io.WriteString(c, quit)
	return nil
}

// listening negotiates on each of our sockets.
func (c *checks) listening(ctx context.Context) []Finding {
	unit := "authkey-milter"
	if c.Ours.Unit != "" {
		unit = c.Ours.Unit
	}
	var found []Finding
	for _, s := range c.Ours.Sockets {
		network := "tcp"
		if s.Network == "unix" {
			network = "unix"
		}
		found = append(found, listeningOn(s, unit, negotiate(ctx, network, s.Address)))
	}
	return found
}

func listeningOn(s mtaconf.Socket, unit string, err error) Finding {
	const log = "journalctl -u authkey-milter -n 20"
	f := Finding{CheckListening, Fault, "", "no mail can be checked", "systemctl start " + unit + "\n" + log}
	switch {
	case err == nil:
		return Okf(CheckListening, "the milter answers on %s, and negotiates", s)
	case errors.Is(err, fs.ErrPermission):
		return Inapplicablef(CheckListening, "user %d may not connect to %s: run doctor as root", os.Geteuid(), s)
	case errors.Is(err, fs.ErrNotExist):
		f.What = fmt.Sprintf("there is no socket %s", s.Address)
	case errors.Is(err, syscall.ECONNREFUSED):
		f.What = fmt.Sprintf("nobody listens on %s", s)
	case errors.Is(err, errSilent):
		f.What = fmt.Sprintf("%s accepts the connection, and nobody answers on it", s)
		f.Why = "the service does not start, or is stuck: each message waits until Postfix or Sendmail gives up"
		f.Mend = "authkey-milter check   # is the configuration valid?\n" + log + "\nsystemctl restart authkey-milter"
	case errors.Is(err, errClosed):
		f.What = fmt.Sprintf("%s closes connections at once", s)
		f.Why = "limits.connections is reached, or the service is ending: mail is not checked"
		f.Mend = log
	case errors.Is(err, errNoMilter):
		f.What = fmt.Sprintf("something listens on %s, and it is no milter", s)
		f.Mend = "ss -lp   # which program listens there\n" + log
	default:
		f.What = fmt.Sprintf("%s does not answer: %v", s, err)
	}
	return f
}
