package verifier

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// DefaultEntries is how many addresses a Cache holds unless told otherwise.
const DefaultEntries = 1_000_000

// A digest stands for an (address, key) pair: the first half of an HMAC-SHA-256,
// which RFC 2104 section 5 allows, under a secret that lives and dies with the Cache.
type digest [16]byte

// maxName is the longest address that a Cache holds as it is. An address may have
// 1024 octets, so that somebody with a domain could have made the cache several times
// as large as its number of entries promises.
const maxName = 64

// A Cache remembers for each sender address the key last found valid, and until
// when (docs/protocol.md section 6). It holds digests, never a key, and at most
// as many addresses as it was made for: some 230 octets each, 270 where addresses
// are long. It may be shared
// by Verifiers that follow each other, and is safe for concurrent use.
type Cache struct {
	valid   *sieve[digest]
	hashers sync.Pool // of *hasher: setting up an HMAC costs as much as using it
}

type hasher struct {
	mac hash.Hash
	buf []byte
	sum [sha256.Size]byte
}

// NewCache makes a Cache for so many addresses. With 0 it remembers nothing.
func NewCache(entries int) *Cache {
	secret := make([]byte, sha256.Size)
	rand.Read(secret) // never fails
	c := &Cache{valid: newSieve[digest](entries)}
	c.hashers.New = func() any {
		return &hasher{mac: hmac.New(sha256.New, secret), buf: make([]byte, 0, 256)}
	}
	return c
}

// Len returns the number of addresses remembered, those whose time is over included.
func (c *Cache) Len() int { return c.valid.len() }

// Flush forgets the address, and reports whether it was known. The next message
// from it is asked about.
func (c *Cache) Flush(address wire.Address) bool { return c.valid.remove(c.name(address)) }

// name is what an address is found under. Two that had the same one would still not
// have each other's keys.
func (c *Cache) name(address wire.Address) string {
	if text := address.String(); len(text) <= maxName {
		return text
	}
	d := c.digest(address, wire.Key{})
	return string(d[:])
}

// digest computes what stands for the pair.
func (c *Cache) digest(address wire.Address, key wire.Key) (d digest) {
	h := c.hashers.Get().(*hasher)
	buf := h.buf[:0]
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(address.String())))
	buf = append(buf, address.String()...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(key.Reveal())))
	buf = append(buf, key.Reveal()...)
	h.mac.Write(buf)
	copy(d[:], h.mac.Sum(h.sum[:0]))
	h.mac.Reset()
	clear(buf) // it held the key
	h.buf = buf
	c.hashers.Put(h)
	return d
}

// pass reports whether the pair that d stands for is known to be valid, and for
// how much longer.
func (c *Cache) pass(address wire.Address, d digest) (ttl time.Duration, ok bool) {
	known, ttl, ok := c.valid.get(c.name(address), time.Now())
	if !ok || !hmac.Equal(known[:], d[:]) {
		return 0, false
	}
	return ttl, true
}

// knows reports whether some key of the address is known to be valid.
func (c *Cache) knows(address wire.Address) bool {
	n := c.valid.find(c.name(address))
	return n != nil && n.ends.left(time.Now()) > 0
}

// found takes note of a VALIDKEY. A ttl of 0 means that the AS wants to be asked
// each time: then nothing is known of the address any more.
func (c *Cache) found(address wire.Address, d digest, ttl time.Duration) {
	if ttl <= 0 {
		c.valid.remove(c.name(address))
		return
	}
	now := time.Now()
	c.valid.put(c.name(address), d, now, now.Add(ttl))
}
