package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// specification is the document whose appendix B holds the vectors.
const specification = "../../docs/protocol.md"

// leastVectors is how many vectors each block must have at least.
const leastVectors = 15

// vectorKinds says for each kind of block what this package makes of the inputs.
var vectorKinds = map[string]func(inputs []string) string{
	"address": func(in []string) string { return addressOutput(in[0]) },
	"encoded": func(in []string) string { return encodedOutput(in[0]) },
	"record":  func(in []string) string { return recordOutput(in[0]) },
	"set":     setOutput,
	"request": func(in []string) string { return requestOutput(in[0]) },
	"reply":   func(in []string) string { return replyOutput(in[0]) },
	"key":     keyOutput,
}

func TestVectors(t *testing.T) {
	blocks, err := loadVectors()
	if err != nil {
		t.Fatal(err)
	}
	for kind, output := range vectorKinds {
		t.Run(kind, func(t *testing.T) {
			vectors := blocks[kind]
			if len(vectors) < leastVectors {
				t.Fatalf("%s has %d vectors %s, want %d or more", specification, len(vectors), kind, leastVectors)
			}
			for _, v := range vectors {
				if kind != "set" && kind != "key" && len(v.inputs) != 1 {
					t.Errorf("line %d: %d inputs, want 1", v.line, len(v.inputs))
					continue
				}
				if got := output(v.inputs); got != v.output {
					t.Errorf("line %d: %.300q\n got: %.300s\nwant: %.300s", v.line, v.inputs, got, v.output)
				}
			}
		})
	}
	for kind := range blocks {
		if vectorKinds[kind] == nil {
			t.Errorf("%s has vectors of a kind that nothing checks: %s", specification, kind)
		}
	}
}

// A vector is one line of a block. The strings of its output are evaluated and
// quoted again in one spelling.
type vector struct {
	line   int
	inputs []string
	output string
}

// loadVectors reads all blocks of the specification. A line that is no vector,
// a block that never ends and a kind that comes twice are errors.
func loadVectors() (map[string][]vector, error) {
	text, err := os.ReadFile(specification)
	if err != nil {
		return nil, err
	}
	blocks := make(map[string][]vector)
	kind, number := "", 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSuffix(line, "\n")
		info, opens := strings.CutPrefix(line, "```vectors ")
		switch {
		case opens:
			if _, again := blocks[info]; again || kind != "" {
				return nil, fmt.Errorf("line %d: a second block %q, or one within another", number, info)
			}
			kind, blocks[info] = info, nil
		case line == "```":
			kind = ""
		case kind == "", line == "", strings.HasPrefix(line, "#"):
		default:
			v, err := parseVector(line)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w: %s", number, err, line)
			}
			v.line = number
			blocks[kind] = append(blocks[kind], v)
		}
	}
	if kind != "" {
		return nil, fmt.Errorf("block %q does not end", kind)
	}
	return blocks, nil
}

func parseVector(line string) (vector, error) {
	var v vector
	rest := line
	for {
		in, after, err := parseString(rest)
		if err != nil {
			return v, err
		}
		v.inputs = append(v.inputs, in)
		var more bool
		if rest, more = strings.CutPrefix(after, ", "); !more {
			break
		}
	}
	output, ok := strings.CutPrefix(rest, " => ")
	if !ok || output == "" {
		return v, errors.New("no output after the inputs")
	}
	for output != "" {
		before, _, found := strings.Cut(output, `"`)
		v.output += before
		if !found {
			break
		}
		s, after, err := parseString(output[len(before):])
		if err != nil {
			return v, err
		}
		v.output += strconv.QuoteToASCII(s)
		output = after
	}
	return v, nil
}

var repetition = regexp.MustCompile(`^\*([0-9]{1,4})`)

// parseString evaluates a string such as "a"*3 + "b" at the start of s.
func parseString(s string) (value, rest string, err error) {
	for {
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil || quoted[0] != '"' {
			return "", "", errors.New("not a string in double quotes")
		}
		piece, err := strconv.Unquote(quoted)
		if err != nil {
			return "", "", err
		}
		s = s[len(quoted):]
		if m := repetition.FindStringSubmatch(s); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				return "", "", err
			}
			piece, s = strings.Repeat(piece, n), s[len(m[0]):]
		}
		value += piece
		after, more := strings.CutPrefix(s, " + ")
		if !more {
			return value, s, nil
		}
		s = after
	}
}

