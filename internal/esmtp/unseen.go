package esmtp

import "unicode"

// IsBlank reports whether r is shown as a blank: the space, the TAB, and characters that only
// look like a space, such as U+00A0 and U+3164.
func IsBlank(r rune) bool {
	switch r {
	case '\t', '\u115F', '\u1160', '\u2800', '\u3164', '\uFFA0':
		return true
	}
	return unicode.Is(unicode.Zs, r)
}

// IsInvisible reports whether r does not show at all: control and format characters,
// variation selectors, and others that programs may ignore.
func IsInvisible(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// IsControl reports whether r could change how the text around it is read or shown: controls,
// line separators, and characters that turn the direction of writing.
func IsControl(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}
