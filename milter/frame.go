package milter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
)

// Sizes of frames. libmilter sends chunks of at most 64 KiB; with SMFIP_MDS_1M an
// MTA may send 1 MiB. A header field arrives in one frame with its name.
const (
	frameHeader = 4             // the length, big-endian
	maxFrame    = 1<<20 + 4<<10 // command and data
	minOptNeg   = 1 + 3*4       // command, version, actions, protocol
	macroHead   = 2             // 'D' and the command it belongs to
	fieldParts  = 2             // name and value
)

// A frameError says why a frame was refused. It holds nothing of the frame's
// data, which may be a key.
type frameError struct {
	command byte
	problem string
}

func (e *frameError) Error() string {
	if e.command == 0 {
		return "malformed milter frame: " + e.problem
	}
	return fmt.Sprintf("malformed milter frame %q: %s", e.command, e.problem)
}

// frameLength reads and checks the length of the frame that begins at b.
func frameLength(b []byte) (int, error) {
	n := binary.BigEndian.Uint32(b)
	if n == 0 {
		return 0, &frameError{problem: "length 0"}
	}
	if n > maxFrame {
		return 0, &frameError{problem: fmt.Sprintf("length %d, more than %d", n, maxFrame)}
	}
	return int(n), nil
}

// noAddress is the IPv6 address of a client whose address is not known.
const noAddress = "::"

// forgetBadAddress gives a CONNECT whose address is none the one that means none,
// in place. Postfix says family 4 and "unknown" where a proxy told it no more; the
// library would close the connection, and all such mail would be deferred for ever.
// frame is a checked one.
func forgetBadAddress(frame []byte) {
	const familyAndPort = 1 + 2
	if frame[0] != 'C' {
		return
	}
	rest := frame[1+bytes.IndexByte(frame[1:], 0)+1:]
	if family := rest[0]; family != '4' && family != '6' || len(rest) < familyAndPort+len(noAddress)+1 {
		return
	}
	address, _, _ := bytes.Cut(rest[familyAndPort:], []byte{0})
	address = bytes.Trim(bytes.TrimPrefix(address, []byte("IPv6:")), "[]")
	if ip := net.ParseIP(string(address)); ip == nil || rest[0] == '4' && ip.To4() == nil {
		rest[0] = '6'
		copy(rest[familyAndPort:], noAddress+"\x00")
	}
}

// checkFrame refuses what go-milter would panic on or misread: an unknown
// command, or data without the terminators which that command's reader expects.
// frame is command and data.
func checkFrame(frame []byte) error {
	command, data := frame[0], frame[1:]
	bad := func(problem string) error { return &frameError{command, problem} }
	switch command {
	case 'O':
		if len(frame) < minOptNeg {
			return bad("too short")
		}
	case 'C':
		host := bytes.IndexByte(data, 0)
		if host < 0 {
			return bad("host name without terminator")
		}
		if len(data)-host-1 < 1 {
			return bad("no address family")
		}
	case 'M', 'R':
		if bytes.IndexByte(data, 0) < 0 {
			return bad("address without terminator")
		}
	case 'H', 'U':
		if len(data) == 0 {
			return bad("empty")
		}
	case 'L':
		if parts := bytes.Count(bytes.TrimSuffix(data, []byte{0}), []byte{0}) + 1; parts != fieldParts {
			return bad("not a name and a value")
		}
	case 'D':
		if len(frame) < macroHead {
			return bad("empty")
		}
	case 'A', 'B', 'E', 'K', 'N', 'Q', 'T':
	default:
		return bad("unknown command")
	}
	return nil
}
