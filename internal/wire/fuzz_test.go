package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// The seeds are the specification's vectors of the kind, and what stands in
// testdata/fuzz. Several values are one text, separated by NUL, which none of
// the inputs' grammars knows.
func addVectors(f *testing.F, kind string) {
	f.Helper()
	blocks, err := loadVectors()
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range blocks[kind] {
		f.Add(strings.Join(v.inputs, "\x00"))
	}
}

func FuzzParseAddress(f *testing.F) {
	addVectors(f, "address")
	f.Add(strings.Repeat("a", maxMailbox) + "@example.com")
	f.Fuzz(func(t *testing.T, mailbox string) {
		a, err := ParseAddress(mailbox)
		if err == nil {
			checkAddress(t, a)
		} else if !a.IsZero() {
			t.Errorf("address beside an error: %v", a)
		}
	})
}

func FuzzDecodeAddress(f *testing.F) {
	addVectors(f, "encoded")
	f.Add(strings.Repeat("%22", 341))
	f.Fuzz(func(t *testing.T, word string) {
		a, err := DecodeAddress(word)
		if err != nil {
			if !a.IsZero() {
				t.Errorf("address beside an error: %v", a)
			}
			return
		}
		checkAddress(t, a)
		if !visible(word) {
			t.Errorf("%q was read, and is no word of a line", word)
		}
	})
}

func FuzzJoinKeys(f *testing.F) {
	addVectors(f, "key")
	f.Add("K\x00\r\n K\x00\n\tL")
	f.Fuzz(func(t *testing.T, text string) {
		values := strings.Split(text, "\x00")
		checkJoined(t, JoinKeys(values...), values)
	})
}

func FuzzParseRecord(f *testing.F) {
	addVectors(f, "record")
	f.Add("AS=" + strings.Repeat("x;", 100))
	f.Fuzz(func(t *testing.T, txt string) {
		rec, err := ParseRecord(txt)
		switch {
		case err == nil:
			checkRecord(t, rec)
		case errors.Is(err, ErrMalformed) == errors.Is(err, ErrNotRecord):
			t.Errorf("error is not one of the two: %v", err)
		case strings.Trim(strings.ReplaceAll(err.Error(), "…", ""), printable) != "" || len(err.Error()) > 1000:
			t.Errorf("error cannot be logged: %q", err)
		}
	})
}

// printable is the ASCII which an error text may hold.
var printable = func() string {
	var b strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		b.WriteByte(c)
	}
	return b.String()
}()

func FuzzParseSet(f *testing.F) {
	addVectors(f, "set")
	f.Add(strings.Repeat("AS=a:1; tls=yes\x00AS=b:2\x00", 40))
	f.Fuzz(func(t *testing.T, text string) {
		txts := strings.Split(text, "\x00")
		checkSet(t, txts, ParseSet(txts))
	})
}

func FuzzParseRequest(f *testing.F) {
	addVectors(f, "request")
	f.Add("VERIFY 1 a@b k " + strings.Repeat("x=1 ", 200) + "y=2")
	f.Fuzz(func(t *testing.T, line string) {
		req, err := ParseRequest(line)
		if err != nil {
			if !errors.Is(err, ErrSyntax) || req.Address != "" || !req.Key.IsZero() {
				t.Errorf("%+v beside error %v", req, err)
			}
			checkLine(t, Reply{Seq: req.Seq, Verdict: Error, Code: CodeSyntax}.Append(nil))
			return
		}
		written := checkLine(t, req.Append(nil))
		if again, err := ParseRequest(written); err != nil || !reflect.DeepEqual(again, req) {
			t.Errorf("%+v became %+v, %v", req, again, err)
		}
		if line != written && !strings.HasPrefix(line, written+" ") {
			t.Errorf("%q is written as %q", line, written)
		}
		if a, err := DecodeAddress(req.Address); err == nil {
			checkAddress(t, a)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	addVectors(f, "reply")
	f.Add("VERIFY_REPLY 1 a@b VALIDKEY ttl=" + strings.Repeat("9", 400))
	f.Fuzz(func(t *testing.T, line string) {
		r, err := ParseReply(line)
		if err != nil {
			if !errors.Is(err, ErrSyntax) || r != (Reply{}) {
				t.Errorf("%+v beside error %v", r, err)
			}
			return
		}
		if r.Seq == 0 && r.Verdict != Error || r.TTL < 0 || r.HasTTL && r.Verdict != ValidKey {
			t.Errorf("%q was read as %+v", line, r)
		}
		written := checkLine(t, r.Append(nil))
		if len(line) > MaxLine-2 { // the text of an ERROR is cut
			return
		}
		if again, err := ParseReply(written); err != nil || again != r {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}
