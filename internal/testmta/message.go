package testmta

import (
	"bytes"
	"strings"
)

// A Message is a delivered message, for one recipient.
//
// On top of what its client sent and filters added, Postfix writes, from the
// top: Return-Path, X-Original-To and Delivered-To (by virtual(8), on delivery),
// and one Received field for each time the message came in by SMTP. Sendmail
// writes one Received field; it also adds Return-Path (empty brackets), Date,
// From and Message-Id where they are missing, and rewrites addresses in From,
// To and Cc in its own form, and folds long ones of them anew.
type Message struct {
	Raw       []byte  // as delivered, line ends LF
	Sender    string  // envelope sender; empty for the null sender
	Recipient string  // envelope recipient of this copy
	Fields    []Field // the header, in order
	File      string  // where Postfix stored it; empty for Sendmail
	ownTrace  int     // number of fields on top which virtual(8) wrote
}

// A Field is one field of a header.
type Field struct {
	Name  string // as written, without blanks before the colon
	Value string // unfolded, blanks at both ends removed
	Raw   string // the whole field as delivered, with its line ends (LF)
}

// Get is the value of the first field of that name, in any case, or "".
func (m Message) Get(name string) string {
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Values are the values of all fields of that name, in any case, from the top.
func (m Message) Values(name string) []string {
	var values []string
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			values = append(values, f.Value)
		}
	}
	return values
}

// Above are the fields above the MTA's own Received field, without those that
// delivery itself writes: what a filter has inserted at index 0.
func (m Message) Above() []Field {
	if i := m.received(); i >= 0 {
		return m.Fields[m.ownTrace:i]
	}
	return nil
}

// Content is everything below the MTA's own Received field, with CRLF: what the
// client sent, as filters have changed it.
func (m Message) Content() []byte {
	n := 0
	for _, f := range m.Fields[:m.received()+1] {
		n += len(f.Raw)
	}
	return bytes.ReplaceAll(m.Raw[n:], []byte("\n"), []byte("\r\n"))
}

// Body is everything below the empty line, with LF.
func (m Message) Body() []byte {
	n := 0
	for _, f := range m.Fields {
		n += len(f.Raw)
	}
	return bytes.TrimPrefix(m.Raw[n:], []byte("\n"))
}

// received is the index of the topmost Received field, the MTA's own, or -1.
func (m Message) received() int {
	for i, f := range m.Fields {
		if strings.EqualFold(f.Name, "Received") {
			return i
		}
	}
	return -1
}

// parseFields reads the header of a message with LF line ends. Like an MTA it
// takes the first line that is no field for the begin of the body.
func parseFields(raw []byte) []Field {
	var fields []Field
	rest := string(raw)
	for rest != "" {
		line, after, _ := strings.Cut(rest, "\n")
		name, _, ok := strings.Cut(line, ":")
		name = strings.TrimRight(name, " \t")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			break
		}
		for strings.HasPrefix(after, " ") || strings.HasPrefix(after, "\t") {
			_, after, _ = strings.Cut(after, "\n")
		}
		whole := rest[:len(rest)-len(after)]
		_, value, _ := strings.Cut(whole, ":")
		fields = append(fields, Field{
			Name:  name,
			Value: strings.Trim(strings.ReplaceAll(value, "\n", ""), " \t"),
			Raw:   whole,
		})
		rest = after
	}
	return fields
}

// parseDelivered reads a message as virtual(8) stores it.
func parseDelivered(file string, raw []byte) Message {
	m := Message{Raw: raw, File: file, Fields: parseFields(raw)}
	for _, want := range []string{"Return-Path", "X-Original-To", "Delivered-To"} {
		if m.ownTrace >= len(m.Fields) || m.Fields[m.ownTrace].Name != want {
			continue // X-Original-To is not there with enable_original_recipient=no
		}
		value := m.Fields[m.ownTrace].Value
		m.ownTrace++
		switch want {
		case "Return-Path":
			m.Sender = unbracket(value)
		case "Delivered-To":
			m.Recipient = value
		}
	}
	return m
}

func unbracket(path string) string {
	return strings.TrimSuffix(strings.TrimPrefix(path, "<"), ">")
}
