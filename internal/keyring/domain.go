package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/wire"
)

// Defaults and limits of a domain's times.
const (
	DefaultAVT   = 24 * time.Hour
	DefaultGrace = 5 * 24 * time.Hour
	DefaultTTL   = time.Hour

	// MinAVT and MaxAVT bound the AVT, which is also a whole number of seconds.
	MinAVT = time.Second
	MaxAVT = 366 * 24 * time.Hour
	// MaxEpochs bounds AVT and grace together, in AVTs, so that the epoch of a key is
	// never ambiguous.
	MaxEpochs = 1000

	// ClockSkew is how far ahead of the server's clock the clock of a machine that
	// attaches keys may be. How far it may be behind depends on the grace.
	ClockSkew = 5 * time.Minute
)

// ErrNoList says that the address list has never been read: it is not known which
// addresses the domain has.
var ErrNoList = errors.New("address list has not been read")

// ErrCutOff says that an address list with addresses in force has become empty without the
// line that says so, or that its last line has lost its end: somebody is writing the file, or
// the disk was full.
var ErrCutOff = errors.New("looks cut off: it is empty or its last line has no end")

// A Config says where a domain's keys come from.
type Config struct {
	Form
	// SecretFile holds one secret or more, a line each: an id, a blank, 32 octets
	// in base64. Only its owner and a group of this process may be able to read it.
	SecretFile string
	// OpenSecret takes a SecretFile that everybody may read, but nobody else may write.
	OpenSecret bool
	// Addresses is "file:" and the path of an address list, or "any": every local
	// part is an address.
	Addresses string
	// AVT is for how long a key is attached; MinAVT to MaxAVT.
	AVT time.Duration
	// Grace is for how much longer it is valid, for mail in queues. Only Verify
	// and KeysAt ask for it.
	Grace time.Duration
	// TTL is for how long a client may rely on the answer that a key is valid;
	// revocation lags as much. Only Verify asks for it.
	TTL time.Duration
}

// A Domain derives and verifies the keys of one domain's addresses. Its methods
// may be called at the same time; Verify and KeyAt never wait for a Reload.
type Domain struct {
	conf Config // Form checked
	path string // of the list; "" means any

	ring atomic.Pointer[ring]
	list atomic.Pointer[table] // nil until it has been read

	mu         sync.Mutex // guards what follows, and one Reload at a time
	secretFile diskfile.Watched
	listFile   diskfile.Watched
}

// Open checks c and reads the secret file. The address list is left to the first Reload, so
// that a program can start while the list is long or cannot be read; until then every
// question fails with ErrNoList. The error may be a *ModeError or a *LineError.
func Open(c Config) (*Domain, error) {
	form, err := c.Form.check()
	if err != nil {
		return nil, err
	}
	c.Form = form
	d := &Domain{conf: c}
	if err := c.checkTimes(); err != nil {
		return nil, fmt.Errorf("domain %s: %w", form.Domain, err)
	}
	if c.Addresses != "any" {
		path, ok := strings.CutPrefix(c.Addresses, "file:")
		if !ok || path == "" {
			return nil, fmt.Errorf("domain %s: addresses %q is neither file:PATH nor any", form.Domain, c.Addresses)
		}
		d.path = path
	}
	d.secretFile.Path = c.SecretFile
	d.listFile.Path = d.path
	info, err := d.reloadSecret(true)
	d.secretFile.Read(info)
	if err != nil {
		return nil, fmt.Errorf("domain %s: %w", form.Domain, err)
	}
	return d, nil
}

func (c Config) checkTimes() error {
	switch {
	case c.AVT < MinAVT || c.AVT > MaxAVT || c.AVT%time.Second != 0:
		return fmt.Errorf("avt %s is not whole seconds from %s to %s", c.AVT, MinAVT, MaxAVT)
	case c.Grace < 0 || c.Grace/c.AVT+1 > MaxEpochs:
		return fmt.Errorf("grace %s is not 0 to %d times the avt", c.Grace, MaxEpochs-1)
	case c.TTL < 0:
		return fmt.Errorf("ttl %s is below zero", c.TTL)
	}
	return nil
}

// Name returns the domain in lower-case A-labels.
func (d *Domain) Name() string { return d.conf.Domain }

