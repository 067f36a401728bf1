package policy

// A Rule says what is done with mail for some recipients, from some senders, or both. A
// pattern is an address in the form that Fold makes, a domain in lower-case A-labels, or
// .domain for its subdomains. An empty pattern matches everyone; a Rule whose patterns are
// both empty matches no one. A Rule with both patterns is as specific as its Recipient.
type Rule struct {
	Recipient, Sender string
	Actions
}

// rules are compiled so that a question costs a few look-ups, however many rules
// there are. Apart from the patterns they hold no pointers: with ten thousand rules
// the garbage collector would have to follow them each time.
type rules struct {
	recipients  Matcher
	senders     Matcher
	byRecipient []recipientTable // by id in recipients
	bySender    []table          // rules without recipient, by id in senders
	pairs       map[pair]table
	next        []int32   // by rule: the next one of the same table, 1-based; 0 ends
	actions     []Actions // by rule
}

// A recipientTable has the rules with one recipient pattern and any sender. Rules with the
// same recipient pattern and a sender pattern (pairs) are as specific as these: of both, the
// first in the administrator's list counts.
type recipientTable struct {
	table
	paired bool // there are some in pairs
}

// A pair is a recipient pattern and a sender pattern, by their ids.
type pair struct{ recipient, sender int32 }

// A table is what the rules with the same patterns come to.
type table struct {
	first       [slots]choice // for each result the first rule that says something
	begin, last int32         // of the rules in it, for Explain; 1-based in rules.next
}

// A choice is an action and the number of the rule that says it.
type choice struct {
	action Action
	rule   int32
}

func compile(list []Rule) *rules {
	c := &rules{next: make([]int32, len(list)), actions: make([]Actions, len(list))}
	for i := range list {
		r := &list[i]
		actions := r.bySlot()
		c.actions[i] = r.Actions
		switch {
		case r.Recipient == "" && r.Sender == "":
		case r.Recipient == "":
			id := c.senders.add(r.Sender)
			c.bySender = grow(c.bySender, id)
			c.add(&c.bySender[id], int32(i), actions)
		default:
			id := c.recipients.add(r.Recipient)
			c.byRecipient = grow(c.byRecipient, id)
			node := &c.byRecipient[id]
			if r.Sender == "" {
				c.add(&node.table, int32(i), actions)
				continue
			}
			node.paired = true
			key := pair{id, c.senders.add(r.Sender)}
			t := c.pairs[key]
			c.add(&t, int32(i), actions)
			if c.pairs == nil {
				c.pairs = make(map[pair]table)
			}
			c.pairs[key] = t
		}
	}
	c.bySender = grow(c.bySender, int32(len(c.senders.isAddress))-1) // ids of pairs too
	return c
}

// grow makes index id valid.
func grow[T any](list []T, id int32) []T {
	for int32(len(list)) <= id {
		var zero T
		list = append(list, zero)
	}
	return list
}

// add adds a rule to a table.
func (c *rules) add(t *table, rule int32, actions [slots]Action) {
	if t.begin == 0 {
		t.begin = rule + 1
	} else {
		c.next[t.last-1] = rule + 1
	}
	t.last = rule + 1
	for s, a := range actions {
		if t.first[s].action == Unset {
			t.first[s] = choice{a, rule}
		}
	}
}

// appendNumbers appends the numbers of the rules in a table, counted from 0.
func (c *rules) appendNumbers(list []int32, t table) []int32 {
	for i := t.begin; i > 0; i = c.next[i-1] {
		list = append(list, i-1)
	}
	return list
}

// pick returns the first choice in the administrator's order among the rules of
// one recipient pattern which match the sender too.
func (c *rules) pick(recipient int32, s slot, senders []int32) choice {
	node := &c.byRecipient[recipient]
	best := node.first[s]
	if !node.paired {
		return best
	}
	for _, id := range senders {
		if got := c.pairs[pair{recipient, id}].first[s]; got.action != Unset && (best.action == Unset || got.rule < best.rule) {
			best = got
		}
	}
	return best
}

// choose asks the rules, the most specific first.
func (c *rules) choose(box mailbox, senders []int32, s slot) (choice, Layer) {
	if len(c.byRecipient) > 0 {
		var buf [maxIDs]int32
		for _, id := range c.recipients.find(box, buf[:0]) {
			if got := c.pick(id, s, senders); got.action != Unset {
				return got, c.recipientLayer(id)
			}
		}
	}
	for _, id := range senders {
		if got := c.bySender[id].first[s]; got.action != Unset {
			return got, BySenderRule
		}
	}
	return choice{}, ""
}

func (c *rules) recipientLayer(id int32) Layer {
	if c.recipients.isAddress[id] {
		return ByRecipientRule
	}
	return ByDomainRule
}
