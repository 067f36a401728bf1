package verifier

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

func BenchmarkVerifyCached(b *testing.B) {
	as := startAS(b, nil, honest)
	ns := startDNS(b, "a.test. 300 IN TXT "+as.record(""))
	v := startVerifier(b, options(ns.Addr()))
	q := query(b, "somebody@a.test", "goodgoodgoodgoodgoodgood26")
	if r := v.Verify(context.Background(), q); r.Status != Pass {
		b.Fatalf("%+v", r)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if r := v.Verify(context.Background(), q); !r.Cached {
				b.Errorf("%+v", r)
			}
		}
	})
}

// BenchmarkVerifyAsked is a question to an AS over loopback for each operation.
func BenchmarkVerifyAsked(b *testing.B) {
	as := startAS(b, nil, honest)
	ns := startDNS(b, "a.test. 300 IN TXT "+as.record(""))
	v := startVerifier(b, options(ns.Addr()))
	a := address(b, "somebody@a.test")
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			q := Query{Address: a, Key: wire.JoinKeys(fmt.Sprintf("wrong%d", n.Add(1)))}
			if r := v.Verify(context.Background(), q); r.Status != Fail {
				b.Errorf("%+v", r)
			}
		}
	})
}

// BenchmarkCacheMemory fills a cache with addresses of some 25 octets, and of the
// greatest length, and reports what the process needs for it, garbage at its worst
// included and not. The collector is set as the milter's is.
func BenchmarkCacheMemory(b *testing.B) {
	b.Run("usual", func(b *testing.B) { benchmarkCacheMemory(b, "user") })
	b.Run("longest", func(b *testing.B) { benchmarkCacheMemory(b, strings.Repeat("u", 990)) })
}

func benchmarkCacheMemory(b *testing.B, prefix string) {
	const entries = 1_000_000
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	for b.Loop() {
		debug.FreeOSMemory()
		before := resident(b)
		c := NewCache(entries)
		var peak int64
		for i := range entries + entries/10 {
			a, err := wire.ParseAddress(fmt.Sprintf("%s%d@mail%d.example", prefix, i, i%1000))
			if err != nil {
				b.Fatal(err)
			}
			c.put(a, digest{byte(i), byte(i >> 8), byte(i >> 16)}, time.Hour)
			if i%100_000 == 0 {
				peak = max(peak, resident(b))
			}
		}
		peak = max(peak, resident(b))
		debug.FreeOSMemory()
		b.ReportMetric(float64(peak-before)/1e6, "peak-MB")
		b.ReportMetric(float64(resident(b)-before)/1e6, "kept-MB")
		if c.Len() != entries {
			b.Errorf("%d entries", c.Len())
		}
		runtime.KeepAlive(c)
	}
}

// resident returns the resident set in octets.
func resident(b *testing.B) int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Fscan(bytes.NewReader(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
