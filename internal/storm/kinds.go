package main

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The domains of the storm.
const (
	twoServers = "a.test"    // two Authentication Servers, of which the first is killed
	requiring  = "req.test"  // says req=yes; its only server is killed
	edited     = "edit.test" // its server is left alone, and its list never
	withoutAS  = "none.test" // publishes nothing
)

const (
	local = "rcpt.test" // recipients
	many  = "many.test" // recipients who want notices
	away  = "away.test" // recipients who are not ours: submissions go there with a key
)

// few is how many recipients an everyday message to many of them has, crowd how many
// one has that is to be interrupted.
const (
	few   = 12
	crowd = 150
)

// A kind is a sort of message.
type kind struct {
	name  string
	write func(w *writer)
}

// A writer makes one message.
type writer struct {
	message
	keys   map[string]string // by address
	random *rand.Rand
	// of its header
	author string
	fields []string
}

// key puts a key into the header, or a text in place of one.
func (w *writer) key(key string) {
	w.Keys = append(w.Keys, key)
	w.fields = append(w.fields, "X-Auth-Key: "+key)
}

// sender makes the message's unique sub-address of an address its envelope sender, and
// its From.
func (w *writer) sender(address string) {
	user, domain, _ := strings.Cut(address, "@")
	w.From = user + "+" + w.ID + "@" + domain
	w.author = w.From
}

