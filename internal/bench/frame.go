package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// What Postfix offers a filter in milter protocol version 6: every action and
// every option there is.
const (
	version        = 6
	offeredActions = 0x1FF
	offeredOptions = 0x1FFFFF
)

// Protocol options which the client has to obey: events that a filter does not
// want, and events to which it does not reply.
const (
	noConnect = 0x1
	noHelo    = 0x2
	noMail    = 0x4
	noRcpt    = 0x8
	noBody    = 0x10
	noHeaders = 0x20
	noEOH     = 0x40
	nrHeader  = 0x80
	noData    = 0x200
	nrConnect = 0x1000
	nrHelo    = 0x2000
	nrMail    = 0x4000
	nrRcpt    = 0x8000
	nrData    = 0x10000
	nrEOH     = 0x40000
	nrBody    = 0x80000
	leadSpace = 0x100000 // header values with the blank after the colon
	setMacros = 0x100    // an action: the filter says which macros it wants
)

// events are the commands which a filter may decline: that it does not want one,
// that it does not reply to it, and the macro stage that goes with it.
var events = map[byte]struct {
	declined, silent uint32
	stage            int
}{
	'C': {noConnect, nrConnect, 0},
	'H': {noHelo, nrHelo, 1},
	'M': {noMail, nrMail, 2},
	'R': {noRcpt, nrRcpt, 3},
	'T': {noData, nrData, 4},
	'L': {noHeaders, nrHeader, 6},
	'N': {noEOH, nrEOH, 6},
	'B': {noBody, nrBody, -1},
	'E': {0, 0, 5},
}

// defaultMacros are those that Postfix sends where a filter does not ask.
var defaultMacros = map[int]string{
	0: "j {daemon_name} {daemon_addr} v _",
	2: "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
	3: "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
	4: "i",
	5: "i",
	6: "i",
}

// queueIDFrom is the first stage at which Postfix has given the message its id.
const queueIDFrom = 4

// macroValues are what the client knows; a macro without value is not sent.
var macroValues = map[string]string{
	"j": "mx.test", "{daemon_name}": "mx.test", "{daemon_addr}": "192.0.2.1", "v": "Postfix 3.7.11",
	"_": "mail.bench.test [198.51.100.7]", "{client_addr}": "198.51.100.7", "i": "4XyZ0a1b2cz3Yt9",
	"{mail_host}": "bench.test", "{mail_mailer}": "smtp",
	"{rcpt_addr}": "bob@rcpt.test", "{rcpt_host}": "rcpt.test", "{rcpt_mailer}": "virtual",
}

func appendFrame(b []byte, command byte, data string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(data)))
	b = append(b, command)
	return append(b, data...)
}

// headSize is that of a frame's length and command.
const headSize = 5

// parseHead reads the head of a frame of a filter: the size of the whole frame, at
// most so much, and its command.
func parseHead(b []byte, most int) (size int, code byte, err error) {
	size = 4 + int(binary.BigEndian.Uint32(b))
	if size < headSize || size > most {
		return 0, 0, fmt.Errorf("the filter sends a frame of %d octets", size-4)
	}
	return size, b[4], nil
}

// isAnswer reports whether a filter's frame is an answer or a reply, and neither a
// modification nor progress.
func isAnswer(code byte) bool { return strings.IndexByte("+-2behimqp", code) < 0 }

// offer is the client's negotiation frame.
func offer() []byte {
	data := binary.BigEndian.AppendUint32(nil, version)
	data = binary.BigEndian.AppendUint32(data, offeredActions)
	data = binary.BigEndian.AppendUint32(data, offeredOptions)
	return appendFrame(nil, 'O', string(data))
}

// terms are what a filter made of the offer.
type terms struct {
	options uint32
	macros  map[int]string // by stage
}

// parseTerms reads the data of a filter's negotiation frame.
func parseTerms(data []byte) (terms, error) {
	const fixed = 3 * 4
	if len(data) < fixed {
		return terms{}, errors.New("negotiation: too short")
	}
	if v := binary.BigEndian.Uint32(data); v < 2 || v > version {
		return terms{}, fmt.Errorf("negotiation: version %d", v)
	}
	actions := binary.BigEndian.Uint32(data[4:])
	t := terms{options: binary.BigEndian.Uint32(data[8:]), macros: defaultMacros}
	if actions&^offeredActions != 0 || t.options&^offeredOptions != 0 {
		return t, fmt.Errorf("negotiation: asks for more than was offered: actions %#x, options %#x", actions, t.options)
	}
	lists := data[fixed:]
	if len(lists) == 0 || actions&setMacros == 0 {
		return t, nil
	}
	t.macros = map[int]string{}
	for stage, list := range defaultMacros {
		t.macros[stage] = list
	}
	for len(lists) > 0 {
		end := -1
		if len(lists) > 4 {
			end = bytes.IndexByte(lists[4:], 0)
		}
		if end < 0 {
			return t, errors.New("negotiation: macro list without end")
		}
		t.macros[int(binary.BigEndian.Uint32(lists))] = string(lists[4 : 4+end])
		lists = lists[4+end+1:]
	}
	return t, nil
}

// A command is one event of an SMTP session, with its data as it stands in the
// frame; of a header field, name and value.
type command struct {
	code  byte
	data  string
	name  string
	value string
}

func header(name, value string) command { return command{code: 'L', name: name, value: value} }

// frames returns what goes to the filter for a command, its macros first, and
// whether the filter replies. Nothing goes for an event that it declined.
func (t terms) frames(c command) (frames []byte, reply bool) {
	event, known := events[c.code]
	if !known { // abort, quit
		return appendFrame(nil, c.code, c.data), false
	}
	if t.options&event.declined != 0 {
		return nil, false
	}
	var macros strings.Builder
	for name := range strings.FieldsSeq(t.macros[event.stage]) {
		if value := macroValues[name]; value != "" && (name != "i" || event.stage >= queueIDFrom) {
			macros.WriteString(name + "\x00" + value + "\x00")
		}
	}
	if macros.Len() > 0 {
		frames = appendFrame(frames, 'D', string(c.code)+macros.String())
	}
	if c.code == 'L' {
		blank := ""
		if t.options&leadSpace != 0 {
			blank = " "
		}
		c.data = c.name + "\x00" + blank + c.value + "\x00"
	}
	return appendFrame(frames, c.code, c.data), t.options&event.silent == 0
}
