package wire

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// hostile are texts which must not end a line early, wherever they stand.
var hostile = []string{
	"", " ", "a b", "\r\n", "\n", "\r", "x\r\nVERIFY_REPLY 1 a@b VALIDKEY", "\x00", "\x1b[2J", "\x7f", "ü", "\xff", "%", "%0A", "=", "ttl=1",
	strings.Repeat("x", 3000), strings.Repeat("\n", 3000),
}

// checkLine tests what holds for every line that this package writes, and returns it without its end.
func checkLine(t *testing.T, line []byte) string {
	t.Helper()
	body, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		t.Errorf("line without CRLF at its end: %q", line)
	}
	for _, c := range body {
		if c != ' ' && !isVisible(c) {
			t.Errorf("octet %q within a line: %.300q", c, line)
			break
		}
	}
	return string(body)
}

// No content of a Request makes a second line or a further word.
func TestRequestCannotBreakLine(t *testing.T) {
	keys := []Key{{}, JoinKeys("a", "b"), mustKey(t, "k"), mustKey(t, strings.Repeat("k", MaxKey))}
	for _, h := range hostile {
		for _, key := range keys {
			body := checkLine(t, Request{Seq: 7, Address: h, Key: key}.Append(nil))
			if n := strings.Count(body, " "); n != 3 {
				t.Errorf("address %.40q, key %v: %d spaces in %.200q", h, key, n, body)
			}
			if (key.Reveal() == "" || h == "" || len(h) > MaxAddress) != (parseRequestError(body) != nil) {
				t.Errorf("address %.40q, key %v: an AS says %v", h, key, parseRequestError(body))
			}
		}
	}
}

func parseRequestError(line string) error {
	_, err := ParseRequest(line)
	return err
}

// No content of a Reply makes a second line, nor an ERROR of more than MaxLine.
func TestReplyCannotBreakLine(t *testing.T) {
	for _, h := range hostile {
		for _, r := range []Reply{
			{Seq: 7, Verdict: Error, Code: Code(h)},
			{Seq: 7, Verdict: Error, Code: Code(h), Text: "text"},
			{Seq: 7, Verdict: ValidKey, Address: h, HasTTL: true, TTL: time.Minute},
			{Seq: 7, Verdict: Verdict(h), Address: "a@b"},
		} {
			checkLine(t, r.Append(nil))
		}
		line := Reply{Seq: math.MaxUint64, Verdict: Error, Code: CodeBusy, Text: h}.Append(nil)
		checkLine(t, line)
		if len(line) > MaxLine {
			t.Errorf("text %.40q: line of %d octets", h, len(line))
		}
		if r, err := ParseReply(string(line[:len(line)-2])); err != nil || r.Seq != math.MaxUint64 || r.Code != CodeBusy {
			t.Errorf("text %.40q: %+v, %v", h, r, err)
		}
	}
}

func TestReplyAppend(t *testing.T) {
	for _, c := range []struct {
		reply Reply
		want  string
	}{
		{Reply{Seq: 1, Verdict: ValidKey, Address: "a@b"}, "VERIFY_REPLY 1 a@b VALIDKEY\r\n"},
		{Reply{Seq: 1, Verdict: ValidKey, Address: "a@b", HasTTL: true}, "VERIFY_REPLY 1 a@b VALIDKEY ttl=0\r\n"},
		{Reply{Seq: 1, Verdict: ValidKey, Address: "a@b", HasTTL: true, TTL: 90*time.Second + 999*time.Millisecond}, "VERIFY_REPLY 1 a@b VALIDKEY ttl=90\r\n"},
		{Reply{Seq: 1, Verdict: ValidKey, Address: "a@b", HasTTL: true, TTL: -time.Hour}, "VERIFY_REPLY 1 a@b VALIDKEY ttl=0\r\n"},
		{Reply{Seq: 1, Verdict: InvalidKey, Address: "a%0A@b"}, "VERIFY_REPLY 1 a%0A@b INVALIDKEY\r\n"},
		{Reply{Seq: 1, Verdict: TempFail, Address: "a\n@b"}, "VERIFY_REPLY 1 a%0A@b TEMPFAIL\r\n"},
		{Reply{Verdict: Error, Code: CodeTooLong}, "ERROR 0 toolong\r\n"},
		{Reply{Seq: 1, Verdict: Error, Code: CodeSyntax, Text: "a\nb ü"}, "ERROR 1 syntax a?b ??\r\n"},
	} {
		if got := string(c.reply.Append([]byte("before "))); got != "before "+c.want {
			t.Errorf("%+v: %q, want %q", c.reply, got, c.want)
		}
	}
}

