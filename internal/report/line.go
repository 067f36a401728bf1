package report

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// A record is one msg=message line. Its slices are parts of the line, or of the
// parser's scratch, and good until the next one.
type record struct {
	time                             []byte // RFC 3339
	from, result, fromResult, reason []byte
	action, actions, would, by, note []byte
	rcpts                            []byte
	message                          bool // msg=message
	withActions                      bool
	cached                           bool
	probe                            bool // of ours: no mail
}

// A parser reads lines. It is for one goroutine.
type parser struct {
	record
	scratch []byte // unquoted values of the current line
}

// parse reads a line without its end. It returns false for what is no line of ours
// about a message.
func (p *parser) parse(line []byte) bool {
	p.record, p.scratch = record{}, p.scratch[:0]
	body := withoutHeader(line)
	if len(body) > 0 && body[0] == '{' {
		if message := journaled(body); message != nil {
			body = withoutHeader(message)
		}
	}
	var complete bool
	if len(body) > 0 && body[0] == '{' {
		complete = p.parseJSON(body)
	} else {
		complete = p.parseLogfmt(body)
	}
	return complete && p.message
}

// logfmtStart begins a line of ours.
var logfmtStart = []byte("time=")

// parseLogfmt reads key=value pairs as slog writes them: a value with blanks,
// quotes or unprintable characters is quoted as in Go. It returns false where that
// does not hold to the end of the line.
func (p *parser) parseLogfmt(s []byte) bool {
	for len(s) > 0 {
		eq := bytes.IndexByte(s, '=')
		if eq <= 0 {
			return false
		}
		key := s[:eq]
		s = s[eq+1:]
		var value []byte
		if len(s) > 0 && s[0] == '"' {
			end, escaped := closingQuote(s)
			if end < 0 {
				return false
			}
			if value = s[1:end]; escaped {
				unquoted, err := strconv.Unquote(string(s[:end+1]))
				if err != nil {
					return false
				}
				value = p.keep(unquoted)
			}
			s = s[end+1:]
			if len(s) > 0 && s[0] != ' ' {
				return false
			}
		} else {
			end := bytes.IndexByte(s, ' ')
			if end < 0 {
				end = len(s)
			}
			value, s = s[:end], s[end:]
		}
		if len(s) > 0 {
			s = s[1:]
		}
		if p.set(key, value); string(key) == "msg" && !p.message {
			return false // no need to read the rest
		}
	}
	return true
}

// parseJSON reads one object, of which no member is an object or a list.
func (p *parser) parseJSON(s []byte) bool {
	s = s[1:]
	for {
		key, rest, ok := p.jsonValue(bytes.TrimLeft(s, " "))
		if !ok {
			return false
		}
		rest = bytes.TrimLeft(rest, " ")
		if len(rest) == 0 || rest[0] != ':' {
			return false
		}
		value, rest, ok := p.jsonValue(bytes.TrimLeft(rest[1:], " "))
		if !ok {
			return false
		}
		if p.set(key, value); string(key) == "msg" && !p.message {
			return false
		}
		rest = bytes.TrimLeft(rest, " ")
		switch {
		case len(rest) == 0:
			return false
		case rest[0] == '}':
			return len(bytes.TrimLeft(rest[1:], " ")) == 0
		case rest[0] != ',':
			return false
		}
		s = rest[1:]
	}
}

// jsonValue reads a string, or what else ends before a comma or brace.
func (p *parser) jsonValue(s []byte) (value, rest []byte, ok bool) {
	if len(s) == 0 {
		return nil, nil, false
	}
	if s[0] == '"' {
		end, escaped := closingQuote(s)
		if end < 0 {
			return nil, nil, false
		}
		if !escaped {
			return s[1:end], s[end+1:], true
		}
		var text string
		if json.Unmarshal(s[:end+1], &text) != nil {
			return nil, nil, false
		}
		return p.keep(text), s[end+1:], true
	}
	end := bytes.IndexAny(s, ",}")
	if end <= 0 || s[0] == '{' || s[0] == '[' {
		return nil, nil, false
	}
	return s[:end], s[end:], true
}

// closingQuote finds the end of a quoted string that s begins with.
func closingQuote(s []byte) (end int, escaped bool) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i, escaped
		case '\\':
			escaped = true
			i++
		}
	}
	return -1, escaped
}

// keep copies a value into the scratch.
func (p *parser) keep(value string) []byte {
	start := len(p.scratch)
	p.scratch = append(p.scratch, value...)
	return p.scratch[start:]
}

// set notes one of the values that are reported on.
func (p *parser) set(key, value []byte) {
	switch string(key) {
	case "time":
		p.time = value
	case "msg":
		p.message = string(value) == "message"
	case "from":
		p.from = value
	case "result":
		p.result = value
	case "from_result":
		p.fromResult = value
	case "reason":
		p.reason = value
	case "action":
		p.action = value
	case "actions":
		p.actions, p.withActions = value, true
	case "would":
		p.would = value
	case "by":
		p.by = value
	case "note":
		p.note = value
	case "rcpts":
		p.rcpts = value
	case "probe":
		p.probe = len(value) > 0
	case "cached":
		p.cached = string(value) == "true"
	}
}
