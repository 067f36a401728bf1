package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readBuffer holds what one read of a normal message brings: envelope, macros
	// and header of most mail fit. It is the better part of what an idle
	// connection costs.
	readBuffer = 8 << 10
	// holdBytes is how much may be held back for the MTA before it is sent
	// without waiting for the next read.
	holdBytes = 32 << 10
	// writeTimeout bounds one flush; an MTA that is there reads at once.
	writeTimeout = 10 * time.Second
	// negotiateTimeout bounds the wait for an MTA's first frame.
	negotiateTimeout = 10 * time.Second
	// deadlineSlack is how stale a read deadline may be before it is renewed;
	// setting it for each frame costs as much as parsing the frame.
	deadlineSlack = 2 * time.Second
)

// conn is the connection under go-milter. For every byte it does four things:
// it reads through a buffer and lets a frame through only when all of it has
// arrived and is well formed (the library allocates what a frame claims to be,
// and panics on some); it holds writes until the next read has to wait, so that a
// message's deletions, insertion and answer leave in one packet; it keeps
// TCP_QUICKACK on, since MTAs write small packets and delayed acknowledgements
// would cost 40 ms each; and it bounds how long a silent MTA is waited for.
//
// Two more save time, where the library would allocate seven times for each header
// field and build a chain of transformers for each change: fields to which the MTA
// expects no reply go straight to the session, and changes come straight from it.
//
// It is used by the one goroutine that the library runs per connection; only
// Close may come from another.
type conn struct {
	net.Conn
	raw  syscall.RawConn // of a TCP connection, for TCP_QUICKACK
	idle time.Duration

	in         []byte // buffer
	start, end int    // what of in has been read and not been handed on
	ready      int    // how much of that belongs to a checked frame

	out      []byte      // held back
	held     atomic.Bool // whether out has anything, for those who must not close yet
	outLeft  int         // bytes of the frame being written which are still to come
	flushNow bool        // the frame being written must not be held back

	negotiated bool // the first frame has been answered

	fields func(name, value []byte) // takes header fields; nil: the library does

	deadline  time.Time   // the read deadline in force
	onRefusal func(error) // called once, when a frame is refused
	onClose   func()
	closed    sync.Once
}

// newConn wraps an accepted connection. idle bounds how long one frame, from the
// wait for it to its last byte, may take.
func newConn(c net.Conn, idle time.Duration, onRefusal func(error), onClose func()) *conn {
	wrapped := &conn{Conn: c, idle: idle, onRefusal: onRefusal, onClose: onClose}
	if tcp, ok := c.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			wrapped.raw = raw
		}
	}
	wrapped.quickAck()
	// The first frame has a deadline of its own, shorter than idle.
	wrapped.deadline = time.Now().Add(min(idle, negotiateTimeout))
	_ = c.SetReadDeadline(wrapped.deadline)
	return wrapped
}

// quickAck asks for immediate acknowledgements. The option is not sticky: the
// kernel takes it back as it sees fit, hence after every read.
func (c *conn) quickAck() {
	if c.raw == nil {
		return
	}
	_ = c.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	})
}

// Read hands on bytes of checked frames only.
func (c *conn) Read(p []byte) (int, error) {
	for c.ready == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
		if frame := c.in[c.start+frameHeader : c.start+c.ready]; c.fields != nil && frame[0] == 'L' {
			name, value, _ := bytes.Cut(frame[1:], nul)
			c.fields(name, bytes.TrimSuffix(value, nul))
			c.start += c.ready
			c.ready = 0
		}
	}
	n := copy(p, c.in[c.start:c.start+min(c.ready, len(p))])
	c.start += n
	c.ready -= n
	return n, nil
}

var nul = []byte{0}

// nextFrame reads until a whole frame is in the buffer, and checks it.
func (c *conn) nextFrame() error {
	if c.start == c.end {
		c.start, c.end = 0, 0
		if cap(c.in) > readBuffer { // do not hold the memory of one big frame
			c.in = nil
		}
	}
	if err := c.fill(frameHeader); err != nil {
		return err
	}
	length, err := frameLength(c.in[c.start:])
	if err == nil {
		if err := c.fill(frameHeader + length); err != nil {
			return err
		}
		err = checkFrame(c.in[c.start+frameHeader : c.start+frameHeader+length])
	}
	if err != nil {
		c.onRefusal(err)
		return err
	}
	c.ready = frameHeader + length
	forgetBadAddress(c.in[c.start+frameHeader : c.start+c.ready])
	return nil
}

