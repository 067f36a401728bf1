package policy

import "github.com/authkey/authkey/verifier"

// A Reply is the answer to the SMTP client instead of 250.
type Reply struct {
	Code     int    // 451, 452 or 550
	Enhanced string // RFC 3463 status code
	Text     string // printable ASCII, one line
}

// IsZero reports whether there is no Reply, so that the MTA answers 250.
func (r Reply) IsZero() bool { return r.Code == 0 }

// The texts are short and constant, so that reports can group by them. They hold nothing of
// the message, of DNS or of an AS.
const (
	textFail     = "Sender address not authenticated: AuthKey invalid"
	textNoKey    = "Sender address not authenticated: AuthKey missing"
	textNoAS     = "Sender address not authenticated: no usable Authentication Server"
	textTempFail = "AuthKey cannot be verified now, try again later"
	textPolicy   = "Message refused by policy"
)

// Texts are the administrator's texts in place of the standard ones; an empty one is the
// standard text. Each is named for a result. NoKey is also for a fail of a message without a
// key of its own, None also for a temperror that is refused; TempError is for a 451.
type Texts struct {
	Fail, NoKey, None, PermError, TempError string
}

// rejection returns the 550 for a result.
func (t Texts) rejection(res verifier.Result) Reply {
	text := textPolicy
	switch res.Status {
	case verifier.Fail:
		text = or(t.Fail, textFail)
		switch res.Reason {
		case verifier.ReasonRequired, verifier.ReasonKeyIsEnvelopes, verifier.ReasonKeyIsAmbiguous:
			text = or(t.NoKey, textNoKey)
		}
	case verifier.NoKey:
		text = or(t.NoKey, textNoKey)
	case verifier.None, verifier.TempError:
		text = or(t.None, textNoAS)
	case verifier.PermError:
		text = or(t.PermError, textNoAS)
	}
	return Reply{550, "5.7.1", text}
}

// deferral returns the 451, the same for every result.
func (t Texts) deferral() Reply {
	return Reply{451, "4.7.1", or(t.TempError, textTempFail)}
}

func or(own, standard string) string {
	if own != "" {
		return own
	}
	return standard
}