// The longest legal lines fit in MaxLine.
func TestLongestLines(t *testing.T) {
	address := strings.Repeat("a", MaxAddress)
	request := Request{Seq: math.MaxUint64, Address: address, Key: mustKey(t, strings.Repeat("k", MaxKey))}
	reply := Reply{Seq: math.MaxUint64, Verdict: ValidKey, Address: address, HasTTL: true, TTL: math.MaxInt64}
	for _, line := range [][]byte{request.Append(nil), reply.Append(nil)} {
		if len(line) > MaxLine {
			t.Errorf("line of %d octets", len(line))
		}
	}
}

func TestTTL(t *testing.T) {
	const longest = math.MaxInt32 * time.Second
	for _, c := range []struct {
		text string
		want time.Duration
	}{
		{"0", 0},
		{"000", 0},
		{"1", time.Second},
		{"2147483647", longest},
		{"2147483648", longest},
		{"9223372036854775808", longest},
		{"18446744073709551616", longest},
		{strings.Repeat("9", 1000), longest},
		{strings.Repeat("0", 1000) + "5", 5 * time.Second},
	} {
		r, err := ParseReply("VERIFY_REPLY 1 a@b VALIDKEY ttl=" + c.text)
		if err != nil || !r.HasTTL || r.TTL != c.want {
			t.Errorf("ttl=%.20s: %v, %v, %v, want %v", c.text, r.TTL, r.HasTTL, err, c.want)
		}
	}
}

// What cannot be parsed may hold a key: no error repeats any of it.
func TestSyntaxErrorsTellNothing(t *testing.T) {
	for _, line := range []string{
		secret, "VERIFY " + secret, "VERIFY 1 " + secret, "VERIFY 1 " + secret + "\x00 k", "VERIFY 1 a@b " + secret + "\x00",
		"VERIFY 1 a@b k " + secret, "VERIFY 1 a@b k x=" + secret + "\x00", "VERIFY 1  " + secret,
	} {
		req, err := ParseRequest(line)
		if !errors.Is(err, ErrSyntax) || strings.Contains(err.Error(), secret) {
			t.Errorf("ParseRequest(%q): error %v", line, err)
		}
		if req.Address != "" || !req.Key.IsZero() {
			t.Errorf("ParseRequest(%q): %+v beside an error", line, req)
		}
	}
	for _, line := range []string{
		secret, "ERROR " + secret, "ERROR 1 busy " + secret + "\x00", "VERIFY_REPLY 1 a@b " + secret, "VERIFY_REPLY 1 a@b VALIDKEY ttl=" + secret,
	} {
		r, err := ParseReply(line)
		if !errors.Is(err, ErrSyntax) || strings.Contains(err.Error(), secret) {
			t.Errorf("ParseReply(%q): error %v", line, err)
		}
		if !reflect.DeepEqual(r, Reply{}) {
			t.Errorf("ParseReply(%q): %+v beside an error", line, r)
		}
	}
}

// randomWord returns 1 to n visible octets.
func randomWord(random *rand.Rand, n int) string {
	b := make([]byte, random.IntN(n)+1)
	for i := range b {
		b[i] = byte(0x21 + random.IntN(0x7F-0x21))
	}
	return string(b)
}

func randomSeq(random *rand.Rand) uint64 {
	return max(1, random.Uint64()>>random.IntN(64))
}

func TestRequestRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		req := Request{Seq: randomSeq(random), Address: randomWord(random, MaxAddress), Key: mustKey(t, randomWord(random, MaxKey))}
		got, err := ParseRequest(checkLine(t, req.Append(nil)))
		if err != nil || !reflect.DeepEqual(got, req) {
			t.Fatalf("%+v became %+v, %v", req, got, err)
		}
	}
}

func TestReplyRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	for range 5000 {
		r := Reply{Seq: randomSeq(random)}
		switch random.IntN(5) {
		case 0:
			r.Verdict, r.Seq, r.Code = Error, 0, CodeTooLong
		case 1:
			r.Verdict, r.Code, r.Text = Error, Code(randomWord(random, 20)), randomWord(random, 20)+" "+randomWord(random, 1900)
		case 2:
			r.Verdict, r.Address = InvalidKey, randomWord(random, MaxAddress)
		case 3:
			r.Verdict, r.Address = TempFail, randomWord(random, MaxAddress)
		case 4:
			r.Verdict, r.Address, r.HasTTL = ValidKey, randomWord(random, MaxAddress), true
			r.TTL = time.Duration(random.IntN(math.MaxInt32)) * time.Second
		}
		got, err := ParseReply(checkLine(t, r.Append(nil)))
		if err != nil || got != r {
			t.Fatalf("%+v became %+v, %v", r, got, err)
		}
	}
}

// Only the words of version 1 may be logged.
func TestKnownCodes(t *testing.T) {
	for code, want := range map[Code]bool{
		CodeSyntax: true, CodeTooLong: true, CodeBusy: true, CodeNotServed: true, "": false, "Busy": false, "busy ": false, "AQIDBAUGBwgJ": false,
	} {
		if got := code.Known(); got != want {
			t.Errorf("%q is known: %v", code, got)
		}
	}
}
