package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRecipes runs every configuration that docs/policy.md prints, and holds the
// document to what it says of each.
func TestRecipes(t *testing.T) {
	w := newWorld(t)
	doc, err := os.ReadFile("../../docs/policy.md")
	must(t, err)
	sections := strings.Split(string(doc), "\n### ")[1:]
	if len(sections) != 10 {
		t.Fatalf("%d recipes, want 10", len(sections))
	}
	for _, section := range sections {
		name, _, _ := strings.Cut(section, "\n")
		t.Run(name, func(t *testing.T) {
			blocks := fencedBlocks(section)
			if blocks["yaml"] == "" || blocks["outcomes"] == "" {
				t.Fatal("no configuration, or no outcomes")
			}
			prefs := filepath.Join(t.TempDir(), "preferences.yaml")
			must(t, os.WriteFile(prefs, []byte(blocks["preferences"]), 0o644))
			conf := writeConfig(t, "dns: {servers: [\""+w.DNS.Addr()+"\"], timeout: 1s}\nverify: {allow_networks: [127.0.0.0/8]}\n"+
				strings.ReplaceAll(blocks["yaml"], "PREFERENCES", prefs))
			if out, code := runMilter(t, "", "check", "--config", conf); code != 0 || out != "" {
				t.Fatalf("check: exit %d\n%s", code, out)
			}
			for line := range strings.Lines(blocks["outcomes"]) {
				words := strings.Fields(line)
				if len(words) != 4 {
					t.Fatalf("not sender, key, recipient, action: %q", line)
				}
				checkRecipe(t, w, conf, words[0], words[1], words[2], words[3])
			}
		})
	}
}

func checkRecipe(t *testing.T, w *World, conf, sender, key, rcpt, action string) {
	t.Helper()
	header := "From: " + sender + "\n"
	switch key {
	case "right":
		header += "X-Auth-Key: " + w.mustKey(t, sender) + "\n"
	case "wrong":
		header += "X-Auth-Key: wrongkey\n"
	case "none":
	default:
		t.Fatalf("key %q", key)
	}
	out, _ := runMilter(t, header+"\n", "explain", "-", "--config", conf, "--from", sender, "--rcpt", rcpt)
	if !regexp.MustCompile(`(?m)^action +` + action + `\b($|[^-])`).MatchString(out) {
		t.Errorf("%s, %s key, to %s: want %s\n%s", sender, key, rcpt, action, out)
	}
}

// fencedBlocks are the fenced blocks of a section by their info string.
func fencedBlocks(section string) map[string]string {
	blocks := make(map[string]string)
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		blocks[m[1]] = m[2]
	}
	return blocks
}
