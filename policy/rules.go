package policy

// A Rule is the administrator's wish for some recipients, some senders, or some
// pairs of them: a rule with both needs both, and ranks with its recipient.
// Patterns are an address, a domain, or .domain for its subdomains, in folded
// form; an empty one is fitted by everybody, and a Rule with two empty ones by
// nobody.
type Rule struct {
	Recipient, Sender string
	Wishes
}

// rules are compiled so that a question costs a few look-ups, however many rules
// there are.
type rules struct {
	recipients Matcher
	senders    Matcher
	byRcpt     []rcptRules // by id in recipients
	bySender   []table     // rules without recipient, by id in senders
}

// rcptRules are the rules with one recipient pattern. They are equals: the first
// in the administrator's list wins.
type rcptRules struct {
	anySender table
	senders   map[int32]*table // by id in rules.senders
}

// A table is what the rules with the same patterns come to.
type table struct {
	first [slots]choice // for each result the first rule that says something
	all   []int32       // their numbers, for Explain
}

// A choice is an action and the number of the rule that says it.
type choice struct {
	action Action
	rule   int32
}

func compile(list []Rule) *rules {
	c := new(rules)
	for i := range list {
		r := &list[i]
		switch {
		case r.Recipient == "" && r.Sender == "":
		case r.Recipient == "":
			id := c.senders.add(r.Sender)
			c.bySender = grow(c.bySender, id)
			c.bySender[id].add(int32(i), r.bySlot())
		default:
			id := c.recipients.add(r.Recipient)
			c.byRcpt = grow(c.byRcpt, id)
			c.byRcpt[id].tableFor(c, r.Sender).add(int32(i), r.bySlot())
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

func (r *rcptRules) tableFor(c *rules, sender string) *table {
	if sender == "" {
		return &r.anySender
	}
	id := c.senders.add(sender)
	if r.senders == nil {
		r.senders = make(map[int32]*table)
	}
	t := r.senders[id]
	if t == nil {
		t = new(table)
		r.senders[id] = t
	}
	return t
}

func (t *table) add(rule int32, wishes [slots]Action) {
	t.all = append(t.all, rule)
	for s, a := range wishes {
		if t.first[s].action == Unset {
			t.first[s] = choice{a, rule}
		}
	}
}

// pick returns the first choice in the administrator's order among the rules of
// one recipient pattern which the sender fits too.
func (r *rcptRules) pick(s slot, senders []int32) choice {
	best := r.anySender.first[s]
	if r.senders == nil {
		return best
	}
	for _, id := range senders {
		if t := r.senders[id]; t != nil {
			if c := t.first[s]; c.action != Unset && (best.action == Unset || c.rule < best.rule) {
				best = c
			}
		}
	}
	return best
}

// choose asks the rules, the most specific first.
func (c *rules) choose(box mailbox, senders []int32, s slot) (choice, Layer) {
	if len(c.byRcpt) > 0 {
		var buf [maxIDs]int32
		for _, id := range c.recipients.find(box, buf[:0]) {
			if got := c.byRcpt[id].pick(s, senders); got.action != Unset {
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
