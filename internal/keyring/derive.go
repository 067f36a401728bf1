package keyring

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"hash"
	"strings"
)

// Layout of a key's text.
const (
	hintLen = 2                  // characters that tell the epoch
	macSize = 20                 // octets of the MAC that are used: 160 bits
	keyLen  = hintLen + 32       // 20 octets are 32 characters
	hints   = 1 << (5 * hintLen) // epochs that the hint tells apart
)

// keyLabel is the beginning of what is authenticated: a MAC that the same secret made for
// another purpose is never a key.
const keyLabel = "authkey/1 key\n"

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

var base32Text = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// A claim is what a key is derived from, besides the secret.
type claim struct {
	domain string
	local  string // mapped: see Form
	gen    uint32
	epoch  int64
}

// A deriver is a keyed HMAC with its buffers. It is kept, since keying it costs as much as
// the MAC of a short text.
type deriver struct {
	mac hash.Hash
	in  []byte
	sum [sha256.Size]byte
}

func newDeriver(key []byte) *deriver { return &deriver{mac: hmac.New(sha256.New, key)} }

// derive returns the text of the claim's key under s.
func (s *secret) derive(c claim) (text [keyLen]byte) {
	d := s.pool.Get().(*deriver)
	// Every part is of fixed length or has its length before it: no two claims
	// make the same octets.
	in := append(d.in[:0], keyLabel...)
	in = binary.BigEndian.AppendUint16(in, uint16(len(c.domain)))
	in = append(in, c.domain...)
	in = binary.BigEndian.AppendUint16(in, uint16(len(c.local)))
	in = append(in, c.local...)
	in = binary.BigEndian.AppendUint32(in, c.gen)
	in = binary.BigEndian.AppendUint64(in, uint64(c.epoch))
	d.in = in

	d.mac.Reset()
	d.mac.Write(in)
	sum := d.mac.Sum(d.sum[:0])
	hint := uint64(c.epoch) % hints
	text[0] = alphabet[hint>>5]
	text[1] = alphabet[hint&31]
	base32Text.Encode(text[hintLen:], sum[:macSize])
	s.pool.Put(d)
	return text
}

// matches reports, as 1 or 0 and in constant time, whether text is the key of the claim
// under any of the secrets. It always tries all of them: one HMAC each.
func (r *ring) matches(text string, c claim) int {
	var given [keyLen]byte
	sameLen := subtle.ConstantTimeEq(int32(len(text)), keyLen)
	copy(given[:], text)
	found := 0
	for _, s := range r.secrets {
		want := s.derive(c)
		found |= subtle.ConstantTimeCompare(want[:], given[:])
	}
	return found & sameLen
}

// hintedEpoch returns the epoch to which the key's text can belong: newest, or one of the
// 1023 before it. For a text that is no key of ours it returns some epoch all the same, so
// that such a text takes as much time as a key.
func hintedEpoch(text string, newest int64) int64 {
	hint := int64(0)
	if len(text) >= hintLen {
		hi := strings.IndexByte(alphabet, text[0])
		lo := strings.IndexByte(alphabet, text[1])
		hint = int64(max(hi, 0)<<5 | max(lo, 0))
	}
	back := (newest - hint) % hints
	if back < 0 {
		back += hints
	}
	return newest - back
}