// fill reads until at least n bytes are buffered. The buffer grows only as bytes
// arrive: a frame that claims to be large costs nothing until it is.
func (c *conn) fill(n int) error {
	for c.end-c.start < n {
		if c.start > 0 && c.end == len(c.in) {
			c.end = copy(c.in, c.in[c.start:c.end])
			c.start = 0
		}
		if c.end == len(c.in) {
			c.grow(n)
		}
		if err := c.flush(); err != nil {
			return err
		}
		c.renewDeadline()
		got, err := c.Conn.Read(c.in[c.end:])
		c.quickAck()
		c.end += got
		if err != nil && c.end-c.start < n {
			if errors.Is(err, io.EOF) && c.end > c.start {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// buffers are those of connections that have ended.
var buffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// grow enlarges the buffer, towards a frame of n bytes.
func (c *conn) grow(n int) {
	if c.in == nil {
		c.in = buffers.Get().(*[readBuffer]byte)[:]
		return
	}
	grown := make([]byte, max(readBuffer, min(2*len(c.in), n)))
	copy(grown, c.in[:c.end])
	c.in = grown
}

// recycle gives the buffer to others. The reading goroutine calls it when it will
// not read again.
func (c *conn) recycle() {
	if len(c.in) == readBuffer {
		clear(c.in) // of keys
		buffers.Put((*[readBuffer]byte)(c.in))
	}
	c.in, c.start, c.end, c.ready = nil, 0, 0, 0
}

// renewDeadline gives the next frame its time. Within a frame the deadline stays,
// so that the time is a total and not one per byte; so does that of the first one.
func (c *conn) renewDeadline() {
	if c.end > c.start || !c.negotiated {
		return
	}
	now := time.Now()
	if want := now.Add(c.idle); want.Sub(c.deadline) > deadlineSlack {
		c.deadline = want
		_ = c.Conn.SetReadDeadline(want)
	}
}

// Write holds p back until the next read has to wait. A progress packet is sent at once: it
// tells the MTA that we are still busy.
func (c *conn) Write(p []byte) (int, error) {
	if c.outLeft == 0 && len(p) > frameHeader {
		// The library writes length and command in one call, data in the next.
		c.outLeft = frameHeader + int(binary.BigEndian.Uint32(p))
		c.flushNow = p[frameHeader] == 'p'
	}
	c.outLeft -= min(len(p), c.outLeft)
	c.out = append(c.out, p...)
	c.held.Store(true)
	c.negotiated = c.negotiated || c.outLeft == 0
	if len(c.out) > holdBytes || c.flushNow && c.outLeft == 0 {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// maxChange bounds one change: what every MTA takes in a frame.
const maxChange = 64 << 10

// change holds back a modification of the header: 'm' to change the field of that
// name and index, 'i' to insert one at the index.
func (c *conn) change(code byte, index int, name, value string) error {
	if strings.IndexByte(name, 0) >= 0 || strings.IndexByte(value, 0) >= 0 || strings.IndexByte(value, '\r') >= 0 {
		return errors.New("header change with octets that an MTA would misread")
	}
	size := 1 + 4 + len(name) + 1 + len(value) + 1
	if size > maxChange {
		return fmt.Errorf("header change of %d octets, more than %d", size, maxChange)
	}
	out := binary.BigEndian.AppendUint32(c.out, uint32(size))
	out = append(out, code)
	out = binary.BigEndian.AppendUint32(out, uint32(index))
	out = append(append(out, name...), 0)
	c.out = append(append(out, value...), 0)
	c.held.Store(true)
	if len(c.out) > holdBytes {
		return c.flush()
	}
	return nil
}

func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.Conn.Write(c.out)
	if cap(c.out) > readBuffer {
		c.out = nil
	} else {
		c.out = c.out[:0]
	}
	c.held.Store(false)
	return err
}

// Close closes the connection and gives up its place among them.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.closed.Do(func() {
		err = c.Conn.Close()
		c.onClose()
	})
	return err
}

// SetReadDeadline is the library's; deadlines are ours.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is the library's; deadlines are ours.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// Sizes of frames. libmilter sends chunks of at most 64 KiB; with SMFIP_MDS_1M an
// MTA may send 1 MiB. A header field arrives in one frame with its name.
const (
	frameHeader = 4             // the length, big-endian
	maxFrame    = 1<<20 + 4<<10 // command and data
	minOptNeg   = 1 + 3*4       // command, version, actions, protocol
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
// library would close the connection, and such mail would be deferred each time.
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
	address, _, _ := bytes.Cut(rest[familyAndPort:], nul)
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
	_, rest, terminated := bytes.Cut(data, nul)
	problem := ""
	switch {
	case command == 'O' && len(frame) < minOptNeg:
		problem = "too short"
	case command == 'C' && !terminated:
		problem = "host name without terminator"
	case command == 'C' && len(rest) == 0:
		problem = "no address family"
	case (command == 'M' || command == 'R') && !terminated:
		problem = "address without terminator"
	case (command == 'H' || command == 'U' || command == 'D') && len(data) == 0:
		problem = "empty"
	case command == 'L' && bytes.Count(bytes.TrimSuffix(data, nul), nul) != 1:
		problem = "not a name and a value"
	case strings.IndexByte("ABCDEHKLMNOQRTU", command) < 0:
		problem = "unknown command"
	default:
		return nil
	}
	return &frameError{command, problem}
}
