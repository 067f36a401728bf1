package program

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

// AddConnect gives a command the flag --connect.
func AddConnect(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("connect", false, "connect to each address too, TLS included, and say what came of it; no key is sent")
}

// A RouteView is where a server's name leads, as people and programs read it.
type RouteView struct {
	Problem   string        `json:"problem,omitempty"` // why there is no way to the server
	Addresses []AddressView `json:"addresses"`
}

// An AddressView is one address of a RouteView.
type AddressView struct {
	Address   string  `json:"address"`
	Refused   string  `json:"refused,omitempty"` // why a verification does not dial it
	Connected *bool   `json:"connected,omitempty"`
	Problem   string  `json:"problem,omitempty"` // why there is no connection
	Took      float64 `json:"took_ms,omitempty"`
	TLS       string  `json:"tls,omitempty"`
	Ends      string  `json:"certificate_ends,omitempty"`
}

// ViewRoute makes a RouteView.
func ViewRoute(r verifier.ServerCheck) RouteView {
	view := RouteView{Addresses: []AddressView{}}
	if r.Err != nil {
		view.Problem = printable(r.Err)
	}
	for _, a := range r.Addresses {
		address := AddressView{Address: a.Addr.String(), TLS: a.TLS}
		if a.Refused != nil {
			address.Refused = a.Refused.Error()
		}
		if a.Tried {
			connected := a.Err == nil
			address.Connected, address.Took = &connected, float64(a.Took.Microseconds())/1000
		}
		if a.Err != nil {
			address.Problem = printable(a.Err)
		}
		if !a.CertificateEnds.IsZero() {
			address.Ends = a.CertificateEnds.UTC().Format(time.DateOnly)
		}
		view.Addresses = append(view.Addresses, address)
	}
	return view
}

// Lines are the view in words, one line for each address.
func (v RouteView) Lines() []string {
	var lines []string
	for _, a := range v.Addresses {
		line := a.Address
		if a.Refused != "" {
			line += ", not used: " + a.Refused
		}
		switch {
		case a.Connected == nil:
		case !*a.Connected:
			line += ", no connection: " + a.Problem
		case a.TLS != "":
			line += fmt.Sprintf(", connected in %.1f ms, %s, certificate until %s", a.Took, a.TLS, a.Ends)
		default:
			line += fmt.Sprintf(", connected in %.1f ms, clear text", a.Took)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 && v.Problem != "" {
		lines = append(lines, v.Problem)
	}
	return lines
}

// A NearMiss is a TXT record that was probably meant to be an AS record.
type NearMiss struct {
	Record string `json:"record"`
	Why    string `json:"why"`
	Right  string `json:"right"`
}

// NearMisses are those among the records that were found.
func NearMisses(found verifier.Discovery) []NearMiss {
	all := []NearMiss{}
	for _, m := range found.Misses() {
		all = append(all, NearMiss{m.Text, m.Why, m.Right})
	}
	return all
}

// maxProblem bounds what is printed of an error that a stranger had a part in.
const maxProblem = 300

// printable is the text of an error, on one line and cut: a certificate may say
// anything.
func printable(err error) string {
	text := err.Error()
	if len(text) > maxProblem {
		text = text[:maxProblem] + "…"
	}
	quoted := strconv.QuoteToGraphic(text)
	if inner := quoted[1 : len(quoted)-1]; inner != text {
		return quoted
	}
	return text
}

// A Router follows the servers of one domain as a verification does: after two names
// that lead nowhere no further one is looked up.
type Router struct {
	Verifier *verifier.Verifier
	Connect  verifier.Connect
	useless  int
}

// errNotLookedUp is why there is no way to a server behind two that lead nowhere.
var errNotLookedUp = errors.New("not looked up: two names before it lead to no address, and a recipient looks no further")

// Follow returns the route to one of the domain's servers. They are to be given in the
// order in which they are asked.
func (r *Router) Follow(ctx context.Context, s wire.Server) verifier.ServerCheck {
	if r.useless == verifier.MaxUnreachableHosts && !s.IsAddress() {
		return verifier.ServerCheck{Server: s, Err: errNotLookedUp}
	}
	route := r.Verifier.CheckServer(ctx, s, r.Connect)
	usable := false
	for _, a := range route.Addresses {
		usable = usable || a.Refused == nil
	}
	if !usable && !s.IsAddress() {
		r.useless++
	}
	return route
}
