package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// A bare reader negotiates what authkey-milter does, reads frames without looking
// into them, and answers every message with the same changes. It is the least that
// a filter in Go can cost.
const (
	readerActions = 0x1 | 0x10 | 0x20 | setMacros // add, change, quarantine
	readerOptions = noBody | noData | noHelo | noEOH | 0x100 | nrHeader | nrConnect | nrHelo | nrMail | nrRcpt |
		nrData | 0x20000 | nrEOH | nrBody
	readerBuffer = 16 << 10

	// noMacro is one that nobody sets, asked for so that none comes with each field.
	noMacro = "{authkey_none}"
)

func serveReader(ctx context.Context, socket string) error {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return serve(ctx, ln, readFrames)
}

// serve has answer serve each connection until ctx ends, and closes ln.
func serve(ctx context.Context, ln net.Listener, answer func(net.Conn) error) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		// The process ends with its listener; connections need no other owner.
		go func() {
			defer c.Close()
			answer(c)
		}()
	}
}

// readerAgreement is its negotiation frame, with macros like authkey-milter's.
func readerAgreement() []byte {
	data := binary.BigEndian.AppendUint32(nil, version)
	data = binary.BigEndian.AppendUint32(data, readerActions)
	data = binary.BigEndian.AppendUint32(data, readerOptions)
	for _, list := range []struct {
		stage uint32
		names string
	}{{0, "j {daemon_name} {client_addr} _"}, {2, "i {auth_authen}"}, {5, "i"}, {6, noMacro}} {
		data = binary.BigEndian.AppendUint32(data, list.stage)
		data = append(data, list.names+"\x00"...)
	}
	return appendFrame(nil, 'O', string(data))
}

// readerAnswer is two changes and an acceptance.
func readerAnswer() []byte {
	answer := appendFrame(nil, 'm', "\x00\x00\x00\x01X-Auth-Key\x00\x00")
	answer = appendFrame(answer, 'i', "\x00\x00\x00\x00Authentication-Results\x00"+
		"mx.test;\n\tx-authkey=pass smtp.mailfrom=user+0000000@bench.test\x00")
	return appendFrame(answer, 'a', "")
}

// readFrames serves one connection until it ends.
func readFrames(c net.Conn) error {
	r := bufio.NewReaderSize(c, readerBuffer)
	agreement, answer := readerAgreement(), readerAnswer()
	for {
		head, err := r.Peek(5)
		if err != nil {
			return err
		}
		size, code := 4+int(binary.BigEndian.Uint32(head)), head[4]
		if size < 5 {
			return errors.New("frame of length 0")
		}
		if _, err := r.Discard(size); err != nil {
			return err
		}
		switch code {
		case 'O':
			_, err = c.Write(agreement)
		case 'E':
			_, err = c.Write(answer)
		case 'Q':
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}
