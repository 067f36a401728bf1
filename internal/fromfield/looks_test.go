package fromfield

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// lookingLikeTarget are texts in which a person sees the target: with what has no width
// at every place, with other letters, and with something right before or behind it.
func lookingLikeTarget() (texts []string) {
	for _, unseen := range []string{"\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f", "\u061c", "\u180e", "\u2061", "\u206a", "\ufe00",
		"\U000e0100", "\U000e0020", "\u115f", "\u3164", "\u200e", "\u202a", "\u2066\u2069", "\u00a0", "\u200a", "\u202f", "\x01", "\x7f", "\u0080", "\u2800",
		"\ufff9", "\U0001bca0", "\U0001d173", "\u17b5", "\u2028"} {
		for i := range len(target) + 1 {
			texts = append(texts, target[:i]+unseen+target[i:])
		}
	}
	others := map[byte]string{'b': "ЬƄᖯｂ𝐛в", 'o': "оο", 'a': "аαａ𝐚ɑ⍺", 'n': "ոｎ𝐧пŋ", 'k': "кκｋ𝐤K", '.': "．。｡․ꓸ܁𐩐٠·", 't': "ｔ𝐭тτ", 'e': "еｅҽ℮ⅇє", 's': "ѕｓꜱ𝐬", '@': "＠﹫"}
	for i := range len(target) {
		for _, other := range others[target[i]] {
			texts = append(texts, target[:i]+string(other)+target[i+1:])
		}
	}
	for _, beside := range []string{"…", "。", "、", "，", "！", "”", "’", "»", "）", "】", "」", "™", "®", "✓", "😀", "\u20e3", "\u3000", "|", "/", "*", "–", "—", "=",
		"~", "&", "#", "%", "$", "?", "!", "'", "`", `"`, ")", "]", "}", ">", "的", "です", "님", "ру", "ا", "א", "\ufffd", "\xff", "\xe9\xe9"} {
		texts = append(texts, target+beside, target+beside+"Boss", "Boss"+beside+target)
	}
	return append(texts, target+"_", target+"-")
}

// TestLooks puts what looks like the target wherever a field is shown.
func TestLooks(t *testing.T) {
	hexed := func(s, octet string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, octet, s[i])
		}
		return b.String()
	}
	coded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, place := range []func(string) string{
		func(s string) string { return s + " <x@evil.test>" },
		func(s string) string {
			return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(s) + `" <x@evil.test>`
		},
		func(s string) string { return "x@evil.test (" + s + ")" },
		func(s string) string { return "=?utf-8?b?" + coded(s) + "?= <x@evil.test>" },
		func(s string) string {
			return "=?utf-8?b?" + coded(s)[:7] + "?=\r\n =?utf-8?b?" + coded(s)[7:] + "?= <x@evil.test>"
		},
		func(s string) string { return "=?utf-8?q?" + hexed(s, "=%02x") + "?= <x@evil.test>" },
		func(s string) string { return hexed(s, "=?utf-8?q?=%02x?= ") + "<x@evil.test>" },
		func(s string) string { return "=?utf-8?q?" + s + "?= <x@evil.test>" },
		func(s string) string { return "Boss <" + s + ">" },
		func(s string) string { return s },
		func(s string) string { return "x@evil.test, " + s },
	} {
		for _, text := range lookingLikeTarget() {
			if r := read(place(text)); !r.Excess && !mentions(r, "bank.test") {
				t.Errorf("%q: %s", place(text), outline(r))
			}
		}
	}
}
