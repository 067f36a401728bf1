package main

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestAUC(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b []int
		want float64
	}{
		{"one each, more", []int{1}, []int{2}, 1},
		{"one each, less", []int{2}, []int{1}, 0},
		{"one each, equal", []int{1}, []int{1}, 0.5},
		{"all of b more", []int{1, 2, 3}, []int{4, 5}, 1},
		{"one pair of six the other way", []int{1, 4, 3}, []int{5, 3}, 4.5 / 6},
		{"the same", []int{3, 1, 2, 2}, []int{2, 3, 2, 1}, 0.5},
		{"nothing but equals", []int{7, 7, 7}, []int{7, 7}, 0.5},
	} {
		if got := auc(tt.a, tt.b); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("%s: %v; want %v", tt.name, got, tt.want)
		}
		if there, back := auc(tt.a, tt.b), auc(tt.b, tt.a); math.Abs(there+back-1) > 1e-12 {
			t.Errorf("%s: %v there and %v back", tt.name, there, back)
		}
	}
}

// TestAUCFindsAShift has two samples whose distributions are known.
func TestAUCFindsAShift(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sample := func(shift float64) []float64 {
		list := make([]float64, 20_000)
		for i := range list {
			list[i] = random.NormFloat64() + shift
		}
		return list
	}
	chance := aucChance(20_000, 20_000)
	if chance < 0.005 || chance > 0.006 {
		t.Errorf("chance ±%v", chance)
	}
	for _, shift := range []float64{0, 0.1, 1} {
		// The difference of two normal values is normal, with twice the variance.
		want := 0.5 * (1 + math.Erf(shift/2))
		if got := auc(sample(0), sample(shift)); math.Abs(got-want) > 2*chance {
			t.Errorf("shift %v: %v; want %v", shift, got, want)
		}
	}
}

func TestTimeAnswers(t *testing.T) {
	server, questions := startTestServer(t)
	wrong := func(name string) *timedKind {
		k := &timedKind{name: name}
		for _, q := range questions {
			k.questions = append(k.questions, question{q.address, parseKey(t, "WRONG")})
		}
		return k
	}
	kinds := []*timedKind{wrong("first"), wrong("second")}
	const n = 200
	if err := server.timeAnswers(t.Context(), kinds, n); err != nil {
		t.Fatal(err)
	}
	all := append(append([]time.Duration(nil), kinds[0].times...), kinds[1].times...)
	if len(all) != n || len(kinds[0].times) < n/10 || len(kinds[1].times) < n/10 || quantile(all, 0) <= 0 {
		t.Errorf("%d and %d times, the least %s", len(kinds[0].times), len(kinds[1].times), quantile(all, 0))
	}
	err := server.timeAnswers(t.Context(), []*timedKind{{name: "valid", questions: questions}}, n)
	if err == nil || !strings.Contains(err.Error(), "valid is answered VALIDKEY") {
		t.Errorf("error %v", err)
	}
}

func TestCompareTimes(t *testing.T) {
	var out strings.Builder
	b := &bench{out: &out}
	b.compareTimes([]*timedKind{
		{name: "none", times: []time.Duration{10_000, 20_000}},
		{name: "alike", times: []time.Duration{20_000, 10_000}},
		{name: "slower", times: []time.Duration{30_000, 40_000}},
	})
	for _, line := range []string{
		"| alike          |         2 |    10.0 |    10.0 |    20.0 | 0.5000 |   0.6326 |\n",
		"| slower         |         2 |    30.0 |    30.0 |    40.0 | 1.0000 |   0.6326 |\n",
		"- alike against none, AUC's distance from a half: 0 (at most 0.03): met\n",
		"- slower against none, AUC's distance from a half: 0.5 (at most 0.03): MISSED\n",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
	if b.missed != 1 {
		t.Errorf("missed %d", b.missed)
	}
}
