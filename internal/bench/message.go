package main

import (
	"bytes"
	"strings"
)

// numberMark stands in a message where each copy gets its number, in as many
// digits.
const numberMark = "0000000"

// numbers is how many copies have numbers of their own.
const numbers = 10_000_000

// An ending is what the client makes of a message.
type ending uint8

const (
	complete  ending = iota // to the end, and the filter answers
	aborted                 // given up in the midst of the header
	dropped                 // the connection closed in the midst of the header
	malformed               // a frame that is none, upon which the filter closes the connection
)

// A message is what the client plays: 22 header fields, an AuthKey among them,
// and 4 KB of body for those who want it.
type message struct {
	sender string // may hold numberMark
	key    string // likewise; empty for none
	ending ending
}

// fillerFields are what real mail brings along.
var fillerFields = []command{
	header("Received", "from mail.bench.test (mail.bench.test [198.51.100.7])\n\tby relay.bench.test (Postfix) with ESMTPS id 4XyZ0a1b2cz3Yt9\n\tfor <bob@rcpt.test>; Tue, 24 Nov 2026 10:00:00 +0000 (UTC)"),
	header("Received", "by mail.bench.test (Postfix, from userid 1000)\n\tid 4XyZ0a1b2cz3Yt8; Tue, 24 Nov 2026 09:59:59 +0000 (UTC)"),
	header("Date", "Tue, 24 Nov 2026 10:00:00 +0000"),
	header("To", "Bob Example <bob@rcpt.test>"),
	header("Cc", "Carol Example <carol@elsewhere.test>, Dave Example <dave@elsewhere.test>"),
	header("Subject", "Re: minutes of the meeting on Monday, and what is left to be done"),
	header("Message-ID", "<20261124100000.4711@bench.test>"),
	header("In-Reply-To", "<20261123180000.4710@rcpt.test>"),
	header("References", "<20261123170000.4709@rcpt.test>\n <20261123180000.4710@rcpt.test>"),
	header("MIME-Version", "1.0"),
	header("Content-Type", "text/plain; charset=utf-8; format=flowed"),
	header("Content-Transfer-Encoding", "8bit"),
	header("Content-Language", "en-GB"),
	header("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Thunderbird/115.3.1"),
	header("X-Mailer", "bench 1.0"),
	header("X-Spam-Status", "No, score=-1.9 required=5.0 tests=BAYES_00"),
	header("X-Originating-IP", "[198.51.100.7]"),
	header("List-Unsubscribe", "<https://bench.test/unsubscribe?id=4711>"),
	header("Organization", "Example Ltd"),
	header("Importance", "normal"),
}

// body is 4 KB of text.
var body = strings.Repeat("The quick brown fox jumps over the lazy dog; nobody knows why it does.\r\n", 57)[:4096]

// connectCommands begin a connection of the MTA.
var connectCommands = []command{
	{code: 'C', data: "mail.bench.test\x004\xC3\x50198.51.100.7\x00"},
	{code: 'H', data: "mail.bench.test\x00"},
}

// commands are a message's, up to where it is broken off or to its end.
func (m *message) commands() []command {
	list := []command{
		{code: 'M', data: "<" + m.sender + ">\x00SIZE=6200\x00BODY=8BITMIME\x00"},
		{code: 'R', data: "<bob@rcpt.test>\x00ORCPT=rfc822;bob@rcpt.test\x00"},
		{code: 'T'},
	}
	fields := append([]command{header("From", "Alice Example <"+m.sender+">")}, fillerFields...)
	if m.key != "" {
		fields = append(fields, header("X-Auth-Key", m.key))
	}
	if m.ending != complete {
		return append(list, fields[:len(fields)/2]...)
	}
	list = append(list, fields...)
	return append(list, command{code: 'N'}, command{code: 'B', data: body}, command{code: 'E'})
}

// nonsense is a frame of length 0, and an octet behind it.
var nonsense = []byte{0, 0, 0, 0, 0}

// A step is what goes to the filter in one write. Where the filter does not want to
// reply, Postfix writes twice for each message: smtpd(8) the envelope when DATA
// comes, cleanup(8) the rest when the message ends.
type step struct {
	send  []byte
	marks []int // where in send the number goes
	wait  bool  // for one reply
	end   bool  // the reply is the answer to the message
}

// compile makes the steps of a message. first: it opens the connection, after the
// negotiation; otherwise the message before it is put away, as Postfix does.
func (t terms) compile(m *message, first bool) []step {
	var steps []step
	var pending []byte
	cut := func(wait, end bool) {
		steps = append(steps, step{send: pending, marks: marks(pending), wait: wait, end: end})
		pending = nil
	}
	commands := []command{{code: 'A'}}
	if first {
		commands = connectCommands
	}
	for _, c := range append(append([]command(nil), commands...), m.commands()...) {
		frames, reply := t.frames(c)
		if c.code == 'T' && len(pending) > 0 {
			cut(false, false)
		}
		pending = append(pending, frames...)
		if reply {
			cut(true, c.code == 'E')
		}
	}
	if m.ending == malformed {
		pending = append(pending, nonsense...)
	}
	if m.ending != complete {
		cut(false, false)
	}
	return steps
}

func marks(b []byte) []int {
	var all []int
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(numberMark))
		if i < 0 {
			return all
		}
		all = append(all, from+i)
		from += i + len(numberMark)
	}
}

// number writes n where the marks are.
func (s *step) number(n int) {
	for _, at := range s.marks {
		rest := n % numbers
		for i := len(numberMark) - 1; i >= 0; i-- {
			s.send[at+i] = byte('0' + rest%10)
			rest /= 10
		}
	}
}
