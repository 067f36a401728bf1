#!/bin/sh
set -e

if [ "$1" = remove ]; then
	# Mail would be deferred, or accepted unchecked, for a milter that is gone.
	if [ -z "${DPKG_ROOT:-}" ] && ! authkey-milter setup --undo; then
		cat >&2 <<'TEXT'

********************************************************************************
authkey-milter is removed, and your mail system still asks it, or this could not be
determined: see above. Until that is corrected mail may be DEFERRED, or DELIVERED
UNCHECKED.
********************************************************************************

TEXT
	fi
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		deb-systemd-invoke stop authkey-milter-retry.timer authkey-milter.service authkey-milter.socket >/dev/null || true
	fi
fi
