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

// DefaultEntries is the size of the Cache that a Verifier makes for itself, in addresses.
const DefaultEntries = 1_000_000

// A digest is of an (address, key) pair: the first half of an HMAC-SHA-256,
// which RFC 2104 section 5 allows, under a secret that only this Cache has.
type digest [16]byte

// maxIndex is the longest address that a Cache holds as it is; of a longer one it holds a
// digest. An address may have 1024 octets: without this, the owner of a domain could make
// the cache several times as large as its number of entries promises.
const maxIndex = 64

// A Cache remembers for each sender address the key last found valid, and until
// when (docs/protocol.md section 6). It holds digests, never a key, and at most
// as many addresses as it was made for: some 230 octets each, 270 where addresses
// are long. Give it to the next Verifier (Options.Cache), so that a reload does not
// empty it. It is safe for concurrent use.
type Cache struct {
	keys    *boundedMap[digest]
	hashers sync.Pool // of *hasher: setting up an HMAC costs as much as using it
}

type hasher struct {
	mac hash.Hash
	buf []byte
	sum [sha256.Size]byte
}

// NewCache makes a Cache for at most entries addresses. With 0 it remembers nothing.
func NewCache(entries int) *Cache {
	secret := make([]byte, sha256.Size)
	rand.Read(secret) // never fails
	c := &Cache{keys: newBoundedMap[digest](entries)}
	c.hashers.New = func() any {
		return &hasher{mac: hmac.New(sha256.New, secret), buf: make([]byte, 0, 256)}
	}
	return c
}

// Len returns the number of addresses remembered, expired ones included.
func (c *Cache) Len() int { return c.keys.len() }

// Flush forgets the address, and reports whether it was known. The next message from the
// address is verified by an AS again.
func (c *Cache) Flush(address Address) bool { return c.keys.remove(c.index(address)) }

// index is the key of an address in the map. Should two addresses have the same index, one
// would still not pass with the other's AuthKey, since the digest has the address in it.
func (c *Cache) index(address Address) string {
	if text := address.String(); len(text) <= maxIndex {
		return text
	}
	d := c.digest(address, Key{})
	return string(d[:])
}

// digest computes the digest of the pair.
func (c *Cache) digest(address Address, key Key) (d digest) {
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

// valid reports whether the pair whose digest is d is known to be valid, and for how much
// longer.
func (c *Cache) valid(address Address, d digest) (ttl time.Duration, ok bool) {
	known, ttl, ok := c.keys.get(c.index(address), time.Now())
	if !ok || !hmac.Equal(known[:], d[:]) {
		return 0, false
	}
	return ttl, true
}

// has reports whether some key of the address is known to be valid.
func (c *Cache) has(address Address) bool {
	n := c.keys.find(c.index(address))
	return n != nil && n.ends.left(time.Now()) > 0
}

// ttl returns for how long a VALIDKEY may be relied on: what the AS says, or
// Options.DefaultTTL, and Options.MaxTTL at most (docs/protocol.md section 6).
func (v *Verifier) ttl(reply wire.Reply) time.Duration {
	ttl := v.defaultTTL
	if reply.HasTTL {
		ttl = reply.TTL
	}
	return min(ttl, v.maxTTL)
}

// put takes note of a VALIDKEY. A ttl of 0 means that the AS wants to be asked
// each time: then the address is forgotten.
func (c *Cache) put(address Address, d digest, ttl time.Duration) {
	if ttl <= 0 {
		c.keys.remove(c.index(address))
		return
	}
	now := time.Now()
	c.keys.put(c.index(address), d, now, now.Add(ttl))
}
