package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRemoveOthers: a folder has the packages of one build, and what is not ours stays.
func TestRemoveOthers(t *testing.T) {
	dir := t.TempDir()
	made := []string{"authkey-milter_1.1-1_amd64.deb", "authkey-milter-1.1-1.x86_64.rpm", "authkey-server_1.1-1_amd64.deb"}
	stay := []string{"authkey-milter.notes", "authkey-other_1.0-1_amd64.deb", "notes.deb"}
	gone := []string{"authkey-milter_1.0-1_amd64.deb", "authkey-milter_1.0-1_arm64.deb", "authkey-server-1.0-1.x86_64.rpm", "authkey-server_1.0_amd64.cdx.json", "SHA256SUMS"}
	for _, names := range [][]string{made, stay, gone} {
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := (&build{out: dir, made: made}).removeOthers(); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, name := range append(stay, made...) {
		want[name] = true
	}
	got := map[string]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got[e.Name()] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