// Any reports whether every local part of the domain is an address.
func (d *Domain) Any() bool { return d.path == "" }

// Len returns how many addresses the list in force has; 0 for any.
func (d *Domain) Len() int {
	if t := d.list.Load(); t != nil {
		return t.count
	}
	return 0
}

// Reload reads the secret file and the address list. Where one cannot be read, has a bad
// line, or is a list that looks cut off (ErrCutOff), the previous content stays in force; the
// error names every such file.
func (d *Domain) Reload() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, secretErr := d.reloadSecret(true)
	d.secretFile.Read(info)
	if d.path == "" {
		return d.name(secretErr)
	}
	info, listErr := d.reloadList(true)
	d.listFile.Read(info)
	return d.name(errors.Join(secretErr, listErr))
}

// Refresh is a Reload of those files which have changed since they were read, and
// seem to be whole (see diskfile.Watched). It reports whether it read any. A file with a
// fault is not read again before it changes.
func (d *Domain) Refresh() (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	secretChanged, secretErr := d.secretFile.Refresh(d.reloadSecret)
	listChanged, listErr := false, error(nil)
	if d.path != "" {
		listChanged, listErr = d.listFile.Refresh(d.reloadList)
	}
	return secretChanged || listChanged, d.name(errors.Join(secretErr, listErr))
}

func (d *Domain) name(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("domain %s: %w", d.conf.Domain, err)
}

// reloadSecret reads the secret file, and returns what it was when that began.
func (d *Domain) reloadSecret(bool) (fs.FileInfo, error) {
	r, info, err := loadRing(d.secretFile.Path, d.conf.OpenSecret)
	if err == nil {
		d.ring.Store(r)
	}
	return info, err
}

// reloadList is reloadSecret for the address list. settled says that nobody seems to be
// writing it.
func (d *Domain) reloadList(settled bool) (fs.FileInfo, error) {
	t, info, err := loadTable(d.path, d.conf.Form)
	if err != nil {
		return info, err
	}
	old := d.list.Load()
	cutOff := old != nil && t.summary().CutOff(old.summary(), settled)
	switch {
	case cutOff && t.count == 0:
		return info, fmt.Errorf("address list %s: %w; if that is meant, give it the line \"# empty\"", d.path, ErrCutOff)
	case cutOff:
		return info, fmt.Errorf("address list %s: %w", d.path, ErrCutOff)
	case !t.filled:
		return info, fmt.Errorf("address list %s: %w", d.path, ErrEmptyList)
	}
	d.list.Store(t)
	return info, nil
}

// Unexplained reports whether the list in force has no address and does not say that this
// is meant: it may have been cut off before the process began.
func (d *Domain) Unexplained() bool {
	t := d.list.Load()
	return t != nil && t.summary().Unexplained()
}

// generation returns the generation of an address; of an unknown one, that of some other
// address (see table.generation).
func (d *Domain) generation(local string) (gen uint32, known bool, err error) {
	if d.path == "" {
		return 0, true, nil
	}
	t := d.list.Load()
	if t == nil {
		return 0, false, ErrNoList
	}
	gen, known = t.generation(local)
	return gen, known, nil
}

// epochAt returns the epoch of a time.
func (d *Domain) epochAt(t time.Time) int64 { return t.Unix() / int64(d.conf.AVT/time.Second) }

// attachEnd returns the time from which on the epoch's key is not attached any more.
func (d *Domain) attachEnd(epoch int64) time.Time {
	return time.Unix((epoch+1)*int64(d.conf.AVT/time.Second), 0)
}

// An Issued is a key and its times.
type Issued struct {
	Key    wire.Key
	Secret string    // the id of the secret it was made with
	Until  time.Time // attach it until then
	End    time.Time // it is valid until then, if the server's grace is Config.Grace
}

func (d *Domain) issue(s *secret, c claim) (Issued, error) {
	text := s.derive(c)
	key, err := wire.ParseKey(string(text[:]))
	if err != nil {
		return Issued{}, err
	}
	until := d.attachEnd(c.epoch)
	return Issued{Key: key, Secret: s.id, Until: until, End: until.Add(d.conf.Grace)}, nil
}