// wrong is a key that is not the sender's: somebody else's, or nobody's.
func (w *writer) wrong() string {
	if others := []string{"mallory@" + twoServers, "mallory@" + edited}; w.random.IntN(2) == 0 {
		return w.keys[others[w.random.IntN(len(others))]]
	}
	b := make([]byte, 30)
	for i := range b {
		b[i] = byte(w.random.Uint32())
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// forged is a message with a wrong key whose From belongs to a domain without AS, so
// that the recipients' preferences decide alone.
func (w *writer) forged(rcpts ...string) {
	w.sender("alice@" + w.one(twoServers, edited))
	w.author = "list@" + withoutAS
	w.key(w.wrong())
	w.Rcpts = rcpts
	w.Want.Result, w.Want.From = "fail", "none"
}

func (w *writer) one(of ...string) string { return of[w.random.IntN(len(of))] }

func at(domain string, locals ...string) []string {
	list := make([]string, len(locals))
	for i, l := range locals {
		list[i] = l + "@" + domain
	}
	return list
}

// numbered are n recipients of the domain many.
func numbered(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("n%d@%s", i, many)
	}
	return list
}

// right is a message with its sender's key.
func right(domains ...string) func(w *writer) {
	return func(w *writer) {
		address := "alice@" + w.one(domains...)
		w.sender(address)
		w.key(w.keys[address])
		w.Want = want{Result: "pass", From: "pass", Boxes: w.Rcpts}
	}
}

// kinds are the mix of a storm.
var kinds = []kind{
	{"right key", right(twoServers, edited)},
	{"right key, required", right(requiring)},
	{"wrong key", func(w *writer) {
		w.sender("alice@" + w.one(twoServers, edited, requiring))
		w.key(w.wrong())
		w.fields = append(w.fields, "Authentication-Results: mx.test; x-authkey=pass smtp.mailfrom="+w.From)
		w.Want = want{Result: "fail", From: "fail", Refused: true}
	}},
	{"no key", func(w *writer) {
		w.sender("alice@" + w.one(twoServers, edited))
		w.Want = want{Result: "none", From: "none", Boxes: w.Rcpts}
	}},
	{"no key, required", func(w *writer) {
		w.sender("alice@" + requiring)
		w.Want = want{Result: "fail", From: "fail", Refused: true}
	}},
	{"no AS", func(w *writer) {
		w.sender("alice@" + withoutAS)
		w.key(w.keys["alice@"+twoServers])
		w.Want = want{Result: "none", From: "none", Boxes: w.Rcpts}
	}},
	{"forged From", func(w *writer) {
		w.sender("alice@" + withoutAS)
		w.author = "Boss <boss@" + requiring + ">"
		w.Want = want{Result: "none", From: "fail", Refused: true}
	}},
	{"forged From, own domain", func(w *writer) {
		domain := w.one(twoServers, edited)
		w.sender("alice@" + domain)
		w.author = "Boss <boss@" + domain + ">"
		w.key(w.keys["alice@"+domain])
		w.Want = want{Result: "pass", From: "fail", Refused: true}
	}},
	{"six wishes", func(w *writer) {
		w.forged(at(local, "accept", "mark", "discard", "reject", "discard-notify", "reject-notify")...)
		w.Want.Boxes = at(local, "accept", "mark")
		w.Want.DSN = at(local, "reject", "reject-notify")
		w.Want.Notices = at(local, "discard-notify", "reject-notify")
	}},
	{"many notices", func(w *writer) {
		w.forged(append(at(local, "accept"), numbered(few)...)...)
		w.Want.Boxes = at(local, "accept")
		w.Want.Notices = numbered(few)
	}},
	{"refused with notice", func(w *writer) {
		w.forged(at(local, "reject-notify")...)
		w.Want.Refused = true
		w.Want.Notices = at(local, "reject-notify")
	}},
	{"discarded", func(w *writer) { w.forged(at(local, "discard")...) }},
	{"discarded with notice", func(w *writer) {
		w.forged(at(local, "discard-notify")...)
		w.Want.Notices = at(local, "discard-notify")
	}},
	{"held", func(w *writer) {
		w.forged(at(local, "quarantine")...)
		w.Want.Held = w.Rcpts
	}},
	{"submission", func(w *writer) {
		w.submission()
		w.Rcpts = at(away, "carol")
		w.Want = want{Submission: true, Boxes: w.Rcpts, Attached: w.keys[w.Login]}
	}},
	{"submission, at home", func(w *writer) {
		w.submission()
		w.Want = want{Submission: true, Boxes: w.Rcpts}
	}},
}

// submission is a message of Alice's, with a key that has to go.
func (w *writer) submission() {
	w.Login = "alice@" + twoServers
	w.sender(w.Login)
	w.key(w.keys["mallory@"+twoServers])
}

// crowded is a message to a crowd of recipients who want notices.
var crowded = kind{"a crowd of notices", func(w *writer) {
	w.forged(append(at(local, "accept"), numbered(crowd)...)...)
	w.Want.Boxes = at(local, "accept")
	w.Want.Notices = numbered(crowd)
}}

// revoked is a message with a key that was revoked.
func revoked(address, key string, overdue bool) kind {
	return kind{"revoked key", func(w *writer) {
		w.sender(address)
		w.key(key)
		w.Want = want{Result: "fail", From: "fail", Refused: true}
		w.Before = &want{Result: "pass", From: "pass", Boxes: w.Rcpts}
		w.Overdue = overdue
	}}
}

// preferring is a message to a recipient who has just chosen to have forgeries marked.
func preferring(rcpt string, overdue bool) kind {
	return kind{"new preference", func(w *writer) {
		w.forged(rcpt)
		w.Want.Boxes = w.Rcpts
		w.Before = &want{Result: "fail", From: "none", Refused: true}
		w.Overdue = overdue
	}}
}

// write makes the message with that id. What it is made of follows from seed and number
// alone.
func write(k kind, id string, keys map[string]string, seed, number uint64) *message {
	w := &writer{message: message{ID: id, Kind: k.name, Rcpts: at(local, "bob")}, keys: keys, random: rand.New(rand.NewPCG(seed, number))}
	k.write(w)
	fields := slices.Concat(w.fields, []string{
		"Date: Tue, 24 Nov 2026 10:00:00 +0000", "From: " + w.author, "To: bob@rcpt.test",
		"Message-ID: <" + id + "@storm.test>", "Subject: " + id,
	})
	w.Data = []byte(strings.Join(fields, "\r\n") + "\r\n\r\nHello.\r\n")
	return &w.message
}
