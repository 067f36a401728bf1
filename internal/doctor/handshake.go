package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/milter"
)

// handshakeTimeout bounds the look whether the milter answers on one socket: a service
// that systemd starts for us needs a moment.
const handshakeTimeout = 5 * time.Second

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
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		found = append(found, listeningOn(s, unit, milter.Negotiate(ctx, network, s.Address)))
		cancel()
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
	case errors.Is(err, milter.ErrSilent):
		f.What = fmt.Sprintf("%s accepts the connection, and nobody answers on it", s)
		f.Why = "the service does not start, or is stuck: each message waits until Postfix or Sendmail gives up"
		f.Mend = "authkey-milter check   # is the configuration valid?\n" + log + "\nsystemctl restart authkey-milter"
	case errors.Is(err, milter.ErrClosed):
		f.What = fmt.Sprintf("%s closes connections at once", s)
		f.Why = "limits.connections is reached, or the service is ending: mail is not checked"
		f.Mend = log
	case errors.Is(err, milter.ErrNoMilter):
		f.What = fmt.Sprintf("something listens on %s, and it is no milter", s)
		f.Mend = "ss -lp   # which program listens there\n" + log
	default:
		f.What = fmt.Sprintf("%s does not answer: %v", s, err)
	}
	return f
}
