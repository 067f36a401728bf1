package wire

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits of docs/protocol.md sections 2 and 3.
const (
	// MaxLine is the greatest length of a line, its end included.
	MaxLine = 2048
	// DefaultPort is the port this project's server listens on; records always name one.
	DefaultPort = 7425
)

// A Code is the word of an ERROR line which says what was wrong.
type Code string

// Codes of version 1. To a client any other code is a temporary fault of the server.
const (
	CodeSyntax    Code = "syntax"    // the line could not be understood
	CodeTooLong   Code = "toolong"   // the line is longer than MaxLine
	CodeBusy      Code = "busy"      // asked too much; later
	CodeNotServed Code = "notserved" // the AS does not serve the address's domain
)

// Known reports whether the code is one of version 1. Any other is a word that the AS chose,
// and may be the key that it was asked about: do not log it.
func (c Code) Known() bool {
	switch c {
	case CodeSyntax, CodeTooLong, CodeBusy, CodeNotServed:
		return true
	}
	return false
}

// A Verdict is what an AS says about an address and a key.
type Verdict string

// Verdicts of version 1.
const (
	ValidKey   Verdict = "VALIDKEY"   // the key is the address's, now
	InvalidKey Verdict = "INVALIDKEY" // unknown address, wrong key or expired key
	TempFail   Verdict = "TEMPFAIL"   // cannot tell now
	Error      Verdict = "ERROR"      // not answered; Reply.Code says why
)

// ErrSyntax says that a line breaks the protocol's grammar. What the line held
// is not part of the error: it may be a key.
var ErrSyntax = errors.New("line breaks the protocol")

// A Request is a VERIFY line.
type Request struct {
	Seq     uint64
	Address string // encoded, as it is to be echoed
	Key     Key
}

// Append writes the line, its CRLF included, to dst. Nothing in r can end the
// line early or add a word to it; without an address or a key it is a line which no AS accepts.
func (r Request) Append(dst []byte) []byte {
	dst = append(dst, "VERIFY "...)
	dst = strconv.AppendUint(dst, r.Seq, 10)
	dst = append(dst, ' ')
	dst = appendWord(dst, r.Address)
	dst = append(dst, ' ')
	dst = append(dst, r.Key.Reveal()...)
	return append(dst, '\r', '\n')
}

// ParseRequest parses a VERIFY line without its end. Where it fails with
// ErrSyntax, the returned Request still carries the Seq if that much could be
// read, and 0 otherwise: it is what the ERROR reply names.
func ParseRequest(line string) (Request, error) {
	line, ok := strings.CutPrefix(line, "VERIFY ")
	if !ok {
		return Request{}, fmt.Errorf("%w: unknown command", ErrSyntax)
	}
	seqText, rest, _ := strings.Cut(line, " ")
	seq, err := parseSeq(seqText)
	if err != nil {
		return Request{}, fmt.Errorf("%w: sequence number", ErrSyntax)
	}
	req := Request{Seq: seq}
	address, rest, _ := strings.Cut(rest, " ")
	if !visible(address) || len(address) > MaxAddress {
		return req, fmt.Errorf("%w: address", ErrSyntax)
	}
	keyText, rest, more := strings.Cut(rest, " ")
	key, err := ParseKey(keyText)
	if err != nil {
		return req, fmt.Errorf("%w: authkey", ErrSyntax)
	}
	if err := eachParam(rest, more, func(string, string) error { return nil }); err != nil {
		return req, err
	}
	req.Address, req.Key = address, key
	return req, nil
}

// A Reply is any line that an AS sends.
type Reply struct {
	Seq     uint64 // 0 only in an ERROR that belongs to no request
	Verdict Verdict
	Address string        // as in the request; empty in an ERROR
	TTL     time.Duration // of a VALIDKEY; see HasTTL
	HasTTL  bool          // whether the line gave a ttl
	Code    Code          // of an ERROR
	Text    string        // of an ERROR: for people, printable ASCII
}

// Append writes the line, its CRLF included, to dst. Nothing in r can end the
// line early or add a word to it. In Text, what is not printable ASCII becomes "?", and Text
// is cut where the line would be longer than MaxLine.
func (r Reply) Append(dst []byte) []byte {
	start := len(dst)
	if r.Verdict == Error {
		dst = append(dst, "ERROR "...)
		dst = strconv.AppendUint(dst, r.Seq, 10)
		dst = append(dst, ' ')
		dst = appendWord(dst, string(r.Code))
		if r.Text != "" {
			dst = append(dst, ' ')
			room := max(0, MaxLine-len("\r\n")-(len(dst)-start))
			dst = appendText(dst, r.Text[:min(len(r.Text), room)])
		}
		return append(dst, '\r', '\n')
	}
	dst = append(dst, "VERIFY_REPLY "...)
	dst = strconv.AppendUint(dst, r.Seq, 10)
	dst = append(dst, ' ')
	dst = appendWord(dst, r.Address)
	dst = append(dst, ' ')
	dst = appendWord(dst, string(r.Verdict))
	if r.HasTTL {
		dst = append(dst, " ttl="...)
		dst = strconv.AppendInt(dst, int64(max(r.TTL, 0)/time.Second), 10)
	}
	return append(dst, '\r', '\n')
}

