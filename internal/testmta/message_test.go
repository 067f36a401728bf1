package testmta

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const delivered = "Return-Path: <a@b.test>\nX-Original-To: list@rcpt.test\nDelivered-To: x@rcpt.test\n" +
	"Authentication-Results: mx.test;\n\tnone\nX-Two: 2\n" +
	"Received: from c\n\tby mx.test\nReceived: from far\nSubject :  s  \nsubject:\n t\nReturn-Path: <z>\n\nX-Body: 1\n.\n"

func TestMessage(t *testing.T) {
	m := parseDelivered("f", []byte(delivered))
	if m.Sender != "a@b.test" || m.Recipient != "x@rcpt.test" || m.File != "f" {
		t.Errorf("%q to %q in %q", m.Sender, m.Recipient, m.File)
	}
	if diff := cmp.Diff([]Field{
		{"Authentication-Results", "mx.test;\tnone", "Authentication-Results: mx.test;\n\tnone\n"},
		{"X-Two", "2", "X-Two: 2\n"},
	}, m.Above()); diff != "" {
		t.Error(diff)
	}
	if want := "Received: from far\r\nSubject :  s  \r\nsubject:\r\n t\r\nReturn-Path: <z>\r\n\r\nX-Body: 1\r\n.\r\n"; string(m.Content()) != want {
		t.Errorf("Content() = %q", m.Content())
	}
	if string(m.Body()) != "X-Body: 1\n.\n" {
		t.Errorf("Body() = %q", m.Body())
	}
	if diff := cmp.Diff([]string{"s", "t"}, m.Values("SUBJECT")); diff != "" {
		t.Error(diff)
	}
	if m.Get("sUBJECT") != "s" || m.Get("X-Body") != "" || m.Values("X-Body") != nil {
		t.Error("Get or Values is wrong")
	}
}

// What has no Received field came by no SMTP.
func TestMessageWithoutTrace(t *testing.T) {
	m := parseDelivered("", []byte("Subject: x\n\nbody\n"))
	if m.Above() != nil || string(m.Content()) != "Subject: x\r\n\r\nbody\r\n" || m.Sender != "" {
		t.Errorf("%+v, %q", m.Above(), m.Content())
	}
}

func FuzzParseFields(f *testing.F) {
	for _, s := range []string{"", "\n", delivered, "no field\nA: b\n", " A: b\n", "A: b\n c", ":\n", "A B: c\n", "A\t: b\n\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var all strings.Builder
		for _, field := range parseFields(raw) {
			if field.Name == "" || strings.ContainsAny(field.Name, " \t\n:") || strings.Contains(field.Value, "\n") {
				t.Errorf("field %+v", field)
			}
			all.WriteString(field.Raw)
		}
		if !strings.HasPrefix(string(raw), all.String()) {
			t.Errorf("fields %q are not how %q begins", all.String(), raw)
		}
		m := parseDelivered("", raw)
		m.Above()
		m.Content()
		m.Body()
	})
}

const control = "V8\nT1\nK0\nN0\nP30\nqtest reason\nF8bs\n$_localhost [127.0.0.1]\n${daemon_flags}\nS<a@b.test>\n" +
	"rRFC822; x@rcpt.test\nRPFD:<x@rcpt.test>\nRPFD:y@rcpt.test\nH?P?Return-Path: <\x81g>\nH??Received: from c\n\tby mx\nH??X: 1\nH?M?Y:\n 2\n.\nSafter\n"

func TestParseControlFile(t *testing.T) {
	c := parseControlFile([]byte(control))
	if c.sender != "a@b.test" || c.reason != "test reason" || strings.Join(c.recipients, " ") != "x@rcpt.test y@rcpt.test" {
		t.Errorf("%+v", c)
	}
	if want := "Return-Path: <\x81g>\nReceived: from c\n\tby mx\nX: 1\nY:\n 2\n"; string(c.header) != want {
		t.Errorf("header %q", c.header)
	}
}

func FuzzParseControlFile(f *testing.F) {
	for _, s := range []string{"", ".", control, "H", "H?", "H??", "R", "S", " x\n", "\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := parseControlFile(b)
		if len(c.header) > 2*len(b)+2 || strings.Contains(c.reason, "\n") {
			t.Errorf("%+v", c)
		}
	})
}
