package policy_test

import (
	"fmt"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// An administrator refuses forged mail of a bank, and has other forged mail marked.
func ExampleNew() {
	p := policy.New(policy.Options{
		Defaults: policy.Actions{Fail: policy.Mark},
		Rules:    []policy.Rule{{Sender: "bank.example", Actions: policy.Actions{Fail: policy.Reject}}},
	})
	forged := verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey}
	for _, sender := range []string{"service@bank.example", "bob@other.example"} {
		plan := p.Decide(policy.Envelope{
			Sender:     policy.Fold(sender),
			Recipients: []policy.Recipient{{Address: "alice@example.com"}},
		}, forged)
		fmt.Println(sender, plan.Action, plan.By, plan.Reply.Code)
	}
	// Output:
	// service@bank.example reject rule-sender 550
	// bob@other.example mark default 0
}

// One forged message has three recipients, two of whom have chosen what becomes of such
// mail. The message is accepted for those who get it; the others are removed from the
// envelope. Whoever refuses mail that is accepted for others has the sender told by a DSN.
func ExamplePolicy_Decide() {
	p := policy.New(policy.Options{})
	env := policy.Envelope{
		Sender: "boss@example.org",
		Recipients: []policy.Recipient{
			{Address: "Alice@example.com"},
			{Address: "bob@example.com", Preference: policy.Preference{Actions: policy.Actions{Fail: policy.Reject}}},
			{Address: "carol@example.com", Preference: policy.Preference{Actions: policy.Actions{Fail: policy.DiscardNotify}}},
		},
		Abilities:  policy.Abilities{Quarantine: true, DeleteRecipient: true, AddRecipient: true},
		DSNAllowed: true,
	}
	plan := p.Decide(env, verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey})
	fmt.Println("message:", plan.Action, "mark:", plan.Mark, "refused:", !plan.Reply.IsZero())
	for _, r := range plan.Recipients {
		fmt.Println(r.Address, r.Action, r.By, r.Disposition, "DSN:", r.DSN, "notice:", r.Notice)
	}
	// Output:
	// message: mark mark: true refused: false
	// Alice@example.com mark default keep DSN: false notice: false
	// bob@example.com reject pref delete DSN: true notice: false
	// carol@example.com discard-notify pref delete DSN: false notice: true
}

// What each layer says for a recipient, and what came of it.
func ExamplePolicy_Explain() {
	p := policy.New(policy.Options{
		Rules: []policy.Rule{{Recipient: "example.com", Actions: policy.Actions{Fail: policy.Accept}}},
		Floor: policy.Actions{Fail: policy.Mark},
	})
	env := policy.Envelope{Recipients: []policy.Recipient{{Address: "alice@example.com"}}}
	plan, steps := p.Explain(env, verifier.Result{Status: verifier.Fail})
	for i, r := range plan.Recipients {
		for _, s := range steps[i] {
			fmt.Println(r.Address, s.Layer, s.Action, s.Outcome)
		}
		fmt.Println(r.Address, "gets", r.Action)
	}
	// Output:
	// alice@example.com rule-rcpt-domain accept decides
	// alice@example.com default mark overruled
	// alice@example.com floor mark raises
	// alice@example.com gets mark
}

// Mailboxes are compared in one form, however they were written.
func ExampleFold() {
	for _, mailbox := range []string{"Bob.Smith@Example.COM", `"bob.smith"@example.com.`, "@relay.example:bob.smith@example.com"} {
		fmt.Println(policy.Fold(mailbox))
	}
	// Output:
	// bob.smith@example.com
	// bob.smith@example.com
	// bob.smith@example.com
}