// appendWord appends s with every octet outside 0x21-0x7E percent-encoded: an
// address stays as it is, byte for byte, and anything else stays one word.
func appendWord(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		dst = appendOctet(dst, s[i], false)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; isVisible(c) || c == ' ' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '?')
		}
	}
	return dst
}

// ParseReply parses a line of an AS without its end. The error wraps ErrSyntax;
// such a line is a violation of the protocol.
func ParseReply(line string) (Reply, error) {
	command, rest, ok := strings.Cut(line, " ")
	switch {
	case ok && command == "VERIFY_REPLY":
		return parseVerifyReply(rest)
	case ok && command == "ERROR":
		return parseError(rest)
	}
	return Reply{}, fmt.Errorf("%w: unknown reply", ErrSyntax)
}

func parseVerifyReply(rest string) (Reply, error) {
	seqText, rest, ok := strings.Cut(rest, " ")
	seq, err := parseSeq(seqText)
	if !ok || err != nil {
		return Reply{}, fmt.Errorf("%w: sequence number", ErrSyntax)
	}
	address, rest, ok := strings.Cut(rest, " ")
	if !ok || !visible(address) || len(address) > MaxAddress {
		return Reply{}, fmt.Errorf("%w: address", ErrSyntax)
	}
	word, rest, more := strings.Cut(rest, " ")
	reply := Reply{Seq: seq, Address: address, Verdict: Verdict(word)}
	switch reply.Verdict {
	case ValidKey, InvalidKey, TempFail:
	default:
		return Reply{}, fmt.Errorf("%w: unknown verdict", ErrSyntax)
	}
	err = eachParam(rest, more, func(name, value string) error {
		if name != "ttl" || reply.Verdict != ValidKey {
			return nil
		}
		if reply.HasTTL {
			return fmt.Errorf("%w: ttl given twice", ErrSyntax)
		}
		var err error
		reply.TTL, err = parseSeconds(value)
		reply.HasTTL = true
		return err
	})
	if err != nil {
		return Reply{}, err
	}
	return reply, nil
}

func parseError(rest string) (Reply, error) {
	seqText, rest, ok := strings.Cut(rest, " ")
	seq, err := parseSeq(seqText)
	if seqText == "0" {
		seq, err = 0, nil
	}
	if !ok || err != nil {
		return Reply{}, fmt.Errorf("%w: sequence number", ErrSyntax)
	}
	code, text, _ := strings.Cut(rest, " ")
	if code == "" || !visible(code) {
		return Reply{}, fmt.Errorf("%w: error code", ErrSyntax)
	}
	for i := 0; i < len(text); i++ {
		if text[i] != ' ' && !isVisible(text[i]) {
			return Reply{}, fmt.Errorf("%w: error text", ErrSyntax)
		}
	}
	return Reply{Seq: seq, Verdict: Error, Code: Code(code), Text: text}, nil
}

// parseSeq takes 1*20DIGIT from 1 to 2^64-1 without a leading zero.
func parseSeq(s string) (uint64, error) {
	if s == "" || s[0] < '1' || s[0] > '9' || strings.Trim(s, "0123456789") != "" {
		return 0, ErrSyntax
	}
	return strconv.ParseUint(s, 10, 64)
}

// maxSeconds keeps a ttl of absurd length within a time.Duration; a client
// clamps far below it anyway.
const maxSeconds = math.MaxInt32

func parseSeconds(s string) (time.Duration, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%w: ttl", ErrSyntax)
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxSeconds { // too long for 64 bits, then
		n = maxSeconds
	}
	return time.Duration(n) * time.Second, nil
}

// eachParam calls f for each name=value of rest. more says whether there was a space before
// rest, also if rest is empty.
func eachParam(rest string, more bool, f func(name, value string) error) error {
	for more {
		var param string
		param, rest, more = strings.Cut(rest, " ")
		name, value, ok := strings.Cut(param, "=")
		if !ok || !paramName(name) || !visible(value) && value != "" {
			return fmt.Errorf("%w: named value", ErrSyntax)
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
}

func paramName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != ""
}

func visible(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isVisible(s[i]) {
			return false
		}
	}
	return s != ""
}
