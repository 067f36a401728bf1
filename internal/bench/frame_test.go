package main

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// agreement is a filter's negotiation data.
func agreement(actions, options uint32, lists string) []byte {
	data := binary.BigEndian.AppendUint32(nil, version)
	data = binary.BigEndian.AppendUint32(data, actions)
	data = binary.BigEndian.AppendUint32(data, options)
	return append(data, lists...)
}

func mustTerms(t *testing.T, actions, options uint32, lists string) terms {
	t.Helper()
	agreed, err := parseTerms(agreement(actions, options, lists))
	if err != nil {
		t.Fatal(err)
	}
	return agreed
}

func TestFrames(t *testing.T) {
	const lists = "\x00\x00\x00\x05i j\x00\x00\x00\x00\x06none\x00"
	for _, tt := range []struct {
		name             string
		actions, options uint32
		lists            string
		command          command
		want             string
		reply            bool
	}{
		{"macros by default", 0, 0, "", command{code: 'E'}, "\x00\x00\x00\x14DEi\x004XyZ0a1b2cz3Yt9\x00\x00\x00\x00\x01E", true},
		{"macros by the filter's list", setMacros, 0, lists, command{code: 'E'},
			"\x00\x00\x00\x1eDEi\x004XyZ0a1b2cz3Yt9\x00j\x00mx.test\x00\x00\x00\x00\x01E", true},
		{"a list without the action", 0, 0, lists, command{code: 'E'}, "\x00\x00\x00\x14DEi\x004XyZ0a1b2cz3Yt9\x00\x00\x00\x00\x01E", true},
		{"field", setMacros, 0, lists, header("To", "bob"), "\x00\x00\x00\x08LTo\x00bob\x00", true},
		{"field, macros of the end of the header", 0, 0, "", header("To", "bob"),
			"\x00\x00\x00\x14DLi\x004XyZ0a1b2cz3Yt9\x00\x00\x00\x00\x08LTo\x00bob\x00", true},
		{"field with its blank", setMacros, leadSpace, lists, header("To", "bob"), "\x00\x00\x00\x09LTo\x00 bob\x00", true},
		{"no reply to fields", setMacros, nrHeader, lists, header("To", "bob"), "\x00\x00\x00\x08LTo\x00bob\x00", false},
		{"no fields", setMacros, noHeaders, lists, header("To", "bob"), "", false},
		{"no body", 0, noBody, "", command{code: 'B', data: "text"}, "", false},
		{"abort", 0, 0, "", command{code: 'A'}, "\x00\x00\x00\x01A", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frames, reply := mustTerms(t, tt.actions, tt.options, tt.lists).frames(tt.command)
			if string(frames) != tt.want || reply != tt.reply {
				t.Errorf("%q, reply %v; want %q, %v", frames, reply, tt.want, tt.reply)
			}
		})
	}
}

func TestParseTermsRefuses(t *testing.T) {
	for name, data := range map[string][]byte{
		"short":                  {0, 0, 0, 6},
		"version":                append([]byte{0, 0, 0, 9}, agreement(0, 0, "")[4:]...),
		"actions not offered":    agreement(1<<20, 0, ""),
		"options not offered":    agreement(0, 1<<31, ""),
		"macro list without end": agreement(setMacros, 0, "\x00\x00\x00\x05i"),
		"macro list cut":         agreement(setMacros, 0, "\x00\x00"),
	} {
		if _, err := parseTerms(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseTerms(f *testing.F) {
	f.Add(agreement(setMacros, nrHeader|noBody, "\x00\x00\x00\x05i j\x00"))
	f.Add(readerAgreement()[headSize:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		agreed, err := parseTerms(data)
		if err != nil {
			return
		}
		for _, c := range (&message{sender: "a@b.test", key: "K"}).commands() {
			frames, _ := agreed.frames(c)
			for len(frames) > 0 {
				size, _, err := parseHead(frames, len(frames))
				if err != nil {
					t.Fatalf("%c: %v", c.code, err)
				}
				frames = frames[size:]
			}
		}
	})
}

func TestCompile(t *testing.T) {
	m := &message{sender: "user+" + numberMark + "@bench.test", key: "KEY"}
	silent := mustTerms(t, setMacros, readerOptions, "")
	steps := silent.compile(m, true)
	if len(steps) != 2 || steps[0].wait || !steps[1].wait || !steps[1].end {
		t.Fatalf("%+v: want the envelope, and the rest with a reply", steps)
	}
	if !bytes.Contains(steps[0].send, []byte("R<bob@")) || bytes.Contains(steps[0].send, []byte("LFrom\x00")) {
		t.Errorf("the envelope goes out as %q", steps[0].send)
	}
	steps[0].number(42)
	steps[1].number(42)
	if !bytes.Contains(steps[0].send, []byte("M<user+0000042@bench.test>")) ||
		!bytes.Contains(steps[1].send, []byte("<user+0000042@bench.test>")) {
		t.Error("the number is not in the envelope and in the From field")
	}
	if next := silent.compile(m, false); next[0].send[headSize-1] != 'A' {
		t.Errorf("the next message begins with %q", next[0].send[:headSize])
	}

	// A filter that replies to everything is waited for each time.
	waits := 0
	for _, s := range mustTerms(t, 0, 0, "").compile(m, true) {
		if !s.wait {
			t.Errorf("%q is not waited for", s.send)
		}
		waits++
	}
	if want := 2 + 3 + fields + 3; waits != want {
		t.Errorf("%d replies waited for; want %d", waits, want)
	}
}

// fields is how many header fields a message is promised to have.
const fields = 22

func TestMessage(t *testing.T) {
	n, keys := 0, 0
	for _, c := range (&message{sender: "user@bench.test", key: "KEY"}).commands() {
		if c.code == 'L' {
			n++
			if strings.EqualFold(c.name, "X-Auth-Key") {
				keys++
			}
		}
	}
	if n != fields || keys != 1 {
		t.Errorf("%d fields, %d keys; want %d and 1", n, keys, fields)
	}
	if len(body) != 4096 {
		t.Errorf("body of %d octets", len(body))
	}
}
