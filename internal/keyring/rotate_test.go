package keyring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A secret is replaced step by step; at none of them is a key refused that was attached
// before, or would be.
func TestSecretRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	if _, err := CreateSecret(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	d, err := Open(Config{Form: Form{Domain: "example.com"}, SecretFile: path, Addresses: "any", AVT: time.Hour, Grace: 5 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 30, 12, 30, 0, 0, time.UTC)
	bob := address(t, "bob@example.com")
	issue := func() Issued {
		t.Helper()
		if err := d.Reload(); err != nil {
			t.Fatal(err)
		}
		k, err := d.KeyAt(bob, now)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	old := issue()
	expect := func(r Rotation, err error, stage Stage, ids int) {
		t.Helper()
		again, readErr := ReadRotation(path)
		if err != nil || readErr != nil || r.Stage != stage || len(r.Secrets) != ids || fmt.Sprint(r) != fmt.Sprint(again) {
			t.Fatalf("%+v, %v; read again %+v, %v; want %s", r, err, again, readErr, stage)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o400 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	r, err := ReadRotation(path)
	expect(r, err, StageIdle, 1)

	r, err = AddSecret(t.Context(), path, now)
	expect(r, err, StageAdded, 2)
	if k := issue(); k.Key.Reveal() != old.Key.Reveal() || r.New != r.Secrets[1] || !r.Since.Equal(now) {
		t.Errorf("the new secret makes keys already, or %+v", r)
	}
	keys, err := d.KeysAt(bob, now)
	if err != nil || !slices.ContainsFunc(keys, func(k Issued) bool { return k.Secret == r.New }) {
		t.Errorf("the new secret is not accepted: %v", err)
	}

	r, err = UseSecret(t.Context(), path, now.Add(time.Hour))
	expect(r, err, StageRetiring, 2)
	fresh := issue()
	if fresh.Secret != r.New || !slices.Equal(r.Old, []string{old.Secret}) || !r.OldMayGo(time.Hour, 5*time.Hour).Equal(now.Add(7*time.Hour+ClockSkew)) {
		t.Errorf("%s makes keys, %+v", fresh.Secret, r)
	}
	if !verify(t, d, "bob@example.com", old.Key, now).Valid || !verify(t, d, "bob@example.com", fresh.Key, now).Valid {
		t.Error("a key is refused")
	}

	r, err = DropSecrets(t.Context(), path)
	expect(r, err, StageIdle, 1)
	if k := issue(); k.Key.Reveal() != fresh.Key.Reveal() || verify(t, d, "bob@example.com", old.Key, now).Valid {
		t.Error("the old secret is still there")
	}
	if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), rotationMark) || !strings.HasPrefix(string(text), "# AuthKey secret.") {
		t.Errorf("%v, marks are left, or the comments have gone", err)
	}
}

// Each step is for its stage only, so that a step that was made is not made twice.
func TestSecretRotationStages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	steps := map[string]func() (Rotation, error){
		"add":  func() (Rotation, error) { return AddSecret(t.Context(), path, time.Now()) },
		"use":  func() (Rotation, error) { return UseSecret(t.Context(), path, time.Now()) },
		"drop": func() (Rotation, error) { return DropSecrets(t.Context(), path) },
	}
	const a, b, c = "a AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\n", "b AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=\n", "c AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM=\n"
	for _, tt := range []struct {
		text  string
		stage Stage
		step  string // that is possible
		after string // what the file then is, with {time} for a time
	}{
		{"# x\n" + a, StageIdle, "add", "# x\n" + a + `#rotation added \w{8} {time}` + "\n\\w{8} .{44}\n"},
		{"#rotation used z 2026-01-01T00:00:00Z\n" + a, StageIdle, "add", "#rotation used z 2026-01-01T00:00:00Z\n" + a + `#rotation added \w{8} {time}` + "\n\\w{8} .{44}\n"},
		{a + "# mine\n#rotation added b 2026-01-01T00:00:00Z\n" + b, StageAdded, "use", "#rotation used b {time}\n" + b + a + "# mine\n"},
		{a + c + "#rotation added b 2026-01-01T00:00:00Z\r\n" + strings.TrimSuffix(b, "\n"), StageAdded, "use", "#rotation used b {time}\n" + b + a + c},
		{b + "#rotation added b 2026-01-01T00:00:00Z\n" + a, StageAdded, "use", "#rotation used b {time}\n" + b + a}, // moved by hand
		{"#rotation used b 2026-01-01T00:00:00Z\n" + b + a + "# mine\n" + c, StageRetiring, "drop", b + "# mine\n"},
		{a + b, StageUnknown, "", ""},
		{a + "#rotation added b yesterday\n" + b, StageUnknown, "", ""},
		{a + "#rotation added c 2026-01-01T00:00:00Z\n" + b, StageUnknown, "", ""},
	} {
		for name, step := range steps {
			write(t, path, tt.text)
			r, err := ReadRotation(path)
			if err != nil || r.Stage != tt.stage {
				t.Errorf("%q: %+v, %v, want %s", tt.text, r, err, tt.stage)
			}
			_, err = step()
			text, _ := os.ReadFile(path)
			if name != tt.step {
				if !errors.Is(err, ErrStage) || string(text) != tt.text {
					t.Errorf("%s %q: %v, %q", name, tt.text, err, text)
				}
				continue
			}
			pattern := strings.ReplaceAll(strings.ReplaceAll(tt.after, "{time}", `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "# x", "# x")
			if err != nil || !regexp.MustCompile("^(?:"+pattern+")$").MatchString(string(text)) {
				t.Errorf("%s %q: %v, %q, want %s", name, tt.text, err, text, pattern)
			}
		}
	}
	for _, text := range []string{"", "# nothing\n", "a x\n", a + a} {
		write(t, path, text)
		if r, err := ReadRotation(path); err == nil {
			t.Errorf("%q: %+v", text, r)
		}
		if _, err := AddSecret(t.Context(), path, time.Now()); err == nil || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%q: %v", text, err)
		}
	}
	// Four is the most that there may be.
	write(t, path, a+b+c+"#rotation used a 2026-01-01T00:00:00Z\n")
	if _, err := DropSecrets(t.Context(), path); err != nil {
		t.Error(err)
	}
	if _, err := AddSecret(t.Context(), path+"none", time.Now()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without file: %v", err)
	}
}

// FuzzSecretRotation: whatever comments a file has, a step changes no secret but by its own.
func FuzzSecretRotation(f *testing.F) {
	const a, b = "a AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\n", "b AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=\n"
	f.Add("# x\n" + a)
	f.Add(a + "#rotation added b 2026-01-01T00:00:00Z\n" + b)
	f.Add("\uFEFF#rotation used b 2026-01-01T00:00:00Z\n" + b + "\n" + a + "#")
	f.Add(" #rotation added a 2026-01-01T00:00:00+01:00\r\n" + a + b)
	path := filepath.Join(f.TempDir(), "secret")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := ReadRotation(path)
		if err != nil {
			return
		}
		for _, step := range []func() (Rotation, error){
			func() (Rotation, error) { return AddSecret(t.Context(), path, time.Now()) },
			func() (Rotation, error) { return UseSecret(t.Context(), path, time.Now()) },
			func() (Rotation, error) { return DropSecrets(t.Context(), path) },
		} {
			after, err := step()
			if err != nil && !errors.Is(err, ErrStage) {
				t.Fatalf("%v of %q", err, text)
			}
			if err != nil {
				continue
			}
			gone := 0
			for _, id := range before.Secrets {
				if !slices.Contains(after.Secrets, id) {
					gone++
				}
			}
			if gone > 0 && before.Stage != StageRetiring || after.Stage == before.Stage || after.Stage == StageUnknown {
				t.Errorf("%+v became %+v", before, after)
			}
			before = after
		}
	})
}
