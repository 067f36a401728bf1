package milter

import (
	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// An ownReply is the answer to a message about which the policy is not asked, or whose Plan
// could not be carried out. The zero ownReply is none.
type ownReply struct {
	policy.Reply
	reason verifier.Reason // for the log
}

// The replies of our own, which no configuration changes.
var (
	// A fault of ours: the message is not lost, since the client tries again.
	filterError   = ownReply{policy.Reply{Code: 451, Enhanced: "4.3.0", Text: "Filter error, try again later"}, reasonFilterError}
	shuttingDown  = ownReply{filterError.Reply, reasonShutdown}
	notHandedOver = ownReply{filterError.Reply, reasonNotHandedOver}
	// More header fields to remove than an MTA can bear (maxDeletions).
	tooManyFields = ownReply{policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "Too many authentication header fields"}, reasonTooManyFields}
	// More recipients than limits.recipients.
	tooManyRecipients = ownReply{policy.Reply{Code: 451, Enhanced: "4.5.3", Text: "Too many recipients"}, reasonTooManyRecipients}
	// A submission that waits for its key (attach.on_error: tempfail).
	noKeyNow = ownReply{policy.Reply{Code: 451, Enhanced: "4.3.0", Text: "No AuthKey can be attached now, try again later"}, reasonNoKeyNow}
)

// ownTransaction is the answer, at RCPT, to a recipient whose Profile is not that of the
// first one (policy.recipients: separate). A client that hears 452 there sends the message
// to the recipients so far, and to the others in further transactions (RFC 5321 section
// 4.5.3.1.10).
var ownTransaction = policy.Reply{Code: 452, Enhanced: "4.5.3", Text: "Recipient needs a transaction of its own"}

// action is the policy's action that has the same effect as the ownReply.
func (r ownReply) action() policy.Action {
	if r.Code < 500 {
		return policy.TempFail
	}
	return policy.Reject
}

// answer is the final answer to the MTA.
func (o *outcome) answer() *gomilter.Response {
	reply := o.reply()
	if reply.IsZero() && o.discards() {
		return gomilter.RespDiscard
	}
	return response(reply)
}

// reply is the answer to the client; zero for 250.
func (o *outcome) reply() policy.Reply {
	if !o.own.IsZero() {
		return o.own.Reply
	}
	return o.plan.Reply
}

// response makes the library's response of a Reply; the zero Reply is 250.
func response(r policy.Reply) *gomilter.Response {
	if r.IsZero() {
		return gomilter.RespAccept
	}
	resp, err := gomilter.RejectWithCodeAndReason(uint16(r.Code), r.Enhanced+" "+r.Text)
	if err != nil { // a text the library cannot send: say it without
		if r.Code < 500 {
			return gomilter.RespTempFail
		}
		return gomilter.RespReject
	}
	return resp
}
