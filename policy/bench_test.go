package policy

import (
	"fmt"
	"testing"

	"github.com/authkey/authkey/verifier"
)

// manyRules is a large site's configuration: rules of every kind, among them
// many pairs with the same recipient.
func manyRules(n int) []Rule {
	var list []Rule
	for i := range n {
		r := Rule{Actions: Actions{Fail: Reject, NoKey: Mark}}
		switch i % 5 {
		case 0:
			r.Recipient = fmt.Sprintf("user%d@dept%d.example.com", i, i%50)
		case 1:
			r.Recipient = fmt.Sprintf("dept%d.example.com", i)
		case 2:
			r.Recipient = fmt.Sprintf(".sub%d.example.com", i)
		case 3:
			r.Sender = fmt.Sprintf("bank%d.example", i)
		case 4:
			r.Recipient, r.Sender = "example.com", fmt.Sprintf("news%d.example", i)
		}
		list = append(list, r)
	}
	return list
}

func manyRecipients(n int) []Recipient {
	var list []Recipient
	for i := range n {
		list = append(list, Recipient{Address: fmt.Sprintf("user%d@dept%d.example.com", i, i%50)})
		list[i].Folded = list[i].Address
	}
	return list
}

func BenchmarkDecide(b *testing.B) {
	one := manyRecipients(1)
	chosen := manyRecipients(1)
	chosen[0].Preference.Actions.Pass = Mark
	mixed := manyRecipients(1000)
	for i := range mixed {
		mixed[i].Preference.Actions.Pass = []Action{Accept, Discard, Reject, Mark}[i%4]
	}
	benchmarks := []struct {
		name  string
		rules int
		rcpts []Recipient
	}{
		{"one recipient, no rules", 0, one},
		{"one recipient, 10000 rules", 10_000, one},
		{"one recipient with a preference", 0, chosen},
		{"100 recipients, 10000 rules", 10_000, manyRecipients(100)},
		{"1000 recipients, 10000 rules", 10_000, manyRecipients(1000)},
		{"1000 recipients who differ", 10_000, mixed},
	}
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			p := New(Options{Rules: manyRules(bm.rules)})
			env := Envelope{Sender: "alice@bank3.example", Recipients: bm.rcpts, Abilities: everything, DSNAllowed: true}
			res := verifier.Result{Status: verifier.Pass}
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(env, res)
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	rules := manyRules(10_000)
	b.ReportAllocs()
	for b.Loop() {
		New(Options{Rules: rules})
	}
}

// TestHotPathAllocatesNothing: most messages are to one recipient, or to several
// who are treated alike.
func TestHotPathAllocatesNothing(t *testing.T) {
	for _, rules := range []int{0, 10_000} {
		for _, rcpts := range []int{1, 2, 1000} {
			p := New(Options{Rules: manyRules(rules)})
			env := Envelope{Sender: "alice@a.test", Recipients: manyRecipients(rcpts), Abilities: everything}
			res := verifier.Result{Status: verifier.Pass}
			if n := testing.AllocsPerRun(100, func() { p.Decide(env, res) }); n != 0 {
				t.Errorf("%d rules, %d recipients: %v allocations", rules, rcpts, n)
			}
		}
	}
}

// TestManyRecipientsAllocateLittle: the work for n recipients who differ is
// linear, and so is the memory: a few allocations, whatever their number.
func TestManyRecipientsAllocateLittle(t *testing.T) {
	p := New(Options{Rules: manyRules(100)})
	allocs := func(n int) float64 {
		env := Envelope{Recipients: manyRecipients(n), Abilities: everything, DSNAllowed: true}
		for i := range env.Recipients {
			env.Recipients[i].Preference.Actions.Pass = []Action{Accept, Discard, Reject, Mark}[i%4]
		}
		return testing.AllocsPerRun(10, func() { p.Decide(env, verifier.Result{Status: verifier.Pass}) })
	}
	if few, many := allocs(10), allocs(10_000); many > few+2 {
		t.Errorf("%v allocations for 10 recipients, %v for 10000", few, many)
	}
}
