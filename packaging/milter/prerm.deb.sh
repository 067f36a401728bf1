#!/bin/sh
set -e

if [ "$1" = remove ]; then
	# Mail would be deferred, or go by unchecked, for a milter that is gone.
	if [ -z "${DPKG_ROOT:-}" ] && ! authkey-milter setup --undo; then
		cat >&2 <<'TEXT'

********************************************************************************
authkey-milter is removed, and your mail system still asks it, or that cannot be
told: see above. Until that is mended mail may be DEFERRED, or DELIVERED UNCHECKED.
********************************************************************************

TEXT
	fi
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		deb-systemd-invoke stop authkey-milter-retry.timer authkey-milter.service authkey-milter.socket >/dev/null || true
	fi
fi