func TestParseVectorRefuses(t *testing.T) {
	for _, line := range []string{
		``, `x`, `"a"`, `"a" =>`, `"a" => `, `"a" =>x`, `"a => "b"`, `"a" "b" => c`, `"a", => c`, `'a' => c`,
		"`a` => c", `"a" + => c`, `"a"*x => c`, `"a" => "b`, `"\q" => c`, `=> c`,
	} {
		if v, err := parseVector(line); err == nil {
			t.Errorf("parseVector(%q) = %+v, want an error", line, v)
		}
	}
}

func addressOutput(mailbox string) string {
	a, err := ParseAddress(mailbox)
	if err == nil {
		return strconv.QuoteToASCII(a.String())
	}
	for _, reason := range []struct {
		err  error
		name string
	}{
		{ErrNullSender, "null sender"},
		{ErrNoDomain, "no domain"},
		{ErrNoLocalPart, "no local part"},
		{ErrDomainLiteral, "domain literal"},
		{ErrDomain, "bad domain"},
		{ErrAddressSize, "too long"},
	} {
		if errors.Is(err, reason.err) {
			return "none: " + reason.name
		}
	}
	return "none of this package's errors: " + err.Error()
}

func encodedOutput(word string) string {
	a, err := DecodeAddress(word)
	switch {
	case errors.Is(err, ErrDomain), errors.Is(err, ErrDomainLiteral):
		return string(CodeNotServed)
	case err != nil:
		return string(CodeSyntax)
	}
	return strconv.QuoteToASCII(a.String())
}

func recordOutput(txt string) string {
	rec, err := ParseRecord(txt)
	switch {
	case errors.Is(err, ErrNotRecord):
		return "ignored"
	case errors.Is(err, ErrMalformed):
		return "malformed"
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("host=%s port=%d pri=%d tls=%s req=%s", rec.Host, rec.Port, rec.Pri, yesNo(rec.TLS), yesNo(rec.Required))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// setOutput shuffles a few times: servers of one pri are then sorted, so that the
// output differs only where an order is wrong.
func setOutput(txts []string) string {
	set := ParseSet(txts)
	switch {
	case !set.Published():
		return "none"
	case len(set.Records) == 0:
		return "permerror"
	}
	random := rand.New(rand.NewPCG(1, 2))
	output := ""
	for range 8 {
		servers := set.Order(random.Shuffle)
		pri := func(s Server) int {
			return int(set.Records[slices.IndexFunc(set.Records, func(r Record) bool { return r.Server == s })].Pri)
		}
		if !slices.IsSortedFunc(servers, func(a, b Server) int { return pri(a) - pri(b) }) {
			return fmt.Sprintf("not sorted by pri: %v", servers)
		}
		var words []string
		for _, s := range servers {
			words = append(words, fmt.Sprintf("%05d %s", pri(s), s))
		}
		slices.Sort(words)
		for i, w := range words {
			words[i] = strings.TrimLeft(w[:4], "0") + w[4:]
		}
		next := strings.Join(words, ", ") + "; req=" + yesNo(set.Required)
		if output != "" && next != output {
			return fmt.Sprintf("not the same each time: %s and %s", output, next)
		}
		output = next
	}
	return output
}

func requestOutput(line string) string {
	req, err := ParseRequest(line)
	switch {
	case errors.Is(err, ErrSyntax):
		reply := Reply{Seq: req.Seq, Verdict: Error, Code: CodeSyntax}
		return strconv.Quote(strings.TrimSuffix(string(reply.Append(nil)), "\r\n"))
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("seq=%d address=%s key=%s", req.Seq, strconv.QuoteToASCII(req.Address), strconv.QuoteToASCII(req.Key.Reveal()))
}

func replyOutput(line string) string {
	r, err := ParseReply(line)
	switch {
	case errors.Is(err, ErrSyntax):
		return "violation"
	case err != nil:
		return err.Error()
	}
	s := fmt.Sprintf("%s seq=%d", r.Verdict, r.Seq)
	if r.Verdict == Error {
		s += " code=" + string(r.Code)
		if r.Text != "" {
			s += " text=" + strconv.QuoteToASCII(r.Text)
		}
		return s
	}
	s += " address=" + strconv.QuoteToASCII(r.Address)
	if r.HasTTL {
		s += fmt.Sprintf(" ttl=%d", int(r.TTL.Seconds()))
	}
	return s
}

func keyOutput(values []string) string {
	k := JoinKeys(values...)
	switch {
	case k.Bad():
		return "bad"
	case k.IsZero():
		return "none"
	}
	return "key " + strconv.QuoteToASCII(k.Reveal())
}
