package report

import (
	"bytes"
	"encoding/json"
	"regexp"
)

// What log collectors put before a line. Each is matched only at the beginning of a line, so
// that nothing within a line of another program is taken for a line of ours.
var (
	colour    = regexp.MustCompile(`^(?:\x1b\[[0-9;]*m)+`)
	timestamp = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,+Z-]{8,32} `)
	criStream = regexp.MustCompile(`^(?:stdout|stderr) ([FP])[^ ]* `)                                                        // containerd, CRI-O: "P" goes on in the next line
	compose   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]{0,100} *\| ?`)                                               // docker compose logs
	kubectl   = regexp.MustCompile(`^\[[A-Za-z0-9./_-]{1,300}\] `)                                                           // kubectl logs --prefix
	rfc5424   = regexp.MustCompile(`^<[0-9]{1,3}>1(?: [^ ]+){5} (?:-|(?:\[(?:[^\]"]|"(?:[^"\\]|\\.)*")*\])+) (?:\x{feff})?`) // time, host, program, process, message id, structured data
	priority  = regexp.MustCompile(`^<[0-9]{1,3}>`)                                                                          // RFC 3164
)

// journalField begins a message in journalctl's export and verbose forms.
var journalField = []byte("MESSAGE=")

// maxHeaders bounds how many collectors a line came through.
const maxHeaders = 6

// withoutHeader cuts what log collectors put before a line; nil for what is no line of
// ours.
func withoutHeader(line []byte) []byte {
	for range maxHeaders {
		if len(line) == 0 || bytes.HasPrefix(line, logfmtStart) || line[0] == '{' {
			return line
		}
		header := 0
		switch c := line[0]; {
		case c == '\x1b':
			header = len(colour.Find(line))
		case c == '<':
			if header = len(rfc5424.Find(line)); header == 0 {
				header = len(priority.Find(line))
			}
		case c == '[':
			header = len(kubectl.Find(line))
		case '0' <= c && c <= '9':
			header = len(timestamp.Find(line))
		case c == ' ' || c == 'M':
			if text := bytes.TrimLeft(line, " "); bytes.HasPrefix(text, journalField) {
				header = len(line) - len(text) + len(journalField)
			}
		}
		if header == 0 {
			header = len(compose.Find(line))
		}
		if header == 0 { // syslog, or journalctl: it ends at the first colon with a blank
			at := bytes.Index(line, []byte(": "))
			if at < 0 {
				return nil
			}
			if line = line[at+2:]; !bytes.HasPrefix(line, logfmtStart) && (len(line) == 0 || line[0] != '{') {
				return nil
			}
			return line
		}
		line = line[header:]
	}
	return nil
}

// contained returns what a container wrote of a line of its log: of CRI's form or
// Docker's. partial says that the line goes on in the next one.
func contained(line []byte) (text []byte, partial, ok bool) {
	if len(line) > 0 && '0' <= line[0] && line[0] <= '9' {
		rest := line[len(timestamp.Find(line)):]
		if m := criStream.FindSubmatch(rest); m != nil && len(rest) < len(line) {
			return rest[len(m[0]):], m[1][0] == 'P', true
		}
	}
	if !bytes.HasPrefix(line, []byte(`{"log":"`)) {
		return nil, false, false
	}
	var docker struct{ Log string }
	if json.Unmarshal(line, &docker) != nil {
		return nil, false, false
	}
	text, whole := bytes.CutSuffix([]byte(docker.Log), []byte("\n"))
	return text, !whole, true
}

// journaled returns the message in an object of journalctl -o json.
func journaled(object []byte) []byte {
	var entry struct {
		Message *string `json:"MESSAGE"`
	}
	if !bytes.Contains(object, []byte(`"MESSAGE"`)) || json.Unmarshal(object, &entry) != nil || entry.Message == nil {
		return nil
	}
	return []byte(*entry.Message)
}