// claim says what a key of the address stands for, epoch aside. For an unknown address it is
// made all the same, by the same steps (see table.generation). The error is ErrOtherDomain or
// ErrNoList.
func (d *Domain) claim(a wire.Address) (c claim, known bool, err error) {
	if a.Domain() != d.conf.Domain {
		return claim{}, false, ErrOtherDomain
	}
	local, ok := d.conf.local(a)
	gen, known, err := d.generation(local)
	return claim{domain: d.conf.Domain, local: local, gen: gen}, known && ok, err
}

// claimOfKnown is claim, with ErrUnknownAddress for an unknown address.
func (d *Domain) claimOfKnown(a wire.Address) (claim, error) {
	c, known, err := d.claim(a)
	if err == nil && !known {
		err = ErrUnknownAddress
	}
	return c, err
}

// KeyAt returns the key to attach to mail of the address at the time now. The
// error is ErrOtherDomain, ErrUnknownAddress or ErrNoList.
func (d *Domain) KeyAt(a wire.Address, now time.Time) (Issued, error) {
	c, err := d.claimOfKnown(a)
	if err != nil {
		return Issued{}, err
	}
	c.epoch = d.epochAt(now)
	return d.issue(d.ring.Load().secrets[0], c)
}

// KeyOf returns the key that the address would have at the time now with the generation gen,
// without looking at the list: it is for finding out what another machine's list says. The
// error is ErrOtherDomain, or ErrUnknownAddress for an address that no list can have.
func (d *Domain) KeyOf(a wire.Address, generation uint32, now time.Time) (Issued, error) {
	if a.Domain() != d.conf.Domain {
		return Issued{}, ErrOtherDomain
	}
	local, ok := d.conf.local(a)
	if !ok {
		return Issued{}, ErrUnknownAddress
	}
	return d.issue(d.ring.Load().secrets[0], claim{domain: d.conf.Domain, local: local, gen: generation, epoch: d.epochAt(now)})
}

// KeysAt returns every key of the address that Verify accepts at the time now,
// newest first. Errors are those of KeyAt.
func (d *Domain) KeysAt(a wire.Address, now time.Time) ([]Issued, error) {
	c, err := d.claimOfKnown(a)
	if err != nil {
		return nil, err
	}
	var all []Issued
	secrets := d.ring.Load().secrets
	for c.epoch = d.newestEpoch(now); d.keyEnd(c.epoch).After(now); c.epoch-- {
		for _, s := range secrets {
			k, err := d.issue(s, c)
			if err != nil {
				return nil, err
			}
			all = append(all, k)
		}
	}
	return all, nil
}

// newestEpoch returns the newest epoch of which a key is accepted. It may be the next one:
// the clock of a machine that attaches keys may be ahead.
func (d *Domain) newestEpoch(now time.Time) int64 {
	return d.epochAt(now.Add(min(ClockSkew, d.conf.AVT)))
}

// keyEnd returns the time from which on the epoch's key is invalid.
func (d *Domain) keyEnd(epoch int64) time.Time { return d.attachEnd(epoch).Add(d.conf.Grace) }

// An Answer is what Verify finds.
type Answer struct {
	Valid bool
	// TTL is for how long a client may rely on a Valid: Config.TTL, or less where
	// the key ends before; whole seconds.
	TTL time.Duration
}

// Verify tells whether the key is the address's at the time now. The error is
// ErrNoList or ErrOtherDomain.
//
// An unknown address, a wrong key and a key that has ended take the same steps:
// one look-up, and one HMAC for each secret of the file (4 at most), whatever AVT
// and grace are.
func (d *Domain) Verify(a wire.Address, key wire.Key, now time.Time) (Answer, error) {
	c, known, err := d.claim(a) // of an unknown address a key is derived all the same
	if err != nil {
		return Answer{}, err
	}
	text := key.Reveal()
	c.epoch = hintedEpoch(text, d.newestEpoch(now))
	match := d.ring.Load().matches(text, c)
	left := d.keyEnd(c.epoch).Sub(now)
	if match != 1 || !known || left <= 0 {
		return Answer{}, nil
	}
	return Answer{Valid: true, TTL: min(d.conf.TTL, left).Truncate(time.Second)}, nil
}
