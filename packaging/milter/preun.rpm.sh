if [ "$1" -eq 0 ]; then
	# Mail would be deferred, or accepted unchecked, for a milter that is gone.
	if ! authkey-milter setup --undo; then
		cat >&2 <<'TEXT'

********************************************************************************
authkey-milter is removed, and your mail system still asks it, or this could not be
determined: see above. Until that is corrected mail may be DEFERRED, or DELIVERED
UNCHECKED.
********************************************************************************

TEXT
	fi
	systemctl --no-reload disable --now authkey-milter.service authkey-milter.socket >/dev/null 2>&1 || :
	systemctl stop authkey-milter-retry.timer >/dev/null 2>&1 || :
fi
